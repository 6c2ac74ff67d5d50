"""Scores of a model: what is counted while rows are scored, and what comes of it.

The counts are kept by torchmetrics; the calibration takes eight bytes a row.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnntune import storage
from rnntune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["ClassScores", "Evaluation", "Tally", "table", "writer"]

_NUM_BINS = 15
_MAX_PROBLEMS = 20


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


class Tally:
    """What is kept of the scored rows: counts and, if asked, the rows given a wrong class.

    Args:
        classes: names of the classes.
        on_bad_rows: 'error' or 'skip'.
        keep_errors: keep the misclassified rows.
    """

    def __init__(self, classes: Sequence[str], on_bad_rows: str, *, keep_errors: bool) -> None:
        from torchmetrics import MetricCollection
        from torchmetrics import classification as metrics

        num = len(classes)
        self._classes, self._on_bad_rows, self._keep_errors = classes, on_bad_rows, keep_errors
        self._metrics = MetricCollection(
            {
                "precision": metrics.MulticlassPrecision(num, average=None),
                "recall": metrics.MulticlassRecall(num, average=None),
                "f1": metrics.MulticlassF1Score(num, average=None),
                "macro_f1": metrics.MulticlassF1Score(num, average="macro"),
                "confusion": metrics.MulticlassConfusionMatrix(num),
                "calibration": metrics.MulticlassCalibrationError(num, n_bins=_NUM_BINS),
            }
        )
        self._loss = 0.0
        self._skipped = 0
        self._problems: list[str] = []
        self._errors: list[pa.Table] = []
        self.rows = 0

    def add(self, block: pa.Table) -> None:
        """Count a block of rows: `file`, `row`, `text`, `problem`, `label`, `probabilities`.

        Raises:
            DataError: a bad row that is not to be skipped.
        """
        import torch

        bad = block.filter(pc.is_valid(block["problem"]))
        if bad.num_rows:
            self._note_bad(bad)
        good = block.filter(pc.is_null(block["problem"]))
        if not good.num_rows:
            return
        labels = torch.from_numpy(good["label"].to_numpy().astype(np.int64))
        flat = pc.list_flatten(good["probabilities"].combine_chunks()).to_numpy()
        probabilities = torch.from_numpy(flat.reshape(good.num_rows, -1).copy())  # (rows, classes)
        self._metrics.update(probabilities, labels)
        of_label = probabilities.gather(1, labels[:, None]).double().clamp_min(1e-30)
        self._loss -= float(of_label.log().sum())
        self.rows += good.num_rows
        if self._keep_errors:
            wrong = (probabilities.argmax(dim=1) != labels).numpy()
            self._errors.append(good.filter(wrong))

    def _note_bad(self, bad: pa.Table) -> None:
        self._skipped += bad.num_rows
        for row in bad.slice(0, max(_MAX_PROBLEMS - len(self._problems), 0)).to_pylist():
            self._problems.append(f"{row['file']}: row {row['row']}: {row['problem']}")
        if self._on_bad_rows == "error":  # blocks come in order, so this is the first bad row
            raise DataError(f"{self._problems[0]}; data.on_bad_rows: skip leaves such rows out")

    def evaluation(self, source: str) -> Evaluation:
        """The scores.

        Raises:
            DataError: no row was scored.
        """
        if not self.rows:
            first = f"; the first: {self._problems[0]}" if self._problems else ""
            raise DataError(f"{source}: no row that can be scored{first}")
        found = self._metrics.compute()
        confusion = found["confusion"]
        columns = [found[name].tolist() for name in ("precision", "recall", "f1")]
        scores = zip(self._classes, *columns, confusion.sum(dim=1).tolist(), strict=True)
        return Evaluation(
            rows=self.rows,
            skipped=self._skipped,
            problems=tuple(self._problems),
            accuracy=float(confusion.diag().sum()) / self.rows,
            macro_f1=float(found["macro_f1"]),
            loss=self._loss / self.rows,
            expected_calibration_error=float(found["calibration"]),
            classes=tuple(
                ClassScores(name=name, precision=precision, recall=recall, f1=f1, support=support)
                for name, precision, recall, f1, support in scores
            ),
            confusion=tuple(map(tuple, confusion.tolist())),
        )

    def errors(self) -> Iterator[dict[str, Any]]:
        """The misclassified rows, the surest first."""
        kept = pa.concat_tables(self._errors)
        flat = pc.list_flatten(kept["probabilities"].combine_chunks()).to_numpy()
        probabilities = flat.reshape(kept.num_rows, len(self._classes))
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


def writer(place: str) -> Callable[[Iterable[dict[str, Any]]], str]:
    """What makes text of rows, by the name of the file.

    Raises:
        ConfigError: the name does not tell the form.
    """
    path = place.partition("?")[0] if storage.is_remote(place) else place
    writers = {".csv": _csv, ".jsonl": _jsonl}
    for suffix, write in writers.items():
        if path.lower().endswith(suffix):
            return write
    raise ConfigError(f"errors: the file must end in {' or '.join(writers)}, not be {place}")


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    lines: csv.DictWriter[str] | None = None
    for row in rows:
        if lines is None:
            lines = csv.DictWriter(text, list(row))
            lines.writeheader()
        lines.writerow(row)
    return text.getvalue()


def _jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def table(evaluation: Evaluation) -> "RenderableType":
    """The scores to look at: all rows, each class, and which classes are taken for which."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    total = (
        f"{evaluation.rows:,} rows  accuracy {evaluation.accuracy:.4f}  "
        f"macro F1 {evaluation.macro_f1:.4f}  loss {evaluation.loss:.4f}  "
        f"calibration error {evaluation.expected_calibration_error:.4f}"
    )
    each = Table("class")
    for name in ("precision", "recall", "F1", "rows"):
        each.add_column(name, justify="right")
    for scores in evaluation.classes:
        figures = [f"{value:.4f}" for value in (scores.precision, scores.recall, scores.f1)]
        each.add_row(Text(scores.name), *figures, f"{scores.support:,}")
    confusion = Table("class / predicted")
    for scores in evaluation.classes:
        confusion.add_column(Text(scores.name), justify="right")
    for scores, line in zip(evaluation.classes, evaluation.confusion, strict=True):
        confusion.add_row(Text(scores.name), *[f"{count:,}" for count in line])
    return Group(Text(total), each, confusion)
