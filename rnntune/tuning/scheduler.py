"""Early stopping: which trials go on, as a function of what trials reported so far.

Nothing is kept but the scores in the order in which they came, which is what the journal holds.
So a search that goes on replays them and decides as if it had never been interrupted.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.first_epochs import LOSS, have_loss
from rnntune.tuning.journal import Trial, TrialState

__all__ = ["Asha", "OneEpoch", "Standings"]
_MANY = 32  # trials, of which a semifinal is worth its rounds where time is limited
_FITS = 0.8  # of the first epochs of all: what may come after them in as much time


@dataclasses.dataclass(frozen=True)
class _Rung:
    epoch: int
    scores: dict[int, float] = dataclasses.field(default_factory=dict)


class Asha:
    """Asynchronous successive halving: at each rung one trial in so many goes on, at once.

    Rungs are at `grace_epochs` times a power of `reduction_factor`. A trial that comes to a rung
    is stopped if its score is below the quantile 1 - 1 / `reduction_factor` of those that came
    to it before; the first always goes on.

    Args:
        grace_epochs: epochs that every trial may run; the first rung.
        reduction_factor: one in so many trials goes on.
        max_epochs: the most epochs of any trial; no rung is beyond.

    Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
        https://arxiv.org/abs/1810.05934; stops and quantile as in `ray.tune`'s ASHAScheduler.
    """

    def __init__(self, *, grace_epochs: int, reduction_factor: int, max_epochs: int) -> None:
        self._keep = 1 - 1 / reduction_factor
        self._rungs: list[_Rung] = []
        epoch = grace_epochs
        while epoch <= max_epochs:
            self._rungs.insert(0, _Rung(epoch))  # the highest first
            epoch *= reduction_factor

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs of the rungs, the lowest first."""
        return tuple(rung.epoch for rung in reversed(self._rungs))

    def on_result(self, trial: int, epoch: int, score: float) -> bool:
        """Note the score of an epoch; whether the trial is to stop.

        Args:
            trial: its number.
            epoch: from 1.
            score: larger is better; may be no finite number.
        """
        for rung in self._rungs:
            if epoch < rung.epoch or trial in rung.scores:
                continue
            before = [s for s in rung.scores.values() if math.isfinite(s)]
            rung.scores[trial] = score
            return bool(before) and score < float(np.quantile(before, self._keep))
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standings:
    """Who goes on after the first epochs, and how far.

    Args:
        limits: numbers of the trials that go on to the epoch after which they wait, or end.
        are_final: whether nobody will go on further than that.
    """

    limits: Mapping[int, int]
    are_final: bool


