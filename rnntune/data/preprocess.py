"""Prepared data: found in the cache, or made and kept there.

A cache entry is complete when its `manifest.json` is there, which is written last; the files it
names are never written again.
"""

import contextlib
import dataclasses
import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

from rnntune import __version__, storage
from rnntune.cluster.owner import Owner, hold, let_go
from rnntune.config.schema import DataConfig
from rnntune.data.cache import MANIFEST, OWNER, clean_cache, sweep_entry
from rnntune.data.file_listing import file_digest
from rnntune.data.prepared import PreparedDataset, prepared_from_manifest, read_manifest
from rnntune.data.sources import (
    Source,
    resolve_source,
    source_fingerprint,
)
from rnntune.errors import DataError, StorageError
from rnntune.location import Location

__all__ = ["data_fingerprint", "prepare"]
_FORMAT = 8
# What these come to is in the fingerprint of the source.
_SOURCE_SETTINGS = (
    *("source", "test_source", "validation_source", "cache_dir", "cache_max_bytes"),
    *("format", "encoding", "delimiter", "header", "text_columns", "label_column"),
    *("label_delimiter", "multi_label"),
)


def prepare(
    data: DataConfig,
    tell: Callable[[str], None] = lambda _: None,
    *,
    require_test: bool = True,
    verbose: bool = False,
) -> PreparedDataset:
    """Prepare the data of a configuration, or find it in the cache.

    Data that is not small goes through Ray Data, on the connected cluster or one that is started
    for the time being.

    Args:
        data: where the text is and what becomes of it.
        tell: called with a line now and then.
        require_test: refuse data without a test split.
        verbose: let Ray log.

    Raises:
        DataError: no such data, rows that cannot be used, a class that training rows lack.
    """
    # The manifest outlives the working directory.
    data = dataclasses.replace(data, cache_dir=str(Location.parse(data.cache_dir).absolute()))
    source = resolve_source(data)
    for note in source.notes:
        tell(note)
    snapshot = _SourceSnapshot(source)
    entry = _entry(data, _fingerprint(data, snapshot.digest))
    manifest = storage.join(entry, MANIFEST)
    if storage.exists(manifest):
        prepared = read_manifest(manifest)
        _name_chosen(data, entry, prepared.fingerprint)
    else:
        content = _prepare_anew(data, snapshot, entry, tell, verbose=verbose)
        prepared = prepared_from_manifest(content, from_cache=False)
    if require_test and not prepared.splits["test"].num_rows:
        raise DataError(f"{data.source}: no test rows; set data.test_source or test_fraction")
    return prepared


class _SourceSnapshot:
    """Files as they are before they are read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._versions = self._now()
        self.digest = source_fingerprint(source)

    def _now(self) -> dict[str, Any]:
        if self.source.format == "sample":
            return {}
        version = file_digest if self.source.format == "class_folders" else storage.file_version
        return {file: version(file) for file in self.source.files}

    def check(self) -> None:
        """Refuse rows of files that changed meanwhile: the cache would keep them for ever.

        Raises:
            DataError: a file changed.
        """
        now = self._now()
        changed = [file for file, version in self._versions.items() if now[file] != version]
        if changed:
            raise DataError(f"{changed[0]}: changed while it was read; prepare the data again")


def _prepare_anew(
    data: DataConfig,
    snapshot: _SourceSnapshot,
    entry: str,
    tell: Callable[[str], None],
    *,
    verbose: bool,
) -> dict[str, Any]:
    from rnntune.data.passes import choose_passes  # pandas and more, of no use to a warm cache
    from rnntune.data.preparation import Preparation

    sweep_entry(entry)
    token = uuid.uuid4().hex[:12]
    uri = storage.join(entry, token)
    owner = Owner.this_process()
    owner_uri = storage.join(entry, f"{token}{OWNER}")
    hold(owner)
    try:
        storage.write_text(owner_uri, owner.to_json())
        with choose_passes(data, snapshot.source, tell, verbose=verbose) as passes:
            content, prepared = Preparation(data, snapshot.source, uri, tell, passes).run()
        snapshot.check()
        content["fingerprint"] = _fingerprint(prepared, snapshot.digest)
        storage.write_text(storage.join(entry, MANIFEST), json.dumps(content, indent=1))
    except BaseException:
        with contextlib.suppress(StorageError):
            storage.delete(uri)
            storage.delete(owner_uri)
        raise
    finally:
        let_go(owner)
    with contextlib.suppress(StorageError):  # neither is needed to use what was prepared
        _name_chosen(data, entry, content["fingerprint"])
        storage.delete(owner_uri)
        if data.cache_max_bytes is not None:
            freed, _ = clean_cache(data.cache_dir, max_bytes=data.cache_max_bytes, keep=[entry])
            if freed:
                tell(f"cleaned {len(freed)} older entries from the cache (data.cache_max_bytes)")
    return content


def _name_chosen(data: DataConfig, entry: str, fingerprint: str) -> None:
    """Let the settings that were chosen for an entry name it, too: a run goes on with them.

    A process may have been killed before it came to that.
    """
    chosen = _entry(data, fingerprint)
    with contextlib.suppress(StorageError):  # not needed to use what was prepared
        if chosen == entry or storage.exists(storage.join(chosen, MANIFEST)):
            return
        content = json.loads(storage.read_text(storage.join(entry, MANIFEST)))
        other = json.dumps({**content, "choices": []}, indent=1)
        storage.write_text(storage.join(chosen, MANIFEST), other)
        sweep_entry(chosen)


def _entry(data: DataConfig, fingerprint: str) -> str:
    return storage.join(data.cache_dir, "prepared", fingerprint)


def data_fingerprint(data: DataConfig) -> str:
    """The fingerprint that the data of a configuration has once it is prepared.

    Args:
        data: its settings; none is `auto` any more.

    Raises:
        DataError: there is no such data.
    """
    return _fingerprint(data, source_fingerprint(resolve_source(data)))


def _fingerprint(data: DataConfig, source_digest: str) -> str:
    settings = dataclasses.asdict(data)
    for name in _SOURCE_SETTINGS:
        settings.pop(name)
    parts = [_FORMAT, __version__, settings, source_digest]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
