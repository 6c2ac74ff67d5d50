"""Scores of a model: what is counted while rows are scored, and what comes of it."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rnntune.data.f1 import IntArray, class_scores
from rnntune.errors import ConfigError
from rnntune.inference.class_counts import ClassCounts
from rnntune.inference.csv_text import csv_text
from rnntune.inference.scored_rows import ScoredRows
from rnntune.location import Location

__all__ = ["ClassScores", "Evaluation", "MetricAccumulator", "errors_writer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class.

    Args:
        name: of the class.
        precision: part of the rows given this class that are of it; 0 if there are none.
        recall: part of its rows that were given it; 0 if there are none.
        f1: harmonic mean of the two.
        support: its rows.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int

    @classmethod
    def of_counts(
        cls, names: Sequence[str], right: IntArray, given: IntArray, labelled: IntArray
    ) -> tuple["ClassScores", ...]:
        """The scores of all classes; see `data.f1.class_scores` for the arguments."""
        columns = [values.tolist() for values in (*class_scores(right, given, labelled), labelled)]
        return tuple(
            cls(name=name, precision=precision, recall=recall, f1=f1, support=support)
            for name, precision, recall, f1, support in zip(names, *columns, strict=True)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a model.

    Args:
        rows: rows that were scored.
        skipped: bad rows that were left out.
        problems: what was wrong with the first of them.
        accuracy: part of the rows that were given their class.
        macro_f1: mean F1 of the classes.
        loss: mean negative logarithm of the probability of a row's class.
        expected_calibration_error: mean distance of confidence and accuracy in 15 bins of
            confidence, weighted by rows. Source: Guo et al. 2017, arXiv:1706.04599.
        classes: scores of each class.
        confusion: rows of each class (lines) by the class they were given (columns).
    """

    rows: int
    skipped: int
    problems: tuple[str, ...]
    accuracy: float
    macro_f1: float
    loss: float
    expected_calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """The scores as dictionaries, lists and numbers."""
        tree = dataclasses.asdict(self)
        for name in ("problems", "classes", "confusion"):
            tree[name] = [list(item) if isinstance(item, tuple) else item for item in tree[name]]
        return tree


class MetricAccumulator(ScoredRows):
    """What is kept of the scored rows: counts and, if asked, the rows given a wrong class.

    Args:
        classes: names of the classes.
        on_bad_rows: 'error' or 'skip'.
        keep_errors: keep the misclassified rows.
    """

    def __init__(self, classes: Sequence[str], on_bad_rows: str, *, keep_errors: bool) -> None:
        super().__init__(on_bad_rows, keep_errors=keep_errors)
        self._classes = classes
        self._counts = ClassCounts(len(classes))

    def count(self, good: pa.Table) -> npt.NDArray[np.bool_]:
        """Count rows without a problem; gives which of them are wrong."""
        labels = good["label"].to_numpy().astype(np.int64)
        return self._counts.add(self.probabilities(good), labels)

    def evaluation(self, source: str) -> Evaluation:
        """The scores.

        Raises:
            DataError: no row was scored.
        """
        self.check_rows(source)
        counts = self._counts
        return Evaluation(
            rows=self.rows,
            skipped=self.skipped,
            problems=tuple(self.problems),
            accuracy=counts.accuracy,
            macro_f1=counts.macro_f1,
            loss=counts.loss,
            expected_calibration_error=counts.calibration_error,
            classes=ClassScores.of_counts(self._classes, *counts.counts()),
            confusion=tuple(map(tuple, counts.confusion.tolist())),
        )

    def errors(self) -> Iterator[dict[str, Any]]:
        """The misclassified rows, the surest first."""
        kept = self.kept_errors()
        if not kept.num_rows:
            return
        probabilities = self.probabilities(kept)
        given = probabilities.argmax(axis=1)
        rows = kept.select(["file", "row", "text", "label"]).to_pylist()
        for i in np.argsort(-probabilities.max(axis=1), kind="stable").tolist():
            numbers = [round(float(p), 6) for p in probabilities[i]]
            of_classes = zip(self._classes, numbers, strict=True)
            yield {
                **rows[i],
                "label": self._classes[rows[i]["label"]],
                "predicted": self._classes[given[i]],
                "probability": numbers[given[i]],
                **{f"probability_{name}": number for name, number in of_classes},
            }


def errors_writer(
    uri: str, *, escape_formulas: bool = True
) -> Callable[[Iterable[dict[str, Any]]], str]:
    """What makes text of rows, by the name of the file.

    Args:
        uri: the file.
        escape_formulas: of CSV; see `csv_text`.

    Raises:
        ConfigError: the name does not tell the form.
    """
    writers: dict[str, Callable[[Iterable[dict[str, Any]]], str]]
    writers = {".csv": partial(_csv, escape_formulas=escape_formulas), ".jsonl": _jsonl}
    for suffix, write in writers.items():
        if Location.parse(uri).path.lower().endswith(suffix):
            return write
    raise ConfigError(f"errors: the file must end in {' or '.join(writers)}, not be {uri}")


def _csv(rows: Iterable[dict[str, Any]], *, escape_formulas: bool) -> str:
    every = list(rows)
    if not every:
        return ""
    return csv_text(list(every[0]), every, escape_formulas=escape_formulas)


def _jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