class OneEpoch:
    """One epoch for all trials, then a few go on to the middle, and the best of them to their end.

    Nothing is kept: who goes on follows from the trials' epochs alone, whatever the order in
    which they came. Who has ended without coming to its end takes no place.

    Args:
        grace_epochs: epochs of all trials.
        num_finalists: trials that go on to their end; None: one of sixteen, without a semifinal
            three. With several aims it is the front of the first epochs.
        aims: they are compared by.
        by_loss: whether one aim gives way to the loss, which says more after so few epochs.
        longest: epochs of the longest trial, if three times as many trials go on to half of their
            epochs, and the finalists are those of them that are ahead there; None: no such
            semifinal.
        is_timed: whether time is limited, and half of it is over after the first epochs: of few
            trials there is no semifinal, and no more go on than may come to their end.
        least: finalists at least.

    Source: Egele et al. 2023, "Is One Epoch All You Need For Multi-Fidelity Hyperparameter
        Optimization?", https://arxiv.org/abs/2307.15422; the semifinal from
        `tests/benchmarks/replay.py`.
    """

    def __init__(
        self,
        *,
        grace_epochs: int,
        num_finalists: int | None,
        aims: Aims,
        by_loss: bool = False,
        longest: int | None = None,
        is_timed: bool = False,
        least: int = 1,
    ) -> None:
        self._num_finalists, self._least, self._by_loss = num_finalists, least, by_loss
        self._grace_epochs, self._longest, self._aims = grace_epochs, longest, aims
        self._is_timed = is_timed

    def num_going_on(self, num_trials: int) -> tuple[int, int]:
        """How many of so many trials go on at all, and how many to their end."""
        few = self._num_semifinal_winners(num_trials)
        finalists = max(few or self._num_finalists or 3, self._least)
        return max(3 * (few or 0), finalists), finalists

    def _num_semifinal_winners(self, num_trials: int) -> int | None:
        """Finalists by a semifinal; None: there is none."""
        if self._longest is None or (middle := _middle(self._longest)) <= self._grace_epochs:
            return None
        few = self._num_finalists or max(1, round(num_trials / 16))
        if not self._is_timed:
            return few
        rest = 3 * (middle - self._grace_epochs) + self._longest - middle  # epochs of each
        few = min(few, int(_FITS * num_trials * self._grace_epochs / rest))
        return few if few and num_trials >= _MANY else None

    def standings(self, trials: Sequence[Trial]) -> Standings | None:
        """Which trials go on, once no trial is to come.

        Args:
            trials: all of the search.

        Returns:
            None while one of them may still reach the end of its first epochs.
        """
        if any(not trial.is_over and not self._has_grace(trial) for trial in trials):
            return None
        if self._aims.are_several:
            front = self._aims.front(self._first(trials))
            return Standings(limits={t.number: t.epochs for t in front}, are_final=True)
        by_loss = self._by_loss and have_loss(trials, self._grace_epochs)
        metric = LOSS if by_loss else self._aims.first
        ready = [t for t in trials if self._has_grace(t) and self._may_go_on(t)]
        num_on, num_finalists = self.num_going_on(len(trials))
        on = self._best(ready, metric, num_on)
        if len(on) > num_finalists:  # as many do not go on further than to the middle
            if any(not t.is_over and len(t.history) < _middle(t.epochs) for t in on):
                limits = {t.number: _middle(t.epochs) for t in on}
                return Standings(limits=limits, are_final=False)
            there = [t for t in on if len(t.history) >= _middle(t.epochs)]
            on = self._best(there, self._aims.first, num_finalists, at_middle=True)
        return Standings(limits={t.number: t.epochs for t in on}, are_final=True)

    def _may_go_on(self, trial: Trial) -> bool:
        """Whether a trial has a use for a place, or had one."""
        is_out = trial.is_over and trial.state is not TrialState.FINISHED
        return not is_out and trial.epochs > self._grace_epochs

    def waits(self, trial: Trial, standings: Standings | None) -> bool:
        """Whether a trial that is not over has to wait, or to end, after its epochs so far."""
        if len(trial.history) >= trial.epochs:
            return False
        limits = {} if standings is None else standings.limits
        return len(trial.history) >= limits.get(trial.number, self._grace_epochs)

    def _best(
        self, trials: Sequence[Trial], metric: Metric, most: int, *, at_middle: bool = False
    ) -> list[Trial]:
        """The best after their first epochs, or in the middle of theirs; of equals the first."""
        scored = []
        for trial in trials:
            epochs = _middle(trial.epochs) if at_middle else self._grace_epochs
            scored.append((_score(trial, metric, epochs), -trial.number, trial))
        finite = sorted((each for each in scored if math.isfinite(each[0])), reverse=True)
        return [trial for _, _, trial in finite[:most]]

    def _first(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials as they were after their first epochs, whatever became of them."""
        return [
            dataclasses.replace(
                trial, history=trial.history[: self._grace_epochs], state=TrialState.RUNNING
            )
            for trial in trials
            if self._has_grace(trial)
        ]

    def _has_grace(self, trial: Trial) -> bool:
        return len(trial.history) >= self._grace_epochs


def _middle(epochs: int) -> int:
    """The epoch of the semifinal of a trial of so many."""
    return math.ceil(epochs / 2)


def _score(trial: Trial, metric: Metric, epochs: int) -> float:
    """The best score of a trial's first epochs."""
    best = metric.best(float(epoch[metric.name]) for epoch in trial.history[:epochs])
    return -math.inf if best is None else metric.score(best)
