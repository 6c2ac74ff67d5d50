"""Early stopping: which trials go on, as a function of what trials reported so far.

Nothing is kept but the scores in the order in which they came, which is what the journal holds.
So a search that goes on replays them and decides as if it had never been interrupted.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.first_epochs import LOSS, have_loss
from rnntune.tuning.journal import Trial, TrialState

__all__ = ["Asha", "OneEpoch"]


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


class OneEpoch:
    """One epoch for all trials, then the best few go on to their end.

    Nothing is kept: who goes on follows from the trials' first epochs alone, whatever the order
    in which they came.

    Args:
        grace_epochs: epochs of all trials.
        num_finalists: trials that go on; with several aims it is the front of the first epochs.
        aims: they are compared by.
        by_loss: whether one aim gives way to the loss, which says more after so few epochs.

    Source: Egele et al. 2023, "Is One Epoch All You Need For Multi-Fidelity Hyperparameter
        Optimization?", https://arxiv.org/abs/2307.15422.
    """

    def __init__(
        self, *, grace_epochs: int, num_finalists: int, aims: Aims, by_loss: bool = False
    ) -> None:
        self.num_finalists, self._by_loss = num_finalists, by_loss
        self._grace_epochs, self._aims = grace_epochs, aims

    def finalists(self, trials: Sequence[Trial]) -> frozenset[int] | None:
        """The numbers of the trials that go on, once no trial is to come.

        Args:
            trials: all of the search.

        Returns:
            None while one of them may still reach the end of its first epochs.
        """
        if any(not trial.is_over and not self._has_grace(trial) for trial in trials):
            return None
        if self._aims.are_several:
            return frozenset(trial.number for trial in self._aims.front(self._first(trials)))
        by_loss = self._by_loss and have_loss(trials, self._grace_epochs)
        metric = LOSS if by_loss else self._aims.first
        scored = [(self._score(t, metric), -t.number) for t in trials if self._has_grace(t)]
        best = sorted((pair for pair in scored if math.isfinite(pair[0])), reverse=True)
        return frozenset(-number for _, number in best[: self.num_finalists])

    def waits(self, trial: Trial, finalists: frozenset[int] | None) -> bool:
        """Whether a trial that is not over has to wait, or to end, after its first epochs."""
        is_complete = len(trial.history) >= trial.epochs
        return self._has_grace(trial) and not is_complete and trial.number not in (finalists or ())

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

    def _score(self, trial: Trial, metric: Metric) -> float:
        values = (float(epoch[metric.name]) for epoch in trial.history[: self._grace_epochs])
        best = metric.best(values)
        return -math.inf if best is None else metric.score(best)
