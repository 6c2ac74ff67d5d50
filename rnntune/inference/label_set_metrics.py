"""Scores of a model for rows of several labels: counts by class, and rows with all labels right."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rnntune.data.f1 import count_label_sets, macro_f1, micro_f1
from rnntune.data.task import confidence, decide, label_names, label_sets, rows_equal
from rnntune.inference.metrics import ClassScores
from rnntune.inference.scored_rows import ScoredRows

__all__ = ["LabelSetAccumulator", "LabelSetEvaluation"]
_CLOSEST = 1e-7  # of a float32 to 0 and 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSetEvaluation:
    """Scores of a model for rows of several labels.

    Args:
        rows: rows that were scored.
        skipped: bad rows that were left out.
        problems: what was wrong with the first of them.
        accuracy: part of the rows that were given all their labels and no other.
        micro_f1: F1 over all decisions on a class of a row.
        macro_f1: mean F1 of the classes.
        loss: mean binary cross entropy of a row, summed over the classes.
        mean_labels: labels of a row in the mean.
        mean_predicted: labels that a row is given in the mean.
        classes: scores of each class.
        thresholds: the probability from which on a row is given each class.
    """

    rows: int
    skipped: int
    problems: tuple[str, ...]
    accuracy: float
    micro_f1: float
    macro_f1: float
    loss: float
    mean_labels: float
    mean_predicted: float
    classes: tuple[ClassScores, ...]
    thresholds: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The scores as dictionaries, lists and numbers."""
        tree = dataclasses.asdict(self)
        for name in ("problems", "classes", "thresholds"):
            tree[name] = list(tree[name])
        return tree


class LabelSetAccumulator(ScoredRows):
    """What is kept of the scored rows: counts and, if asked, the rows given other labels.

    Args:
        classes: names of the classes.
        thresholds: of each class.
        on_bad_rows: 'error' or 'skip'.
        keep_errors: keep the rows whose labels are not all right.
    """

    def __init__(
        self,
        classes: Sequence[str],
        thresholds: Sequence[float],
        on_bad_rows: str,
        *,
        keep_errors: bool,
    ) -> None:
        super().__init__(on_bad_rows, keep_errors=keep_errors)
        self._classes, self._thresholds = classes, tuple(thresholds)
        self._counts = np.zeros((3, len(classes)), dtype=np.int64)  # right, given, labelled
        self._num_right = 0
        self._loss = 0.0

    def count(self, good: pa.Table) -> npt.NDArray[np.bool_]:
        """Count rows without a problem; gives which of them are wrong."""
        labels, probabilities = self._labels(good), self.probabilities(good)
        given = decide(probabilities, self._thresholds)
        self._counts += count_label_sets(given, labels)
        of_label = np.where(labels, probabilities, 1 - probabilities).astype(np.float64)
        self._loss -= float(np.log(of_label.clip(_CLOSEST, 1)).sum())
        right = rows_equal(given, labels)
        self._num_right += int(right.sum())
        return ~right

    def _labels(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        return label_sets(rows["label"].combine_chunks(), len(self._classes))

    def evaluation(self, source: str) -> LabelSetEvaluation:
        """The scores.

        Raises:
            DataError: no row was scored.
        """
        self.check_rows(source)
        right, given, labelled = self._counts
        return LabelSetEvaluation(
            rows=self.rows,
            skipped=self.skipped,
            problems=tuple(self.problems),
            accuracy=self._num_right / self.rows,
            micro_f1=micro_f1(right, given, labelled),
            macro_f1=macro_f1(right, given, labelled),
            loss=self._loss / self.rows,
            mean_labels=float(labelled.sum() / self.rows),
            mean_predicted=float(given.sum() / self.rows),
            classes=ClassScores.of_counts(self._classes, right, given, labelled),
            thresholds=self._thresholds,
        )

    def errors(self) -> Iterator[dict[str, Any]]:
        """The rows whose labels are not all right, the surest first."""
        kept = self.kept_errors()
        if not kept.num_rows:
            return
        labels, probabilities = self._labels(kept), self.probabilities(kept)
        given = decide(probabilities, self._thresholds)
        sure = confidence(probabilities, given)
        rows = kept.select(["file", "row", "text"]).to_pylist()
        names, predicted = (label_names(each, self._classes) for each in (labels, given))
        for i in np.argsort(-sure, kind="stable").tolist():
            numbers = [round(float(p), 6) for p in probabilities[i]]
            of_classes = zip(self._classes, numbers, strict=True)
            yield {
                **rows[i],
                "label": names[i],
                "predicted": predicted[i],
                "missed": sorted(set(names[i]) - set(predicted[i]), key=self._classes.index),
                "added": sorted(set(predicted[i]) - set(names[i]), key=self._classes.index),
                **{f"probability_{name}": number for name, number in of_classes},
            }
