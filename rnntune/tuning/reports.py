"""What travels between a search and its trials."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rnntune.errors import DivergedError, OverLimitError, RnntuneError
from rnntune.tuning.journal import TrialState

__all__ = ["REPORT", "TRIAL", "EpochReport", "TrialEnd", "TrialSpec", "trial_end"]
TRIAL = "trial"
"""Key of a trial's `TrialSpec` in what Ray Tune hands it."""
REPORT = "report"
"""Key of an `EpochReport` or a `TrialEnd` in what Ray Tune hands on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What a trial is to do.

    Args:
        number: of the trial, from 0.
        name: of the trial and its folder.
        values: dotted names of the searched settings to values.
        latency_ms: of a model like this one's, if the search has measured one.
        until_epoch: after which it waits for other trials; None: it trains to its end.
    """

    number: int
    name: str
    values: Mapping[str, Any]
    latency_ms: float | None = None
    until_epoch: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochReport:
    """A finished epoch of a trial.

    Args:
        metrics: of the epoch, as the loop gives them.
        is_complete: whether it was the last.
        num_parameters: of the model.
        latency_ms: of the model, for one text on one thread.
        first_step_at: when training began, seconds since the epoch of the clock; None: earlier.
    """

    metrics: Mapping[str, Any]
    is_complete: bool
    num_parameters: int
    latency_ms: float
    first_step_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialEnd:
    """How a trial ended that cannot go on, whatever is tried again.

    Args:
        state: its last.
        reason: in one line.
        num_parameters: of the model, where that is known.
        latency_ms: of the model, where that was measured.
    """

    state: TrialState
    reason: str
    num_parameters: int | None = None
    latency_ms: float | None = None


def trial_end(error: Exception) -> TrialEnd:
    """How a trial ended that ran into an error."""
    if isinstance(error, OverLimitError):
        return TrialEnd(
            state=TrialState.OVER_LIMIT,
            reason=str(error),
            num_parameters=error.num_parameters,
            latency_ms=error.latency_ms,
        )
    lines = str(error).strip().splitlines()
    reason = lines[-1] if lines else type(error).__name__
    if not isinstance(error, RnntuneError):
        reason = f"{type(error).__name__}: {reason}"
    diverged = isinstance(error, DivergedError)
    return TrialEnd(state=TrialState.DIVERGED if diverged else TrialState.FAILED, reason=reason)
