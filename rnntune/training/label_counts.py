"""Counts of predictions over batches, merged over ranks, and the figures that come of them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from rnntune.data.f1 import count_label_sets, macro_f1, micro_f1
from rnntune.data.task import Task, decide, rows_equal
from rnntune.training.ranks import sum_over_ranks
from rnntune.training.thresholds import NUM_BINS, choose_thresholds

__all__ = ["LabelCounts", "label_counts"]
_SMALLEST = 1e-30
_CLOSEST = 1e-7  # of a float32 to 0 and 1


class LabelCounts(Protocol):
    """What is counted of the rows of a split."""

    thresholds: Sequence[float] | None

    def add(self, labels: torch.Tensor, probabilities: torch.Tensor) -> None:
        """Count a batch: labels as a `Batch` has them, float32 (batch, classes) probabilities."""

    def figures(self, split: str) -> dict[str, Any]:
        """The figures of all ranks' rows, the same in every rank; each rank calls it once."""


def label_counts(
    task: Task, num_classes: int, thresholds: Sequence[float] | None = None
) -> LabelCounts:
    """The counts for a task.

    Args:
        task: whether a row has one label, or a set of them.
        num_classes: number of classes.
        thresholds: of a set of labels, of each class; None: chosen on the rows themselves.
    """
    if task.is_multi_label:
        return _LabelSetCounts(num_classes, thresholds)
    return _ClassCounts(num_classes)


class _ClassCounts:
    """Rows of one class each: right, given and labelled, by class."""

    thresholds: Sequence[float] | None = None

    def __init__(self, num_classes: int) -> None:
        self._counts = np.zeros((3, num_classes), dtype=np.int64)
        self._of_labels = [torch.empty(0, dtype=torch.float64)]

    def add(self, labels: torch.Tensor, probabilities: torch.Tensor) -> None:
        predicted = probabilities.argmax(dim=1)
        right = labels[predicted == labels]
        for row, classes in enumerate((right, predicted, labels)):
            self._counts[row] += np.bincount(classes.numpy(), minlength=self._counts.shape[1])
        self._of_labels.append(probabilities.gather(1, labels[:, None])[:, 0].double())

    def figures(self, split: str) -> dict[str, Any]:
        loss = float(-torch.cat(self._of_labels).clamp_min(_SMALLEST).log().sum())
        counts, loss = sum_over_ranks((self._counts, loss))
        rows = int(counts[2].sum())
        return {
            f"{split}_accuracy": float(counts[0].sum() / rows) if rows else float("nan"),
            f"{split}_macro_f1": macro_f1(*counts),
            f"{split}_loss": loss / max(rows, 1),
            f"{split}_rows": rows,
        }


class _LabelSetCounts:
    """Rows of a set of classes each.

    Thresholds are chosen by each class's histogram of probabilities, of its rows and of the
    others, summed over ranks. The rows' own probabilities stay in their rank.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] | None) -> None:
        self.thresholds = thresholds
        self._num_classes = num_classes
        self._labels = [np.empty((0, num_classes), dtype=np.bool_)]
        self._probabilities = [np.empty((0, num_classes), dtype=np.float32)]
        self._histogram = np.zeros((2, num_classes, NUM_BINS), dtype=np.int64)
        self._loss = 0.0

    def add(self, labels: torch.Tensor, probabilities: torch.Tensor) -> None:
        own = labels > 0
        of_label = torch.where(own, probabilities, 1 - probabilities).double()
        self._loss -= float(of_label.clamp(_CLOSEST, 1).log().sum())
        self._labels.append(own.numpy())
        self._probabilities.append(probabilities.numpy())
        if self.thresholds is None:
            bins = (probabilities * NUM_BINS).long().clamp(max=NUM_BINS - 1).numpy()
            cells = (own.numpy() * self._num_classes + np.arange(self._num_classes)) * NUM_BINS
            counted = np.bincount((cells + bins).ravel(), minlength=self._histogram.size)
            self._histogram += counted.reshape(self._histogram.shape)

    def figures(self, split: str) -> dict[str, Any]:
        if self.thresholds is None:
            self.thresholds = choose_thresholds(sum_over_ranks((self._histogram,))[0])
        labels = np.concatenate(self._labels)
        given = decide(np.concatenate(self._probabilities), self.thresholds)
        counts = count_label_sets(given, labels)
        here = (counts, int(rows_equal(given, labels).sum()), len(labels), self._loss)
        counts, right, rows, loss = sum_over_ranks(here)
        return {
            f"{split}_accuracy": right / rows if rows else float("nan"),
            f"{split}_micro_f1": micro_f1(*counts),
            f"{split}_macro_f1": macro_f1(*counts),
            f"{split}_loss": loss / max(rows, 1),
            f"{split}_rows": rows,
        }
