"""What trials are compared by after their first epochs: the validation loss.

It counts how sure a model is of every row, where accuracy counts only the rows that cross over, so
after one epoch it says more of what a trial will reach. On the learning curves of
`tests/benchmarks/replay.py` its rank correlation with the final accuracy is 0.59, 0.96 and 0.72,
that of the accuracy 0.54, 0.80 and 0.66.
"""

import dataclasses
import math
from collections.abc import Sequence

from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.prior import Observation

__all__ = ["LOSS", "compared_by_loss", "have_loss"]
LOSS = Metric("validation_loss")


def have_loss(trials: Sequence[Trial], grace_epochs: int) -> bool:
    """Whether the first epochs of all trials have a loss."""
    epochs = (epoch for trial in trials for epoch in trial.history[:grace_epochs])
    return all(LOSS.name in epoch for epoch in epochs)


def compared_by_loss(
    aims: Aims, trials: Sequence[Trial], earlier: Sequence[Observation], grace_epochs: int
) -> tuple[Aims, Sequence[Trial], Sequence[Observation]]:
    """The trials as they were after their first epochs, for a sampler to compare by their loss.

    Args:
        aims: of the search, one alone.
        trials: all of the search.
        earlier: what earlier searches tried, with the scores of `aims`.
        grace_epochs: epochs of all trials.

    Returns:
        The loss as aim, the trials, and the earlier ones with the sign of a loss; all as they are
        if a trial has no loss.
    """
    if not have_loss(trials, grace_epochs):
        return aims, trials, earlier
    signed = [
        dataclasses.replace(
            each, scores=tuple(LOSS.score(aims.first.score(score)) for score in each.scores)
        )
        for each in earlier
    ]
    return Aims((LOSS,)), [_after_first(trial, grace_epochs) for trial in trials], signed


def _after_first(trial: Trial, grace_epochs: int) -> Trial:
    history = trial.history[:grace_epochs]
    if len(history) < grace_epochs or not trial.state.may_win:
        return trial
    if not any(math.isfinite(epoch[LOSS.name]) for epoch in history):
        return dataclasses.replace(trial, history=history, state=TrialState.DIVERGED)
    return dataclasses.replace(trial, history=history, state=TrialState.FINISHED)
