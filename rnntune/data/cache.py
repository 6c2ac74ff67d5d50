"""The cache of prepared data: what is in it, who uses it, and how it is cleaned.

`CACHE/prepared/FINGERPRINT/` is an entry: `manifest.json`, which makes it complete, a folder with
its rows, and files that end in `.owner.json`, each the note of a process that prepares or uses it.
A note whose process is gone counts no more; see `cluster.owner`.
"""

import contextlib
import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from rnntune import storage
from rnntune.cluster.owner import Owner, hold, is_abandoned, let_go
from rnntune.errors import DataError, StorageError
from rnntune.location import Location

__all__ = ["MANIFEST", "OWNER", "CacheEntry", "clean_cache", "in_use", "list_cache", "sweep_entry"]
MANIFEST = "manifest.json"
OWNER = ".owner.json"
"""End of the name of the note of who prepares or uses an entry."""
_USED = "used.json"
_UNFINISHED_S = 86_400.0
_RENEW_S = 3_600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """Prepared data in the cache.

    Args:
        uri: folder or URI.
        source: what it was prepared from; empty: an unfinished preparation.
        num_rows: of all splits.
        num_bytes: of all its files.
        used_at: when it was last used or written, in seconds since 1970.
        users: who prepares or uses it now.
        aliases: other entries, with the settings that were chosen for this one.
    """

    uri: str
    source: str
    num_rows: int
    num_bytes: int
    used_at: float
    users: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether its preparation came to its end."""
        return bool(self.source)

    @property
    def age_s(self) -> float:
        """Seconds since it was last used or written."""
        return max(0.0, time.time() - self.used_at)


@contextlib.contextmanager
def in_use(entries: Iterable[str]) -> Iterator[None]:
    """Note that this process uses entries of the cache, so that nobody cleans them meanwhile.

    A cache that cannot be written is used without a note.

    Args:
        entries: folders of rows, as `PreparedDataset.uri` names them.

    Raises:
        DataError: an entry was cleaned at this moment.
    """
    owner = Owner.this_process()
    hold(owner)
    notes: list[str] = []
    ended = threading.Event()
    try:
        for entry in {_parent(uri) for uri in entries}:
            sweep_entry(entry)
            note = storage.join(entry, f"use-{uuid.uuid4().hex[:12]}{OWNER}")
            with contextlib.suppress(StorageError):
                storage.write_text(note, owner.to_json())
                notes.append(note)
                storage.write_text(storage.join(entry, _USED), "{}\n")  # its time is what counts
            if not storage.exists(storage.join(entry, MANIFEST)):
                raise DataError(f"{entry}: was cleaned from the cache at this moment; try again")
        threading.Thread(target=_renew, args=(notes, owner, ended), daemon=True).start()
        yield
    finally:
        ended.set()
        let_go(owner)
        for note in notes:
            with contextlib.suppress(StorageError):
                storage.delete(note)


def _renew(notes: Iterable[str], owner: Owner, ended: threading.Event) -> None:
    """Write notes again now and then: to other machines one of a day ago is a dead process's."""
    while not ended.wait(_RENEW_S):
        for note in notes:
            with contextlib.suppress(StorageError):
                renewed = dataclasses.replace(owner, renewed=time.time())
                storage.write_text(note, renewed.to_json())


def _parent(uri: str) -> str:
    return str(Location.parse(uri).parent)


def list_cache(cache_dir: str) -> list[CacheEntry]:
    """The entries of a cache, those used last first.

    Raises:
        StorageError: it cannot be read.
    """
    folder = storage.join(cache_dir, "prepared")
    names = storage.list_folder(folder)
    manifests = {name: _manifest(storage.join(folder, name)) for name in names}
    aliases: dict[str, list[str]] = {}
    for name, content in manifests.items():
        home = Location.parse(_parent(str(content["uri"]))).name if content else name
        if home != name:
            aliases.setdefault(home, []).append(name)
    hidden = {alias for home, others in aliases.items() if home in manifests for alias in others}
    entries = [
        _entry(storage.join(folder, name), content, aliases.get(name, ()))
        for name, content in manifests.items()
        if name not in hidden
    ]
    return sorted(entries, key=lambda entry: -entry.used_at)


def _manifest(entry: str) -> dict[str, Any] | None:
    """What a manifest says; None without a whole one."""
    try:
        content = json.loads(storage.read_text(storage.join(entry, MANIFEST)))
    except (StorageError, ValueError):
        return None
    is_whole = isinstance(content, dict) and isinstance(content.get("uri"), str)
    return content if is_whole else None


