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
    which they came.

    Args:
        grace_epochs: epochs of all trials.
        num_finalists: trials that go on to their end; None: one of sixteen, without a semifinal
            three. With several aims it is the front of the first epochs.
        aims: they are compared by.
        by_loss: whether one aim gives way to the loss, which says more after so few epochs.
        middle_epoch: three times as many trials go on to it, and the finalists are those of them
            that are ahead there; None: no such semifinal.
        semifinal_from: of fewer trials there is no semifinal.
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
        middle_epoch: int | None = None,
        semifinal_from: int = 1,
        least: int = 1,
    ) -> None:
        self._num_finalists, self._least, self._by_loss = num_finalists, least, by_loss
        self._grace_epochs, self._middle_epoch, self._aims = grace_epochs, middle_epoch, aims
        self._semifinal_from = semifinal_from

    def _middle(self, num_trials: int) -> int | None:
        """The epoch of the semifinal of so many trials."""
        return self._middle_epoch if num_trials >= self._semifinal_from else None

    def num_going_on(self, num_trials: int) -> tuple[int, int]:
        """How many of so many trials go on at all, and how many to their end."""
        few = self._num_finalists
        if few is None:
            few = 3 if self._middle(num_trials) is None else max(1, round(num_trials / 16))
        finalists = max(few, self._least)
        has_none = self._middle(num_trials) is None
        return finalists if has_none else max(3 * few, finalists), finalists

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
        ready = [trial for trial in trials if self._has_grace(trial)]
        num_on, num_finalists = self.num_going_on(len(trials))
        on = self._best(ready, metric, self._grace_epochs, num_on)
        middle = self._middle(len(trials))
        if middle is not None and len(on) > num_finalists:
            if any(not t.is_over and len(t.history) < min(middle, t.epochs) for t in on):
                limits = {t.number: min(middle, t.epochs) for t in on}
                return Standings(limits=limits, are_final=False)
            there = [t for t in on if len(t.history) >= min(middle, t.epochs)]
            on = self._best(there, self._aims.first, middle, num_finalists)
        return Standings(limits={t.number: t.epochs for t in on}, are_final=True)

    def waits(self, trial: Trial, standings: Standings | None) -> bool:
        """Whether a trial that is not over has to wait, or to end, after its epochs so far."""
        if len(trial.history) >= trial.epochs:
            return False
        limits = {} if standings is None else standings.limits
        return len(trial.history) >= limits.get(trial.number, self._grace_epochs)

    @staticmethod
    def _best(trials: Sequence[Trial], metric: Metric, epochs: int, most: int) -> list[Trial]:
        """The best by their first epochs; of equals the first ones."""
        scored = [(_score(trial, metric, epochs), -trial.number, trial) for trial in trials]
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


def _score(trial: Trial, metric: Metric, epochs: int) -> float:
    """The best score of a trial's first epochs."""
    best = metric.best(float(epoch[metric.name]) for epoch in trial.history[:epochs])
    return -math.inf if best is None else metric.score(best)
