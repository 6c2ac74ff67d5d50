"""The probabilities from which on rows are given a class, where a row may have several."""

import numpy as np
import numpy.typing as npt

__all__ = ["NUM_BINS", "choose_thresholds"]
NUM_BINS = 1_000
"""Bins of a histogram of probabilities; thresholds are their edges."""
_MIN_POSITIVES = 10  # rows of a class; with fewer it takes the threshold of all classes


def choose_thresholds(histogram: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """For each class the threshold with the best F1.

    A class of few rows takes the one with the best F1 over the decisions on all classes. Of
    thresholds with the same F1 the one nearest to that is taken, or the middle of those around
    the nearest.

    Args:
        histogram: int64 (2, classes, `NUM_BINS`), how many rows without and with each class have
            its probability in each bin.

    Returns:
        Thresholds from 0.001 to 0.999; 0.5 without rows.

    Source: Lipton et al. 2014, https://arxiv.org/abs/1402.1892 (thresholds that maximise F1).
    """
    above = histogram[:, :, ::-1].cumsum(axis=2)[:, :, ::-1][:, :, 1:]  # of each threshold
    right, given = above[1], above.sum(axis=0)  # (classes, thresholds)
    labelled = histogram[1].sum(axis=1)
    common = _best(_f1(right.sum(axis=0), given.sum(axis=0), labelled.sum()), NUM_BINS // 2)
    chosen = [
        _best(_f1(right[number], given[number], rows), common) if rows >= _MIN_POSITIVES else common
        for number, rows in enumerate(labelled)
    ]
    return tuple(number / NUM_BINS for number in chosen)


def _f1(
    right: npt.NDArray[np.int64], given: npt.NDArray[np.int64], labelled: np.int64
) -> npt.NDArray[np.float64]:
    scores: npt.NDArray[np.float64] = 2 * right / np.maximum(given + labelled, 1)
    return scores


def _best(scores: npt.NDArray[np.float64], near: int) -> int:
    """The number of the edge, from 1, with the best score."""
    best = scores.max(initial=0.0)
    if not best:
        return near
    edges = np.flatnonzero(scores == best) + 1
    runs = np.split(edges, np.flatnonzero(np.diff(edges) > 1) + 1)
    nearest = min(runs, key=lambda run: int(np.abs(run - near).min()))
    if nearest[0] <= near <= nearest[-1]:
        return near
    return int(nearest[len(nearest) // 2])
