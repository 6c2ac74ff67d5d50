"""A run's folder: what is in it, and whether a new run may use it."""

import contextlib
import dataclasses
import datetime
import json
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from rnntune import storage
from rnntune.config import Config
from rnntune.errors import RunError
from rnntune.probe import PREFIX

__all__ = ["EventFiles", "RunFolder"]


class RunFolder:
    """The folder that a run leaves: local or on any file system that pyarrow knows.

    Args:
        place: folder or URI.
    """

    def __init__(self, place: str) -> None:
        self.place = place if storage.is_remote(place) else storage.locate(place)[1]

    @classmethod
    def named(cls, output: str | None) -> "RunFolder":
        """The folder that the configuration names, or one named after the time."""
        if output:
            return cls(output)
        return cls(f"runs/{datetime.datetime.now():%Y%m%d-%H%M%S}")

    @classmethod
    def open(cls, config: Config, *, resume: bool, overwrite: bool) -> tuple["RunFolder", Config]:
        """A run's folder with its configuration: of the run that is there, or of a new one.

        Raises:
            RunError: there is no run to resume, or something that may not be overwritten.
        """
        folder = cls.named(config.output)
        if resume:
            return folder, folder.config()
        folder.check(overwrite=overwrite)
        return folder, dataclasses.replace(config, output=folder.place)

    def inside(self, *names: str) -> str:
        """The place of a file in it."""
        return storage.join(self.place, *names)

    def check(self, *, overwrite: bool) -> None:
        """Make sure that a new run may write here.

        Raises:
            RunError: something is there.
        """
        present = storage.exists(self.inside("config.yaml"))
        others = (n for n in storage.list_folder(self.place) if not n.startswith(PREFIX))
        if not present and any(others):
            raise RunError(f"{self.place}: this folder is not empty and holds no run")
        if present and not overwrite:
            raise RunError(f"{self.place}: a run is there already; use --resume or --overwrite")

    def begin(self, config: Config, *, overwrite: bool) -> None:
        """Write the configuration of a new run, after deleting an older run.

        Raises:
            RunError: something is there and may not be overwritten.
        """
        self.check(overwrite=overwrite)
        if overwrite:
            storage.delete(self.place)
        storage.write_text(self.inside("config.yaml"), config.to_yaml())

    def config(self) -> Config:
        """The configuration of the run that is there.

        Raises:
            RunError: there is none.
        """
        if not storage.exists(self.inside("config.yaml")):
            raise RunError(f"{self.place}: no run to resume (no config.yaml)")
        return Config.load(self.inside("config.yaml"))

    def finished(self) -> dict[str, Any] | None:
        """The result, if the run has one."""
        place = self.inside("result.json")
        if not storage.exists(place):
            return None
        result: dict[str, Any] = json.loads(storage.read_text(place))
        return result

    def write_metrics(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Write `metrics.jsonl`, one line an epoch."""
        text = "".join(f"{json.dumps(dict(epoch))}\n" for epoch in history)
        storage.write_text(self.inside("metrics.jsonl"), text)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; it is the last file of a run."""
        text = json.dumps(dict(result), indent=2) + "\n"
        storage.write_text(self.inside("result.json"), text)


class EventFiles:
    """TensorBoard event files of a run, in its folder `tensorboard`.

    Args:
        folder: the run folder; where it is not local, the files are copied there on `close`.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._target = folder.inside("tensorboard")
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._writer: Any = None

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Write the figures of an epoch, with the steps done as the place on the axis."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            local = self._target
            if storage.is_remote(local):
                self._aside = tempfile.TemporaryDirectory()
                local = self._aside.name
            self._writer = SummaryWriter(local, flush_secs=5)
        for name, value in metrics.items():
            group = name.partition("_")[0]
            if group in ("train", "validation") and value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, metrics["step"])

    def close(self) -> None:
        """Finish the files."""
        if self._writer is None:
            return
        self._writer.close()
        if self._aside is not None:
            with contextlib.suppress(storage.StorageError):  # what matters fails in the workers
                storage.copy_folder(self._aside.name, self._target)
            self._aside.cleanup()
        self._writer = None
