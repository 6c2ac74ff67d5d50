"""What a row's label is: one class, or a set of classes; and what probabilities decide then.

Where each row has one class, labels and predictions are numbers of classes, int (rows,). Where a
row has a set of classes, perhaps an empty one, they are 0 or 1 for each class, (rows, classes).
"""

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Task", "confidence", "decide", "label_column", "label_names", "label_sets"]
__all__ += ["rows_equal", "rows_of_classes"]
Thresholds = Sequence[float] | None
"""The probability from which on a row has each class; None: each row has its most probable one."""


class Task(str, enum.Enum):
    """What is predicted of a row."""

    SINGLE_LABEL = "single_label"
    """One class; the classes exclude each other."""
    MULTI_LABEL = "multi_label"
    """A set of classes: any number of them, also none."""

    @property
    def is_multi_label(self) -> bool:
        """Whether a row has a set of classes."""
        return self is Task.MULTI_LABEL


def decide(probabilities: npt.NDArray[np.float32], thresholds: Thresholds) -> npt.NDArray[Any]:
    """What probabilities say of each row.

    Args:
        probabilities: float32 (rows, classes).
        thresholds: of each class; None: each row has one class.

    Returns:
        int64 (rows,), the most probable classes; with thresholds bool (rows, classes).
    """
    if thresholds is None:
        numbers: npt.NDArray[Any] = probabilities.argmax(axis=1)
        return numbers
    exceeds: npt.NDArray[Any] = probabilities >= np.asarray(thresholds, dtype=np.float32)
    return exceeds


def rows_equal(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows have the same class or the same set of classes in both, bool (rows,)."""
    same: npt.NDArray[np.bool_] = np.asarray(one == other)
    if same.ndim == 2:
        same = same.all(axis=1)
    return same


def rows_of_classes(decisions: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.int64]:
    """Rows that have each class, int64 (classes,)."""
    if decisions.ndim == 1:
        return np.bincount(decisions, minlength=num_classes)
    rows: npt.NDArray[np.int64] = decisions.sum(axis=0, dtype=np.int64)
    return rows


def confidence(
    probabilities: npt.NDArray[np.float32], decisions: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """The probability of what was decided of each row, float32 (rows,).

    Of a set of classes: the product over all classes, as if they were independent.
    """
    found: npt.NDArray[np.float32]
    if decisions.ndim == 1:
        found = probabilities[np.arange(len(decisions)), decisions]
        return found
    each = np.where(decisions, probabilities, 1 - probabilities).astype(np.float64)
    found = each.prod(axis=1).astype(np.float32)
    return found


def label_names(decisions: npt.NDArray[Any], classes: Sequence[str]) -> list[Any]:
    """The class of each row, a string; or its classes, a list of strings."""
    if decisions.ndim == 1:
        return [classes[number] for number in decisions.tolist()]
    return [[classes[n] for n in np.flatnonzero(row).tolist()] for row in decisions]


def label_column(values: npt.NDArray[Any]) -> pa.Array:
    """Values of rows as a column; of sets of classes lists of their numbers, int32."""
    if values.ndim == 1:
        return pa.array(values)
    offsets = np.concatenate([[0], np.cumsum(values.sum(axis=1, dtype=np.int64))])
    numbers = np.nonzero(values)[1].astype(np.int32)
    return pa.ListArray.from_arrays(offsets.astype(np.int32), numbers)


def label_sets(lists: pa.ListArray, num_classes: int) -> npt.NDArray[np.bool_]:
    """What `label_column` made of sets of classes, bool (rows, classes)."""
    has = np.zeros((len(lists), num_classes), dtype=np.bool_)
    rows = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy(zero_copy_only=False))
    has[rows, lists.flatten().to_numpy(zero_copy_only=False)] = True
    return has
