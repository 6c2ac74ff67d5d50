"""What Ray Tune calls: it asks for trials, reports what happens to them, and asks when to stop."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Protocol

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from rnntune.tuning.journal import TrialState
from rnntune.tuning.reports import REPORT, TRIAL, EpochReport, TrialEnd, TrialSpec

__all__ = ["JournalCallback", "JournalScheduler", "JournalSearcher", "SearchEvents"]
__all__ += ["SearchStopper", "trial_name", "tune_environment"]


class SearchEvents(Protocol):
    """What Ray Tune asks of a search, and reports to it; `search.Search` is one."""

    stopping: bool

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is spent."""

    def next(self) -> TrialSpec | None:
        """The trial to start now; None: none yet."""

    def all_started(self) -> bool:
        """Whether no trial is left to start."""

    def on_result(self, number: int, report: EpochReport | TrialEnd) -> bool:
        """A trial reported; whether it is to stop now."""

    def on_complete(self, number: int) -> None:
        """A trial came to its end, or was stopped."""

    def end(self, number: int, state: TrialState, reason: str) -> None:
        """A trial ended in a state."""

    def on_step_end(self) -> None:
        """Called a few times a second."""


def trial_name(trial: RayTrial) -> str:
    """The name of a trial and its folder, which outlives a restart."""
    return _spec(trial).name


def _spec(trial: RayTrial) -> TrialSpec:
    spec: TrialSpec = trial.config[TRIAL]
    return spec


class _HoldsSearch:
    """Something of Ray's that holds the search; it is never pickled with it."""

    def __init__(self, search: SearchEvents) -> None:
        super().__init__()
        self._search: SearchEvents | None = search

    @property
    def search(self) -> SearchEvents:
        """The search; only in the process that runs it."""
        assert self._search is not None
        return self._search

    def __getstate__(self) -> dict[str, Any]:
        return {"_search": None}


class JournalSearcher(_HoldsSearch, Searcher):
    """Gives Ray Tune the configurations to try.

    Source: https://docs.ray.io/en/latest/tune/api/suggestion.html (a searcher of one's own).
    """

    def suggest(  # type: ignore[override]  # Ray's hint leaves FINISHED out
        self,
        trial_id: str,  # noqa: ARG002
    ) -> dict[str, Any] | str | None:
        """The trial to start now; None: none yet."""
        spec = self.search.next()
        if spec is not None:
            return {TRIAL: spec}
        return Searcher.FINISHED if self.search.all_started() else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: the journal holds what the next proposal needs."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its journal."""


class JournalScheduler(_HoldsSearch, FIFOScheduler):
    """Hands reports to the search, which decides who goes on."""

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """A trial reported."""
        report: EpochReport | TrialEnd | None = result.get(REPORT)
        if report is not None and self.search.on_result(_spec(trial).number, report):
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE


class JournalCallback(_HoldsSearch, Callback):
    """Tells the search how its trials end."""

    def on_trial_complete(
        self,
        iteration: int,  # noqa: ARG002
        trials: Any,  # noqa: ARG002
        trial: RayTrial,
        **_: Any,
    ) -> None:
        """A trial came to its end, or was stopped."""
        self.search.on_complete(_spec(trial).number)

    def on_trial_error(
        self,
        iteration: int,  # noqa: ARG002
        trials: Any,  # noqa: ARG002
        trial: RayTrial,
        **_: Any,
    ) -> None:
        """A trial's process died, or its storage failed, for the last time."""
        reason = f"its process ended {trial.num_failures} times"
        self.search.end(_spec(trial).number, TrialState.FAILED, reason)

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:  # noqa: ARG002
        """Let the search look at the clock."""
        self.search.on_step_end()


class SearchStopper(_HoldsSearch, Stopper):
    """Stops all trials when time is up or the user says so."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """No trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Whether all are to stop."""
        return self._search is not None and (self.search.stopping or self.search.out_of_time)


@contextlib.contextmanager
def tune_environment(max_concurrent: int) -> Iterator[None]:
    """Ray Tune's settings that only the environment holds, for the time of a search."""
    wanted = {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "86400",
        "TUNE_MAX_PENDING_TRIALS_PG": str(max_concurrent),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    }
    before = {name: os.environ.get(name) for name in wanted}
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    os.environ.update(wanted)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
