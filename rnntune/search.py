"""The search as Ray Tune runs it: proposals, early stopping and the journal, glued together.

Every decision is taken from the journal, and everything that happens goes into it. So a search
goes on from the journal alone; Ray's own snapshot of an experiment, which holds neither the
scheduler's rungs nor what came after its last period, is not used.
"""

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    Tuner,
    with_parameters,
    with_resources,
)
from ray.tune import TuneConfig as RayTuneConfig
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from rnntune import proposals, storage
from rnntune.config import Config
from rnntune.hooks import Proposals, Stop, Witness, settings
from rnntune.journal import Journal, Trial, best_of
from rnntune.progress import in_thread
from rnntune.space import Space
from rnntune.trial import Job, run_trial

__all__ = ["Search", "folders"]

_KEPT = {"epoch", "epochs", "step", "train_loss", "train_accuracy", "train_rows_per_s", "train_s"}
_KEPT |= {"validation_accuracy", "validation_macro_f1", "validation_loss", "validation_rows"}
_KEPT |= {"validation_s", "padding_fraction"}


class Search:
    """One search: what was tried, what is tried now, what to try next.

    Args:
        config: all settings.
        space: what is searched.
        journal: of this search, perhaps of an earlier attempt at it.
        place: folder of the trials.
        at_once: trials that run at the same time.
    """

    def __init__(
        self, config: Config, space: Space, journal: Journal, place: str, at_once: int
    ) -> None:
        self.config, self.space, self.journal, self.place = config, space, journal, place
        self.at_once = at_once
        self.metric, self.mode = config.tune.metric, proposals.mode_of(config.tune)
        self.total = proposals.num_trials(config.tune, space)
        self.first_step_at: float | None = None
        self.stopping = False
        self._begin = time.monotonic()
        self._before_s = journal.elapsed_s
        self._started: dict[int, float] = {}
        self._ended: dict[int, Mapping[str, Any]] = {}
        self._complete: set[int] = set()
        self._cleaned: set[int] = set()
        self._noted_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds of the search, those of earlier attempts included."""
        return self._before_s + time.monotonic() - self._begin

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is spent."""
        budget = self.config.tune.time_budget_s
        return budget is not None and self.elapsed_s >= budget

    def run(
        self, job: Job, resources: PlacementGroupFactory, meanwhile: Callable[[], None]
    ) -> None:
        """Try configurations until all are tried, time is up or the user stops it.

        Args:
            job: what trials have in common.
            resources: of a trial.
            meanwhile: called now and then.

        Raises:
            KeyboardInterrupt: after the trials were told to stop.
        """
        scheduler = self._scheduler()
        with settings(self.at_once):
            tuner = Tuner(
                with_resources(with_parameters(run_trial, job=job), resources),
                tune_config=RayTuneConfig(
                    search_alg=Proposals(self),
                    scheduler=scheduler,
                    reuse_actors=job.workers == 1,
                    trial_name_creator=lambda trial: str(trial.trial_id),
                    trial_dirname_creator=lambda trial: str(trial.config["folders"][-1]),
                ),
                run_config=self._run_config(),
            )
            outcome = in_thread(tuner.fit, meanwhile, self._stop)
        if isinstance(outcome, BaseException):
            raise outcome
        for trial in self.journal.trials:
            self.end(trial.number, "stopped", "time is up" if self.out_of_time else "stopped")
        self.journal.elapsed(self.elapsed_s)
        self._tidy()

    def _tidy(self) -> None:
        """Delete what Ray Tune wrote for a restore of its own; only the trials' folders stay."""
        for name in storage.list_folder(self.place):
            if not name.startswith("trial-"):
                storage.delete(storage.join(self.place, name))

    def _run_config(self) -> RunConfig:
        filesystem, path = storage.locate(self.place)
        parent, _, name = path.rpartition("/")
        return RunConfig(
            name=name,
            storage_path=parent,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=self.config.train.max_failures),
            callbacks=[Witness(self)],
            stop=Stop(self),
            verbose=0,
        )

    def _stop(self) -> None:
        self.stopping = True

    def _scheduler(self) -> TrialScheduler:
        """Early stopping, told all that the journal holds."""
        tune = self.config.tune
        if tune.scheduler == "none":
            return FIFOScheduler()
        longest = self.space.highest("train.epochs", self.config.train.epochs)
        scheduler = ASHAScheduler(
            time_attr="epoch",
            metric=self.metric,
            mode=self.mode,
            max_t=longest,
            grace_period=min(tune.grace_epochs, longest),
            reduction_factor=tune.reduction_factor,
        )
        (bracket,) = scheduler._brackets
        sign = 1.0 if self.mode == "max" else -1.0
        for number, metrics in self.journal.order:
            trial = self.journal.trials[number]
            told: Any = SimpleNamespace(trial_id=trial.name)
            decision = bracket.on_result(told, metrics["epoch"], sign * metrics[self.metric])
            last = metrics is trial.history[-1] and metrics["epoch"] < trial.epochs
            if last and decision == TrialScheduler.STOP and not trial.is_over:
                self.journal.end(number, "stopped", _behind(metrics["epoch"]), 0.0)
        return scheduler

    def next(self) -> tuple[Trial, list[str]] | None:
        """The trial to start now and its folders, the newest last; None: none yet."""
        if self.stopping or self.out_of_time or len(self._started) >= self.at_once:
            return None
        trials = self.journal.trials
        number = next(
            (t.number for t in trials if not t.is_over and t.number not in self._started),
            len(trials),
        )
        if number >= self.total:
            return None
        values = (
            trials[number].values
            if number < len(trials)
            else proposals.propose(self.config.tune, self.space, number, trials)
        )
        epochs = int(values.get("train.epochs", self.config.train.epochs))
        trial = self.journal.start(number, values, epochs)
        self._started[number] = time.monotonic()
        return trial, folders(trial)

    def all_started(self) -> bool:
        """Whether no trial is left to start."""
        trials = self.journal.trials
        waiting = any(not t.is_over and t.number not in self._started for t in trials)
        return self.stopping or self.out_of_time or (len(trials) >= self.total and not waiting)

    def all_over(self) -> bool:
        """Whether every trial was tried before."""
        trials = self.journal.trials
        return len(trials) >= self.total and all(trial.is_over for trial in trials)

    def heard(self, number: int, result: Mapping[str, Any]) -> None:
        """Note what a trial reported."""
        trial = self.journal.trials[number]
        if "num_parameters" in result and trial.num_parameters is None:
            self.journal.model(number, result["num_parameters"], result.get("latency_ms"))
        if "ended" in result:
            self._ended[number] = result
            return
        self.first_step_at = self.first_step_at or result.get("first_step_at")
        self.journal.epoch(number, {key: value for key, value in result.items() if key in _KEPT})
        if result.get("complete"):
            self._complete.add(number)

    def over(self, number: int) -> None:
        """Note that a trial came to its end, or was stopped."""
        if (ended := self._ended.get(number)) is not None:
            self.end(number, ended["ended"], ended["reason"])
        elif number in self._complete:
            self.end(number, "finished", "")
        else:
            self.end(number, "stopped", _behind(len(self.journal.trials[number].history)))

    def end(self, number: int, state: str, reason: str) -> None:
        """Note how a trial ended, and delete the checkpoints of all that are over but the best."""
        if self.journal.trials[number].is_over:
            return
        now = time.monotonic()
        seconds = now - self._started.pop(number, now)
        self.journal.end(number, state, reason, round(seconds, 3))
        over = [trial for trial in self.journal.trials if trial.is_over]
        best = best_of(over, self.metric, self.mode)
        for trial in over:
            if trial is not best and trial.number not in self._cleaned:
                self._cleaned.add(trial.number)
                delete_checkpoints(self.place, trial)

    def tick(self) -> None:
        """Note the time now and then."""
        if self.elapsed_s - self._noted_s >= 5:
            self._noted_s = self.elapsed_s
            self.journal.elapsed(self._noted_s)


def folders(trial: Trial) -> list[str]:
    """The folders of a trial's attempts, the newest last."""
    later = [f"{trial.name}-{attempt}" for attempt in range(2, trial.attempts + 1)]
    return [trial.name, *later]


def delete_checkpoints(place: str, trial: Trial) -> None:
    """Delete the checkpoints of a trial; its logs stay."""
    for folder in folders(trial):
        inside = storage.join(place, folder)
        for name in storage.list_folder(inside):
            if name.startswith("checkpoint_") and not name.endswith(".json"):
                storage.delete(storage.join(inside, name))


def _behind(epoch: int) -> str:
    return f"behind the best after epoch {epoch}"
