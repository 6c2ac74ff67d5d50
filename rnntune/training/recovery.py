"""The checkpoints of a run or a trial: each whole or not there, the newest last.

A folder `checkpoint_<step>` is written aside and moved into place; on remote storage its
`state.json` comes last. So one with a `state.json` was whole once, and what is missing from it
later is damage, not a write that was cut off.
"""

import contextlib
import dataclasses
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rnntune import storage
from rnntune.errors import RnntuneError, RunError, StorageError
from rnntune.location import Location
from rnntune.training.checkpoint import Snapshot, load_snapshot, save_snapshot, verify

__all__ = ["CHECKPOINTS", "REFIT", "CheckpointStore", "check_checkpoints", "read_checkpoint"]
CHECKPOINTS = "checkpoints"
"""Name of the folder of a run's checkpoints."""
REFIT = "refit"
"""Name of the folder in it that has those of a second training on all rows."""
_PREFIX = "checkpoint_"
_STATE = "state.json"


class CheckpointStore:
    """A folder of checkpoints, local or remote; one process at a time writes into it.

    Args:
        uri: folder or URI; other files in it are left alone.
        keep: newest checkpoints that are kept.
    """

    def __init__(self, uri: str, keep: int = 1) -> None:
        self.uri, self._keep = uri, keep

    def save(self, snapshot: Snapshot) -> str:
        """Write a checkpoint and delete those that are older than the newest few.

        Returns:
            Its URI.

        Raises:
            StorageError: it cannot be written; nothing of it is left behind.
        """
        name = f"{_PREFIX}{snapshot.state.step:09}"
        try:
            if Location.parse(self.uri).is_remote:
                self._upload(name, snapshot)
            else:
                self._write(name, snapshot)
        except (OSError, SafetensorError) as error:
            reason = RnntuneError.reason(error)
            raise StorageError(f"no checkpoint in {self.uri}: {reason}") from error
        with contextlib.suppress(StorageError):  # the next checkpoint tries again
            for old in self.names()[: -self._keep]:
                storage.delete(storage.join(self.uri, old))
        return storage.join(self.uri, name)

    def _write(self, name: str, snapshot: Snapshot) -> None:
        folder = Path(storage.locate(self.uri)[1])
        aside = folder / f".{name}.{uuid.uuid4().hex[:8]}.part"
        try:
            save_snapshot(aside, snapshot)
            shutil.rmtree(folder / name, ignore_errors=True)
            aside.rename(folder / name)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def _upload(self, name: str, snapshot: Snapshot) -> None:
        storage.delete(storage.join(self.uri, name))
        with tempfile.TemporaryDirectory() as aside:
            save_snapshot(Path(aside), snapshot)
            files = sorted(Path(aside).iterdir(), key=lambda file: file.name == _STATE)
            for file in files:
                storage.write_bytes(storage.join(self.uri, name, file.name), file.read_bytes())

    def adopt(self, checkpoint: str, identity: Mapping[str, Any]) -> None:
        """Take a copy of another run's checkpoint in place of all that are here.

        Args:
            checkpoint: its URI; it stays.
            identity: what replaces the same parts of its identity.

        Raises:
            RunError: it is truncated or damaged; nothing was changed.
            StorageError: it cannot be read or written.
        """
        snapshot = read_checkpoint(checkpoint, {})
        self.clear()
        identity = {**snapshot.identity, **identity}
        self.save(dataclasses.replace(snapshot, identity=identity))

    def sweep(self) -> None:
        """Delete what a killed process left of a checkpoint or another file that it wrote."""
        for name in storage.list_folder(self.uri):
            if name.startswith(f".{_PREFIX}") or name.endswith(".part"):
                with contextlib.suppress(StorageError):
                    storage.delete(storage.join(self.uri, name))

    def names(self) -> list[str]:
        """Names of the checkpoints, the newest last."""
        names = [name for name in storage.list_folder(self.uri) if name.startswith(_PREFIX)]
        return [name for name in names if storage.exists(storage.join(self.uri, name, _STATE))]

    def latest(self) -> str | None:
        """URI of the newest checkpoint; None without one."""
        names = self.names()
        return storage.join(self.uri, names[-1]) if names else None

    def clear(self) -> None:
        """Delete all checkpoints, and what a killed process left of one."""
        for name in storage.list_folder(self.uri):
            if name.startswith((_PREFIX, f".{_PREFIX}")):
                storage.delete(storage.join(self.uri, name))


def read_checkpoint(uri: str, identity: Mapping[str, Any]) -> Snapshot:
    """Read a checkpoint, local or remote.

    Raises:
        RunError: it is truncated, damaged or of another run.
        StorageError: it cannot be read.
    """
    with tempfile.TemporaryDirectory() as aside:
        return load_snapshot(Path(storage.local_copy(uri, aside)), identity)


def check_checkpoints(uri: str, tell: Callable[[str], None] = lambda _: None) -> None:
    """Make sure that a run can go on from its latest whole checkpoint, or has none.

    Newer ones that are damaged are deleted, and what a killed process left.

    Args:
        uri: the run folder.
        tell: called with a line if the run goes on from an earlier checkpoint than its latest.

    Raises:
        RunError: there are checkpoints, but none is whole; the latest one's fault is named.
    """
    folder = storage.join(uri, CHECKPOINTS)
    for each in (folder, storage.join(folder, REFIT)):
        _check_folder(each, tell)


def _check_folder(folder: str, tell: Callable[[str], None]) -> None:
    store = CheckpointStore(folder)
    damaged: dict[str, RunError] = {}
    for name in reversed(store.names()):
        checkpoint = storage.join(folder, name)
        try:
            with tempfile.TemporaryDirectory() as aside:
                state = verify(Path(storage.local_copy(checkpoint, aside)))["state"]
            break
        except RunError as error:
            damaged[checkpoint] = error
    else:
        if damaged:
            raise next(iter(damaged.values()))
    for checkpoint, fault in damaged.items():
        tell(f"{fault}; going on from the one before, of step {state['step']}")
        storage.delete(checkpoint)
    for name in storage.list_folder(folder):
        if name.startswith("."):  # a killed process left it
            with contextlib.suppress(StorageError):
                storage.delete(storage.join(folder, name))
