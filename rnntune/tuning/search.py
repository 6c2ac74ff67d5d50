"""The state of a search: what was tried, what is tried now, what to try next.

Every decision is taken from the journal, and everything that happens goes into it. So a search
goes on from the journal alone; Ray's own snapshot of an experiment, which holds neither the
scheduler's rungs nor what came after its last period, is not used.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from rnntune.config.load import Config
from rnntune.errors import StorageError
from rnntune.tuning.aims import Aims
from rnntune.tuning.constraints import architecture
from rnntune.tuning.default_point import default_point
from rnntune.tuning.ensemble_selection import num_candidates
from rnntune.tuning.journal import Journal, Trial, TrialState, ranked_trials
from rnntune.tuning.population import Population
from rnntune.tuning.reports import EpochReport, TrialEnd, TrialSpec
from rnntune.tuning.sampler import count_trials, propose
from rnntune.tuning.scheduler import Asha, OneEpoch, Standings
from rnntune.tuning.space import Space
from rnntune.tuning.trial_loop import trial_store
from rnntune.tuning.warm_start import WarmStart

__all__ = ["Search"]
_KEPT = {"epoch", "epochs", "step", "train_loss", "train_accuracy", "train_rows_per_s", "train_s"}
_KEPT |= {"validation_accuracy", "validation_macro_f1", "validation_loss", "validation_rows"}
_KEPT |= {"validation_micro_f1", "validation_s", "padding_fraction", "standard_error"}
_KEPT |= {"averaged"}


class Search:
    """One search: what was tried, what is tried now, what to try next.

    Args:
        config: all settings.
        space: what is searched.
        journal: of this search, perhaps of an earlier attempt at it.
        uri: folder of the trials.
        max_concurrent: trials that run at the same time.
        on_change: called with a trial that has reported an epoch or has ended.
        warm: what earlier searches tried, for this one to begin from.
    """

    def __init__(
        self,
        config: Config,
        space: Space,
        journal: Journal,
        uri: str,
        max_concurrent: int,
        on_change: Callable[[Trial], None] = lambda _: None,
        warm: WarmStart | None = None,
    ) -> None:
        self._warm = warm
        self._on_change = on_change
        self.config, self.space, self.journal, self.uri = config, space, journal, uri
        self.max_concurrent = max_concurrent
        self.aims = Aims.of(config.tune)
        self.metric = self.aims.first
        self.total = count_trials(config.tune, space)
        self.first_step_at: float | None = None
        self.stopping = False
        self._asha = self._new_asha()
        self._one_epoch = self._new_one_epoch()
        self._population: Population | None = None
        if config.tune.scheduler == "pbt":
            self._population = Population(config, space, journal, uri, self.total)
        self._begin = time.monotonic()
        self._before_s = journal.elapsed_s
        self._started: dict[int, float] = {}
        self._ends: dict[int, TrialEnd] = {}
        self._complete: set[int] = set()
        self._cleaned: set[int] = set()
        self._noted_s = 0.0
        self._architectures: list[str] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds of the search, those of earlier attempts included."""
        return self._before_s + time.monotonic() - self._begin

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is spent."""
        budget = self.config.tune.time_budget_s
        return budget is not None and self.elapsed_s >= budget

    @property
    def most_starts(self) -> int:
        """Times that trials are started in one attempt, at most: paused ones start again."""
        if self._population is not None:
            return self._population.most_starts
        if self._one_epoch is None:
            return self.total
        if self.aims.are_several:
            return 2 * self.total
        return self.total + sum(self._one_epoch.num_going_on(self.total))

    def begin(self) -> None:
        """Bring the rungs to where the journal ends; end what they stopped before a kill."""
        self.journal.begin()
        self._one_epoch = self._new_one_epoch()
        self._asha = self._new_asha()
        for number, metrics in self.journal.order if self._asha is not None else ():
            trial = self.journal.trials[number]
            stop = self._is_behind(number, metrics["epoch"], metrics[self.metric.name])
            if stop and metrics is trial.history[-1] and not trial.is_over:
                self.journal.end(number, TrialState.STOPPED, _behind(metrics["epoch"]), 0.0)
        standings = self._standings()
        for trial in self.journal.trials:
            if trial.state is TrialState.RUNNING and self._waits(trial, standings):
                self.journal.pause(trial.number, 0.0)
        self._end_what_lost()

    def finish(self) -> None:
        """Note that what still runs was stopped, and how long the search took."""
        for trial in self.journal.trials:
            reason = "time is up" if self.out_of_time else "stopped"
            self.end(trial.number, TrialState.STOPPED, reason)
        self.journal.elapsed(self.elapsed_s)

    def stop(self) -> None:
        """Start no more trials, and stop those that run."""
        self.stopping = True

    def _new_asha(self) -> Asha | None:
        tune = self.config.tune
        if tune.scheduler != "asha":
            return None
        longest = self.space.highest("train.epochs", self.config.train.epochs)
        return Asha(
            grace_epochs=min(tune.grace_epochs, longest),
            reduction_factor=tune.reduction_factor,
            max_epochs=longest,
        )

    def _new_one_epoch(self) -> OneEpoch | None:
        tune = self.config.tune
        if tune.scheduler != "one_epoch":
            return None
        has_semifinal = self.journal.rules > 1 and not tune.folds  # on folds they begin anew
        longest = self.space.highest("train.epochs", self.config.train.epochs)
        return OneEpoch(
            grace_epochs=tune.grace_epochs,
            num_finalists=tune.finalists,
            aims=self.aims,
            by_loss=self.journal.rules > 0,
            longest=longest if has_semifinal else None,
            is_timed=tune.time_budget_s is not None,
            least=num_candidates(tune),
        )

    def _all_proposed(self) -> bool:
        """Whether no new trial is to come; half of the time that is given is the finalists'."""
        if len(self.journal.trials) >= self.total:
            return True
        if self._one_epoch is None or (budget := self.config.tune.time_budget_s) is None:
            return False
        return self.elapsed_s >= (self.journal.extended_s + budget) / 2

    def _standings(self) -> Standings | None:
        """The trials that go on after their first epochs; None: that is not known yet."""
        if self._one_epoch is None or not self._all_proposed():
            return None
        return self._one_epoch.standings(self.journal.trials)

    def _waits(self, trial: Trial, standings: Standings | None) -> bool:
        if self._population is not None:
            return self._population.waits(trial)
        return self._one_epoch is not None and self._one_epoch.waits(trial, standings)

    def _end_what_lost(self) -> None:
        """End the paused trials that do not go on, as soon as that is known."""
        if (standings := self._standings()) is None:
            return
        for trial in self.journal.trials:
            if trial.state is TrialState.PAUSED and trial.number not in standings.limits:
                self.end(trial.number, TrialState.STOPPED, _behind(len(trial.history)))

    def _is_behind(self, number: int, epoch: int, value: float) -> bool:
        """Note an epoch's metric; whether the trial is to stop before its last epoch."""
        trial = self.journal.trials[number]
        if self._one_epoch is not None or self._population is not None:
            return epoch < trial.epochs and self._waits(trial, self._standings())
        if self._asha is None:
            return False
        stop = self._asha.on_result(number, epoch, self.metric.score(value))
        return stop and epoch < trial.epochs

    def next(self) -> TrialSpec | None:
        """The trial to start now; None: none yet."""
        if self.stopping or self.out_of_time or len(self._started) >= self.max_concurrent:
            return None
        self._end_what_lost()
        self._exchange()
        trials = self.journal.trials
        waiting = [t for t in trials if not t.is_over and t.number not in self._started]
        standings = self._standings()  # once: they follow from all trials
        number = next((t.number for t in waiting if not self._waits(t, standings)), len(trials))
        if number >= self.total or (number == len(trials) and self._all_proposed()):
            return None
        values = trials[number].values if number < len(trials) else self._propose(number)
        epochs = int(values.get("train.epochs", self.config.train.epochs))
        trial = self.journal.start(number, values, epochs)
        self._started[number] = time.monotonic()
        latency_ms = self._known_latency_ms(trial.values)
        return TrialSpec(
            number=number,
            name=trial.name,
            values=trial.values,
            latency_ms=latency_ms,
            until_epoch=None if self._population is None else self._population.next_exchange,
        )

    def _propose(self, number: int) -> dict[str, Any]:
        by_rules = self.journal.rules > 0
        return propose(
            self.config.tune,
            self.space,
            number,
            # The members of a population begin alike, whichever of them reports first.
            [] if self._population is not None else self.journal.trials,
            self._warm,
            default_point(self.config, self.space) if by_rules else None,
            by_loss=by_rules and self._one_epoch is not None,
        )

    def _exchange(self) -> None:
        """Make the copies of a population that are due, while no trial runs."""
        if self._population is None or self._started:
            return
        if self._population.exchange(lambda: self.stopping):
            self._architectures.clear()  # copies have those of their sources

    def _known_latency_ms(self, values: Mapping[str, Any]) -> float | None:
        """What the journal says of models of the same architecture: the best of them."""
        for trial in self.journal.trials[len(self._architectures) :]:
            self._architectures.append(architecture(self.config, trial.values))
        wanted = architecture(self.config, values)
        return min(
            (
                trial.latency_ms
                for trial, shape in zip(self.journal.trials, self._architectures, strict=True)
                if shape == wanted and trial.latency_ms is not None
            ),
            default=None,
        )

    def all_started(self) -> bool:
        """Whether no trial is left to start."""
        trials = self.journal.trials
        waiting = any(not t.is_over and t.number not in self._started for t in trials)
        standings = self._standings()
        may_pause = self._one_epoch is not None and not (standings and standings.are_final)
        if may_pause or self._population is not None:
            waiting = any(not trial.is_over for trial in trials)
        return self.stopping or self.out_of_time or (self._all_proposed() and not waiting)

    def all_over(self) -> bool:
        """Whether every trial was tried before."""
        trials = self.journal.trials
        return len(trials) >= self.total and all(trial.is_over for trial in trials)

    def on_result(self, number: int, report: EpochReport | TrialEnd) -> bool:
        """Note what a trial reported; whether it is to stop now."""
        trial = self.journal.trials[number]
        if report.num_parameters is not None and trial.num_parameters is None:
            self.journal.model(number, report.num_parameters, report.latency_ms)
        if isinstance(report, TrialEnd):
            self._ends[number] = report
            return False
        self.first_step_at = self.first_step_at or report.first_step_at
        kept = {key: value for key, value in report.metrics.items() if key in _KEPT}
        is_new = self.journal.epoch(number, kept)
        if report.is_complete:
            self._complete.add(number)
        if not is_new:
            return False
        self._on_change(trial)
        return self._is_behind(number, kept["epoch"], kept[self.metric.name])

    def on_complete(self, number: int) -> None:
        """Note that a trial came to its end, or was stopped."""
        if (ended := self._ends.get(number)) is not None:
            self.end(number, ended.state, ended.reason)
        elif number in self._complete:
            self.end(number, TrialState.FINISHED, "")
        elif self._waits(self.journal.trials[number], self._standings()):
            self._pause(number)
        else:
            epochs = len(self.journal.trials[number].history)
            self.end(number, TrialState.STOPPED, _behind(epochs))

    def _pause(self, number: int) -> None:
        now = time.monotonic()
        seconds = now - self._started.pop(number, now)
        self.journal.pause(number, round(seconds, 3))
        self._end_what_lost()

    def end(self, number: int, state: TrialState, reason: str) -> None:
        """Note how a trial ended; of all that are over those keep checkpoints that may be chosen.

        These are the front, and for an ensemble as many of the best as it chooses from.
        """
        if self.journal.trials[number].is_over:
            return
        now = time.monotonic()
        seconds = now - self._started.pop(number, now)
        self.journal.end(number, state, reason, round(seconds, 3))
        self._on_change(self.journal.trials[number])
        over = [trial for trial in self.journal.trials if trial.is_over]
        best = ranked_trials(over, self.metric)[: num_candidates(self.config.tune)]
        kept = {trial.number for trial in (*self.aims.front(over), *best)}
        for trial in over:
            if trial.number not in kept | self._cleaned:
                with contextlib.suppress(StorageError):  # the next trial's end tries again
                    self._delete_checkpoint(trial)
                    self._cleaned.add(trial.number)

    def _delete_checkpoint(self, trial: Trial) -> None:
        """Delete the checkpoint of a trial; its log stays."""
        trial_store(self.uri, trial.name).clear()

    def on_step_end(self) -> None:
        """Note the time now and then."""
        if self.elapsed_s - self._noted_s >= 5:
            self._noted_s = self.elapsed_s
            self.journal.elapsed(self._noted_s)


def _behind(epoch: int) -> str:
    return f"behind the best after epoch {epoch}"
