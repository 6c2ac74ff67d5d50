"""Whether rows are right as often as a model is sure of them: bins of like probability."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NUM_BINS", "expected_calibration_error", "reliability_bins"]
NUM_BINS = 15


def reliability_bins(confidence: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """The bin of each probability, int64 (rows,), from 0; each has its upper edge."""
    numbers: npt.NDArray[np.int64] = np.ceil(confidence * NUM_BINS).astype(np.int64) - 1
    return numbers.clip(0, NUM_BINS - 1)


def expected_calibration_error(
    confidence: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.bool_]
) -> float:
    """Mean distance of confidence and accuracy in 15 bins.

    Args:
        confidence: probabilities of what is predicted, (rows,).
        right: bool (rows,), whether it is right.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    gaps = np.bincount(reliability_bins(confidence), confidence - right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / max(len(right), 1))