def _entry(uri: str, content: dict[str, Any] | None, aliases: Iterable[str]) -> CacheEntry:
    num_bytes, used_at = storage.folder_size(uri)
    rows = 0
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        rows = sum(int(split["num_rows"]) for split in (content or {})["splits"].values())
    return CacheEntry(
        uri=uri,
        source=str((content or {}).get("source") or "?") if content else "",
        num_rows=rows,
        num_bytes=num_bytes,
        used_at=used_at,
        users=tuple(_users(uri)),
        aliases=tuple(aliases),
    )


def _users(entry: str) -> Iterator[str]:
    for name in storage.list_folder(entry):
        note = storage.join(entry, name)
        if name.endswith(OWNER) and not is_abandoned(note):
            owner = None
            with contextlib.suppress(StorageError, ValueError):
                owner = Owner.parse(json.loads(storage.read_text(note)))
            if storage.exists(note):
                yield str(owner or "somebody")


def clean_cache(
    cache_dir: str,
    *,
    older_than_s: float | None = None,
    max_bytes: int | None = None,
    everything: bool = False,
    dry_run: bool = False,
    keep: Iterable[str] = (),
) -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Delete entries that nobody uses, and what killed preparations left.

    Args:
        cache_dir: folder or URI of the cache; nothing but `prepared` in it is touched.
        older_than_s: delete what was not used for so long.
        max_bytes: delete what was used longest ago until no more is left.
        everything: delete all.
        dry_run: delete nothing.
        keep: entries to leave.

    Returns:
        What was, or would be, deleted, and what is in its way but in use.

    Raises:
        StorageError: the cache cannot be read, or something of it cannot be deleted.
    """
    entries = list_cache(cache_dir)
    chosen = [e for e in entries if not e.is_complete and e.age_s > _UNFINISHED_S]
    chosen += [e for e in entries if not e.is_complete and _is_orphaned(e) and e not in chosen]
    complete = [e for e in entries if e.is_complete]
    if everything:
        chosen = entries
    if older_than_s is not None:
        chosen += [e for e in complete if e.age_s > older_than_s and e not in chosen]
    if max_bytes is not None:
        left = sum(e.num_bytes for e in entries if e not in chosen)
        for entry in reversed(complete):
            if left > max_bytes and entry not in chosen and entry.uri not in set(keep):
                left -= 0 if entry.users else entry.num_bytes
                chosen.append(entry)
    chosen = [entry for entry in chosen if entry.uri not in set(keep)]
    free = [entry for entry in chosen if not entry.users]
    used = [entry for entry in chosen if entry.users]
    if not dry_run:
        free = [entry for entry in free if _delete(entry, cache_dir)]
        for entry in complete:
            if entry not in free:
                sweep_entry(entry.uri)
    return free, used


def _is_orphaned(entry: CacheEntry) -> bool:
    """Whether who prepared it is known to be gone."""
    names = storage.list_folder(entry.uri)
    return any(name.endswith(OWNER) for name in names) and not entry.users


def _delete(entry: CacheEntry, cache_dir: str) -> bool:
    """Delete an entry unless somebody came for it meanwhile.

    Its manifest goes first, so that nobody comes any more; who noted itself before is seen then.
    """
    for alias in entry.aliases:
        storage.delete(storage.join(cache_dir, "prepared", alias, MANIFEST))
    manifest = storage.join(entry.uri, MANIFEST)
    text = storage.read_text(manifest) if storage.exists(manifest) else None
    names = storage.list_folder(entry.uri)
    storage.delete(manifest)
    if any(_users(entry.uri)):
        if text is not None:
            storage.write_text(manifest, text)
        return False
    for name in names:  # and not the folder: a preparation may begin in it at this moment
        storage.delete(storage.join(entry.uri, name))
    for uri in (entry.uri, *(storage.join(cache_dir, "prepared", a) for a in entry.aliases)):
        if not storage.list_folder(uri):
            storage.delete(uri)
    return True


def sweep_entry(entry: str) -> None:
    """Delete what dead processes left in an entry; half-written files only if none is at work."""
    with contextlib.suppress(StorageError):
        names = storage.list_folder(entry)
        owners = [name for name in names if name.endswith(OWNER)]
        dead = [name for name in owners if is_abandoned(storage.join(entry, name))]
        content = _manifest(entry) or {}
        whole = Location.parse(str(content.get("uri", ""))).name
        for name in dead:
            if name.removesuffix(OWNER) != whole:  # its preparation was killed after its end
                storage.delete(storage.join(entry, name.removesuffix(OWNER)))
            storage.delete(storage.join(entry, name))
        if len(dead) == len(owners):
            for name in names:
                if name.endswith(".part"):
                    storage.delete(storage.join(entry, name))
