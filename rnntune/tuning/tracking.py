"""A search for the trackers of its runs, while it runs and when it has ended."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.console import Terminal
from rnntune.training.run_folder import RunFolder
from rnntune.training.tracked_run import SETTING, TrialRecord
from rnntune.training.trackers import RunTrackers
from rnntune.tuning.journal import Trial, best_epoch, best_score

__all__ = ["TrialTracking"]
_SCORES = (
    "validation_accuracy",
    "validation_micro_f1",
    "validation_macro_f1",
    "validation_loss",
)


class TrialTracking:
    """Gives the trackers of a search what its trials report, on a thread of its own.

    A tracker whose server is slow holds nothing up, and one that fails is left out.

    Args:
        config: names the trackers.
        folder: the run folder.
        terminal: where to say that a tracker failed.
    """

    def __init__(self, config: Config, folder: RunFolder, terminal: Terminal) -> None:
        self._metric = Metric(config.tune.metrics[0])
        self._changes_settings = config.tune.scheduler == "pbt"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trackers")
        self._trackers = self._thread.submit(RunTrackers, config, folder, terminal)

    def on_change(self, trial: Trial) -> None:
        """Keep what a trial has reported, and its end if it has ended."""
        record = _record(trial, self._metric, changes_settings=self._changes_settings)
        self._thread.submit(lambda: self._trackers.result().add_trial(record))

    def finish(self, trials: list[Trial], result: Mapping[str, Any]) -> None:
        """Keep the result and the model, and of the trials what an earlier attempt did not."""
        for trial in trials:
            self.on_change(trial)
        self._thread.submit(lambda: self._trackers.result().finish(result)).result()

    def close(self) -> None:
        """Wait until all is kept."""
        self._thread.submit(lambda: self._trackers.result().close()).result()
        self._thread.shutdown()


def _record(trial: Trial, metric: Metric, *, changes_settings: bool) -> TrialRecord:
    best = best_epoch(trial, metric) if best_score(trial, metric) is not None else {}
    return TrialRecord(
        name=trial.name,
        values=trial.values,
        history=_with_settings(trial) if changes_settings else list(trial.history),
        state=str(trial.state) if trial.is_over else None,
        scores={name: float(best[name]) for name in _SCORES if name in best},
    )


def _with_settings(trial: Trial) -> list[dict[str, Any]]:
    """The epochs of a population's member with the numbers that it was trained with in each."""
    history = []
    for metrics in trial.history:
        values = [s.values for s in trial.stages if s.from_epoch <= metrics["epoch"]][-1]
        history.append(metrics | {f"{SETTING}{name}": value for name, value in values.items()})
    return history
