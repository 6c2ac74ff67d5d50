"""A run's folder: what is in it, whether a new run may use it, and who works on it.

`run.json` marks a folder as a run's: its kind, the package's version, the fingerprint of its
data and, while somebody works on it, its owner. Nothing but the files of a run is ever deleted.
"""

import contextlib
import dataclasses
import datetime
import enum
import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rnntune import __version__, storage
from rnntune.cluster.owner import Owner
from rnntune.cluster.shared_storage import PROBE_PREFIX
from rnntune.config.load import Config, parse_yaml
from rnntune.config.schema import DataConfig
from rnntune.errors import ConfigError, RunError, StorageError
from rnntune.location import Location
from rnntune.training.lease import Lease, refuse_living_owner
from rnntune.training.result_file import parse_result

__all__ = ["RunFolder", "RunKind", "RunMarker", "refuse_inside"]
_MARKER = "run.json"
_CONFIG = "config.yaml"
_FILES = (
    # What says that there is a run goes first when a run is deleted.
    _CONFIG,
    "result.json",
    "best.yaml",
    "pareto.yaml",
    "schedule.yaml",
    "warm_start.json",
    "trials.*",
    "metrics.jsonl",
    "report.html",
    "data.json",
    "test_predictions.parquet",
    "model",
    "ensemble",
    "checkpoints",
    "search",
    "tensorboard",
    "trackers.json",
    "*.log",
    "*.????????.part",
    f"{PROBE_PREFIX}*",
)
"""Names of a run's files besides `run.json`, as patterns; all that `--overwrite` deletes."""
_SIGNS = {"metrics.jsonl", "checkpoints", "trials.jsonl", "search", "result.json"}
_GROUPS = {"data", "batching", "model", "train", "tune"}


