"""Where the figures of a run go besides its folder: TensorBoard, MLflow, Weights & Biases.

Each tracker is a class with the methods of `Tracker`. What a tracker's server does must not end a
run: `RunTrackers` says in one line that it failed and goes on without it.
"""

import contextlib
import importlib.util
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rnntune import storage
from rnntune.config.load import Config
from rnntune.config.schema import TrackerName
from rnntune.console import Terminal
from rnntune.errors import ConfigError, RnntuneError, StorageError
from rnntune.location import Location
from rnntune.training.run_folder import RunFolder
from rnntune.training.tracked_run import TrackedTrial, TrialRecord, read_trial, write_trial

__all__ = ["RunTrackers", "TensorBoardWriter", "Tracker", "check_trackers"]
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


class Tracker(Protocol):
    """Where figures go."""

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Keep the figures of an epoch."""

    def add_trial(self, trial: TrialRecord) -> None:
        """Keep what is new of a trial, and its end if it has ended."""

    def finish(self, result: Mapping[str, Any]) -> None:
        """Keep the result of a run that is complete, and its model."""

    def add_report(self) -> None:
        """Keep the report page of a run that is complete."""

    def close(self) -> None:
        """Finish what is written; the run may go on with another tracker."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise ConfigError(
                f'train.trackers: {_PACKAGES[name]} is not installed: pip install "rnntune[{name}]"'
            )


class RunTrackers:
    """The trackers of a run.

    Args:
        config: names them, and holds the settings that they keep.
        folder: the run folder.
        terminal: where to say that one failed.
    """

    def __init__(self, config: Config, folder: RunFolder, terminal: Terminal) -> None:
        self._terminal = terminal
        self._trackers: dict[str, Tracker] = {}
        for name in config.train.trackers:
            with self._guarded(name):
                self._trackers[name] = _make(name, config, folder)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Keep the figures of an epoch."""
        self._each(lambda tracker: tracker.add(metrics))

    def add_trial(self, trial: TrialRecord) -> None:
        """Keep what is new of a trial, and its end if it has ended."""
        self._each(lambda tracker: tracker.add_trial(trial))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Keep the result of a run that is complete, and its model."""
        self._each(lambda tracker: tracker.finish(result))
        self.close()

    def add_report(self) -> None:
        """Keep the report page of a run that is complete."""
        self._each(lambda tracker: tracker.add_report())
        self.close()

    def close(self) -> None:
        """Finish what is written."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._guarded(name):
                call(tracker)

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # each library has its own, and the network's
            self._trackers.pop(name, None)
            self._terminal.line(f"{name} keeps no more of this run: {RnntuneError.reason(error)}")


def _make(name: TrackerName, config: Config, folder: RunFolder) -> Tracker:
    if name == "mlflow":
        from rnntune.training.mlflow_tracker import MLflowTracker

        return MLflowTracker(config, folder)
    if name == "wandb":
        from rnntune.training.wandb_tracker import WandbTracker

        return WandbTracker(config, folder)
    return TensorBoardWriter(folder)


class TensorBoardWriter:
    """TensorBoard event files of a run, in its folder `tensorboard`.

    Args:
        folder: the run folder; where it is not local, the files are copied there on `close`.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._target = folder.inside("tensorboard")
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._writer: Any = None

    def _open(self) -> Any:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            local = self._target
            if Location.parse(local).is_remote:
                self._aside = tempfile.TemporaryDirectory()
                local = self._aside.name
            # Names hold the second alone: another attempt in it would write over this one.
            suffix = f".{uuid.uuid4().hex[:6]}"
            self._writer = SummaryWriter(local, flush_secs=5, filename_suffix=suffix)
        return self._writer

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Write the figures of an epoch, with the steps done as the axis."""
        for name, value in metrics.items():
            group = name.partition("_")[0]
            if group in ("train", "validation") and value is not None:
                self._open().add_scalar(f"{group}/{name}", value, metrics["step"])

    def add_trial(self, trial: TrialRecord) -> None:
        """Write a trial that has ended for the view of hyperparameters (HParams)."""
        if trial.state is None or not trial.scores:
            return
        tracked = read_trial(self._folder, "tensorboard", trial.name)
        if tracked.is_over:
            return
        plain = (bool, int, float, str)
        values = {
            name: value if isinstance(value, plain) else str(value)
            for name, value in trial.values.items()
        }
        scores = {f"hparam/{name}": value for name, value in trial.scores.items()}
        self._open().add_hparams(values, scores, name=trial.name)
        write_trial(self._folder, "tensorboard", trial.name, TrackedTrial(is_over=True))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Nothing: the result is not an event."""

    def add_report(self) -> None:
        """Nothing: a page is not an event."""

    def close(self) -> None:
        """Finish the files."""
        if self._writer is None:
            return
        self._writer.close()
        if self._aside is not None:
            with contextlib.suppress(StorageError):  # what matters fails in the workers
                storage.copy_folder(self._aside.name, self._target)
            self._aside.cleanup()
        self._writer = None
