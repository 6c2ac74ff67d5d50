"""What Ray Tune calls: it is handed trials, tells what happens to them, and asks when to stop."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as RayTrial
from ray.tune.search.search_algorithm import SearchAlgorithm

if TYPE_CHECKING:
    from rnntune.search import Search

__all__ = ["Proposals", "Stop", "Witness", "settings"]


class _Held:
    """Something of Ray's that holds the search; it is never pickled with it."""

    def __init__(self, search: "Search") -> None:
        super().__init__()
        self._search: Search | None = search

    @property
    def search(self) -> "Search":
        """The search; only in the process that runs it."""
        assert self._search is not None
        return self._search

    def __getstate__(self) -> dict[str, Any]:
        return {"_search": None}


class Proposals(_Held, SearchAlgorithm):
    """Hands trials to Ray Tune, under names of our own that outlive a restart."""

    def add_configurations(self, experiments: Any) -> None:
        """Take what all trials have in common."""
        self._experiment = experiments[0] if isinstance(experiments, list) else experiments

    @property
    def total_samples(self) -> int:
        """Trials of the search."""
        return self.search.total

    def next_trial(self) -> RayTrial | None:
        """The trial to start now; None: none yet."""
        found = self.search.next()
        if found is None:
            return None
        trial, places = found
        spec = self._experiment.spec
        return RayTrial(
            trainable_name=spec["run"],
            config={"number": trial.number, "values": trial.values, "folders": places},
            checkpoint_config=spec["checkpoint_config"],
            max_failures=spec["max_failures"],
            trial_name_creator=spec["trial_name_creator"],
            trial_dirname_creator=spec["trial_dirname_creator"],
            storage=spec["storage"],
            placement_group_factory=spec.get("resources_per_trial"),
            trial_id=trial.name,
        )

    def is_finished(self) -> bool:
        """Whether no trial is left to start."""
        return self._finished or self.search.all_started()


class Witness(_Held, Callback):
    """Tells the search what happens to its trials."""

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: Any,  # noqa: ARG002
        trial: RayTrial,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        """A trial reported."""
        self.search.heard(trial.config["number"], result)

    def on_trial_complete(
        self,
        iteration: int,  # noqa: ARG002
        trials: Any,  # noqa: ARG002
        trial: RayTrial,
        **_: Any,
    ) -> None:
        """A trial came to its end, or was stopped."""
        self.search.over(trial.config["number"])

    def on_trial_error(
        self,
        iteration: int,  # noqa: ARG002
        trials: Any,  # noqa: ARG002
        trial: RayTrial,
        **_: Any,
    ) -> None:
        """A trial's process died, or its storage failed, for the last time."""
        times = trial.num_failures
        self.search.end(trial.config["number"], "failed", f"its process ended {times} times")

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:  # noqa: ARG002
        """Let the search look at the clock."""
        self.search.tick()


class Stop(_Held, Stopper):
    """Stops all trials when time is up or the user says so."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """No trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Whether all are to stop."""
        return self._search is not None and (self.search.stopping or self.search.out_of_time)


@contextlib.contextmanager
def settings(at_once: int) -> Iterator[None]:
    """Ray Tune's settings that only the environment holds, for the time of a search."""
    wanted = {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "86400",
        "TUNE_MAX_PENDING_TRIALS_PG": str(at_once),
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
