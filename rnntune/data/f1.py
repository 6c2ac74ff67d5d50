"""Precision, recall and F1 of classes, from counts of rows."""

import numpy as np
import numpy.typing as npt

__all__ = ["IntArray", "class_scores", "count_label_sets", "macro_f1", "micro_f1"]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def count_label_sets(given: npt.NDArray[np.bool_], labels: npt.NDArray[np.bool_]) -> IntArray:
    """Rows that have each class rightly, that were given it, and that are labelled with it.

    Args:
        given: bool (rows, classes), what was predicted.
        labels: bool (rows, classes).

    Returns:
        int64 (3, classes), the arguments of the scores below.
    """
    counts: IntArray = np.stack([(given & labels).sum(0), given.sum(0), labels.sum(0)])
    return counts


def class_scores(
    right: IntArray, given: IntArray, labelled: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of each class, float64 (classes,); 0 where there are no rows.

    Args:
        right: int64 (classes,), rows of each class that were given it.
        given: int64 (classes,), rows that were given it.
        labelled: int64 (classes,), rows of it.
    """
    both = np.maximum(given + labelled, 1)
    return right / np.maximum(given, 1), right / np.maximum(labelled, 1), 2 * right / both


def macro_f1(right: IntArray, given: IntArray, labelled: IntArray) -> float:
    """Mean of the classes' F1, of the classes that occur as a label or a prediction.

    In torchmetrics it is the same, but the import of that takes a second of every run; see
    `class_scores` for the arguments.

    Source: https://lightning.ai/docs/torchmetrics/stable/classification/f1_score.html
    """
    both = given + labelled
    occurs = both > 0
    return float((2 * right[occurs] / both[occurs]).mean()) if occurs.any() else 0.0


def micro_f1(right: IntArray, given: IntArray, labelled: IntArray) -> float:
    """F1 over all decisions on a class together; see `class_scores` for the arguments."""
    both = int(given.sum() + labelled.sum())
    return float(2 * right.sum() / both) if both else 0.0
