"""Counts of scored rows by class and by probability; needs neither torch nor the rows."""

import numpy as np
import numpy.typing as npt

from rnntune.data.f1 import IntArray, macro_f1
from rnntune.data.reliability import NUM_BINS, reliability_bins

__all__ = ["ClassCounts"]


class ClassCounts:
    """A confusion matrix and a calibration histogram as they grow.

    The scores are torchmetrics', whose import takes seconds and PyTorch.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        """Rows of each class (first) that were given each class (second)."""
        self._bins = np.zeros((3, NUM_BINS), dtype=np.float64)  # rows, right ones, probabilities
        self._loss = 0.0

    def add(
        self, probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Count rows.

        Args:
            probabilities: float32 (rows, classes).
            labels: int64 (rows,).

        Returns:
            Which of them were given another class, bool (rows,).
        """
        given = probabilities.argmax(axis=1)
        np.add.at(self.confusion, (labels, given), 1)
        wrong: npt.NDArray[np.bool_] = given != labels
        surest = probabilities.max(axis=1).astype(np.float64)
        which = reliability_bins(surest)
        for row, values in zip(self._bins, (np.ones(len(labels)), ~wrong, surest), strict=True):
            row += np.bincount(which, weights=values, minlength=NUM_BINS)
        of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        self._loss -= float(np.log(np.maximum(of_label, 1e-30)).sum())
        return wrong

    @property
    def accuracy(self) -> float:
        """Share of the rows that were given their class."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def loss(self) -> float:
        """Mean negative log probability of the rows' classes, in nats."""
        return self._loss / float(self.confusion.sum())

    @property
    def calibration_error(self) -> float:
        """Mean distance of probability and accuracy over bins of like probability.

        Source: Guo et al. 2017, arXiv:1706.04599 (expected calibration error).
        """
        rows, right, probability = self._bins
        return float(np.abs(right - probability).sum() / rows.sum())

    def counts(self) -> tuple[IntArray, IntArray, IntArray]:
        """Rows of each class that were given it, that were given it, and of it."""
        return self.confusion.diagonal(), self.confusion.sum(axis=0), self.confusion.sum(axis=1)

    @property
    def macro_f1(self) -> float:
        """Mean of the classes' F1, without classes that no row has or was given."""
        return macro_f1(*self.counts())