class RunKind(enum.Enum):
    """Which command made a run."""

    TRAIN = "train"
    TUNE = "tune"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunMarker:
    """The content of `run.json`.

    Args:
        kind: which command made the run.
        version: of the package that began it.
        fingerprint: of its data; None: not known, the run is of an older version.
        owner: who works on it now.
    """

    kind: RunKind
    version: str = __version__
    fingerprint: str | None = None
    owner: Owner | None = None

    @classmethod
    def parse(cls, text: str) -> "RunMarker | None":
        """The marker in a text; None if it is another file of this name."""
        try:
            content = json.loads(text)
            fingerprint = content["fingerprint"]
            if not isinstance(fingerprint, str | None):
                return None
            return cls(
                kind=RunKind(content["kind"]),
                version=str(content["version"]),
                fingerprint=fingerprint,
                owner=Owner.parse(content["owner"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def content(self) -> dict[str, Any]:
        """What the file holds besides the owner."""
        return {"kind": self.kind.value, "version": self.version, "fingerprint": self.fingerprint}


def _is_left_over(name: str) -> bool:
    """Whether a file is what a process leaves that was killed before its run began."""
    return name.startswith(PROBE_PREFIX) or fnmatch.fnmatch(name, f"{_MARKER}.????????.part")


class RunFolder:
    """The folder that a run leaves: local or on any file system that pyarrow knows.

    As a context manager it gives the run back at its end, if this process owns it.

    Args:
        uri: folder or URI.
        kind: which command works on it.
    """

    def __init__(self, uri: str, kind: RunKind = RunKind.TRAIN) -> None:
        self.uri = str(Location.parse(uri).absolute())
        self.kind = kind
        self._lease: Lease | None = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    @classmethod
    def named(cls, output: str | None, kind: RunKind = RunKind.TRAIN) -> "RunFolder":
        """The folder that the configuration names, or one named after the time."""
        if output:
            return cls(output, kind)
        return cls(f"runs/{datetime.datetime.now():%Y%m%d-%H%M%S}", kind)

    @classmethod
    def open(
        cls, config: Config, kind: RunKind, *, resume: bool, overwrite: bool
    ) -> tuple["RunFolder", Config]:
        """A run's folder with its configuration: of the run that is there, or of a new one.

        Raises:
            RunError: there is no run to resume, it is of the other kind, somebody works on it,
                or something may not be overwritten.
        """
        folder = cls.named(config.output, kind)
        if resume:
            resumed = folder.config()
            folder._check_kind()
            marker = folder.marker()
            if marker is None and storage.exists(folder.inside(_MARKER)):
                raise RunError(
                    f"{folder.inside(_MARKER)}: damaged; it says of which data the run is and who "
                    "works on it; without it, delete it, the run goes on unchecked"
                )
            if marker is None or marker.owner is None or not marker.owner.is_living():
                folder._delete_parts()
            return folder, resumed
        refuse_inside(folder.uri, _inputs(config.data), "holds")
        if overwrite:
            refuse_inside(folder.uri, [str(Path.cwd())], "is or holds the working directory")
        folder.check(overwrite=overwrite)
        return folder, dataclasses.replace(config, output=folder.uri)

    def inside(self, *names: str) -> str:
        """The path or URI of a file in it."""
        return storage.join(self.uri, *names)

    def marker(self) -> RunMarker | None:
        """What marks the folder as a run's; None if nothing does."""
        uri = self.inside(_MARKER)
        return RunMarker.parse(_read_text(uri)) if storage.exists(uri) else None

    def check(self, *, overwrite: bool) -> None:
        """Make sure that a new run may write here.

        Raises:
            RunError: something is there, or somebody works on the run that is there.
        """
        names = storage.list_folder(self.uri)
        marker = self.marker() if _MARKER in names else None
        if marker is not None:
            refuse_living_owner(self.uri, marker.owner)
            is_run = _CONFIG in names  # without one, nothing was done yet
        else:
            is_run = self._is_older_run(names)
            if not is_run and not all(_is_left_over(name) for name in names):
                raise RunError(f"{self.uri}: this folder is not empty and holds no run")
        if is_run and not overwrite:
            raise RunError(f"{self.uri}: a run is there already; use --resume or --overwrite")

    def _is_older_run(self, names: Sequence[str]) -> bool:
        """Whether a folder without a marker is a run of an older version, beyond doubt."""
        ours = all(any(fnmatch.fnmatch(name, pattern) for pattern in _FILES) for name in names)
        if not ours or _CONFIG not in names or not _SIGNS.intersection(names):
            return False
        try:
            tree = parse_yaml(storage.read_text(self.inside(_CONFIG)), _CONFIG)
        except (ConfigError, StorageError):
            return False
        return set(tree) >= _GROUPS

    def begin(self, config: Config, fingerprint: str | None = None, *, overwrite: bool) -> None:
        """Own the folder and write the configuration of a new run, after deleting an older run.

        Args:
            config: of the run.
            fingerprint: of its data.
            overwrite: whether an older run may be deleted.

        Raises:
            RunError: something is there and may not be overwritten, or somebody works on it.
        """
        self.check(overwrite=overwrite)
        self._own(RunMarker(kind=self.kind, fingerprint=fingerprint))
        names = storage.list_folder(self.uri)
        for pattern in _FILES:
            for name in fnmatch.filter(names, pattern):
                storage.delete(self.inside(name))
        self._delete_parts()
        storage.write_text(self.inside(_CONFIG), config.to_yaml())

    def go_on(self, fingerprint: str) -> None:
        """Own the folder of a run that was stopped.

        Args:
            fingerprint: of the data as it is now.

        Raises:
            RunError: the data is not the run's, or somebody works on it.
        """
        marker = self.marker() or RunMarker(kind=self.kind)
        refuse_living_owner(self.uri, marker.owner)
        self._check_data(marker, fingerprint)
        self._own(dataclasses.replace(marker, fingerprint=fingerprint))
        self._delete_parts()

    def extend(self, config: Config) -> None:
        """Take away the result of a search that goes on, and keep its new settings.

        Killed in between, the run comes to the same result again. Checkpoints of a training after
        the search go, too: it may be another one now.
        """
        storage.delete(self.inside("result.json"))
        storage.delete(self.inside("checkpoints"))
        storage.write_text(self.inside(_CONFIG), config.to_yaml())

    def _delete_parts(self) -> None:
        """Delete the half-written files that a killed process left."""
        self._sweep(self.uri)
        self._sweep_models()

    def _sweep_models(self) -> None:
        for name in ("model", "ensemble"):
            self._sweep(self.inside(name))

    @staticmethod
    def _sweep(folder: str) -> None:
        for name in fnmatch.filter(storage.list_folder(folder), "*.????????.part"):
            storage.delete(storage.join(folder, name))

    def _own(self, marker: RunMarker) -> None:
        self._lease = Lease(self.uri, self.inside(_MARKER), marker.content())

    def check_owner(self) -> None:
        """Make sure that the run is still this process's.

        Raises:
            RunError: this process was still for so long that somebody else took the run over.
        """
        if self._lease is not None:
            self._lease.check()

    def _check_kind(self) -> None:
        marker = self.marker()
        searched = {"trials.jsonl", "search"}.intersection(storage.list_folder(self.uri))
        of_older = RunKind.TUNE if searched else RunKind.TRAIN
        kind = marker.kind if marker else of_older
        if kind != self.kind:
            raise RunError(
                f"{self.uri}: a run of {kind.value}, not of {self.kind.value}; "
                f"go on with rnntune {kind.value} --resume {self.uri}"
            )

    def _check_data(self, marker: RunMarker, fingerprint: str) -> None:
        if marker.fingerprint in (None, fingerprint):
            return
        why = "the data or its settings changed since this run began"
        if marker.version != __version__:
            why = f"rnntune {marker.version} began this run, this is {__version__}, or {why}"
        raise RunError(
            f"{self.uri}: {why} (fingerprint {marker.fingerprint}, now {fingerprint}); "
            "go on with the data as it was, or begin a new run"
        )

    def config(self) -> Config:
        """The configuration of the run that is there.

        Raises:
            RunError: there is none.
        """
        if not storage.exists(self.inside(_CONFIG)):
            raise RunError(f"{self.uri}: no run to resume (no config.yaml)")
        return Config.load(self.inside(_CONFIG))

    def finished(self) -> dict[str, Any] | None:
        """The result, if the run has one."""
        uri = self.inside("result.json")
        if not storage.exists(uri):
            return None
        return parse_result(_read_text(uri), uri)

    def write_metrics(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Write `metrics.jsonl`, one line an epoch."""
        text = "".join(f"{json.dumps(dict(epoch))}\n" for epoch in history)
        storage.write_text(self.inside("metrics.jsonl"), text)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; it is the last file of a run."""
        text = json.dumps(dict(result), indent=2) + "\n"
        with contextlib.suppress(StorageError):  # it was done with trouble, and is done
            self._sweep_models()
        storage.write_text(self.inside("result.json"), text)


def _read_text(uri: str) -> str:
    """A file's text; what is not UTF-8 is no JSON either."""
    return storage.read_bytes(uri).decode("utf-8", "replace")


def refuse_inside(output: str, uris: Iterable[str], why: str) -> None:
    """Make sure that none of some files and folders is an output folder or inside one.

    Args:
        output: folder or URI.
        uris: what must be elsewhere; globs count as the folder before their first wildcard.
        why: what is wrong otherwise, after the folder's name.

    Raises:
        RunError: one is.
    """
    folder = Location.parse(output)
    for uri in uris:
        read = Location.parse(uri)
        if not read.is_remote:
            read = dataclasses.replace(read, path=re.split(r"[*?\[]", read.path)[0])
        if folder.contains(read):
            raise RunError(f"{output}: this output {why} {uri}; give another --output")


def _inputs(data: DataConfig) -> list[str]:
    """Files and folders that a run reads and must not delete or write among."""
    named = [] if data.source in ("sample", "ag_news") else data.source.split(",")
    for other in (data.test_source, data.validation_source):
        named += other.split(",") if other else []
    return [*(uri.strip() for uri in named), data.cache_dir]
