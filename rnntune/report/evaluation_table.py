"""The scores of a model as tables of the terminal, for two classes and for hundreds."""

import dataclasses
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rnntune.console import printable
from rnntune.inference.label_set_metrics import LabelSetEvaluation
from rnntune.inference.metrics import ClassScores, Evaluation
from rnntune.report.tables import interval

__all__ = ["ConfusedPair", "confused_pairs", "evaluation_table"]
_MOST_CLASSES = 30
_MOST_PAIRS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """Rows of one class that were given another.

    Args:
        name: the class of the rows.
        predicted: the class they were given.
        rows: their number.
        share: of all rows of the class, 0 to 1.
    """

    name: str
    predicted: str
    rows: int
    share: float


def confused_pairs(
    names: Sequence[str], confusion: Sequence[Sequence[int]], most: int
) -> list[ConfusedPair]:
    """The pairs of classes that are confused most often, in one direction each.

    Args:
        names: of the classes.
        confusion: rows of each class (lines) by the class they were given (columns).
        most: pairs that are wanted.
    """
    pairs = [
        ConfusedPair(name=name, predicted=names[column], rows=rows, share=rows / sum(line))
        for number, (name, line) in enumerate(zip(names, confusion, strict=True))
        for column, rows in enumerate(line)
        if rows and column != number
    ]
    return sorted(pairs, key=lambda pair: (-pair.rows, -pair.share))[:most]


def evaluation_table(evaluation: Evaluation | LabelSetEvaluation) -> RenderableType:
    """The scores to look at: all rows, each class, and which classes are taken for which."""
    if isinstance(evaluation, LabelSetEvaluation):
        return Group(*_label_set_lines(evaluation), *_classes(evaluation.classes))
    parts = [
        Text(f"{evaluation.rows:,} rows  accuracy {evaluation.accuracy:.4f}"),
        Text(
            f"macro F1 {evaluation.macro_f1:.4f}  loss {evaluation.loss:.4f}  "
            f"calibration error {evaluation.expected_calibration_error:.4f}"
        ),
    ]
    return Group(*parts, *_classes(evaluation.classes), _Confusion(evaluation))


def _label_set_lines(evaluation: LabelSetEvaluation) -> list[Text]:
    low, high = interval(evaluation.accuracy, evaluation.rows)
    return [
        Text(
            f"{evaluation.rows:,} rows  micro F1 {evaluation.micro_f1:.4f}  "
            f"macro F1 {evaluation.macro_f1:.4f}"
        ),
        Text(f"all labels right {evaluation.accuracy:.4f} (95%: {low:.4f} to {high:.4f})"),
        Text(
            f"{evaluation.mean_labels:.2f} labels a row, {evaluation.mean_predicted:.2f} "
            f"predicted  loss {evaluation.loss:.4f}"
        ),
    ]


def _classes(scores: Sequence[ClassScores]) -> list[RenderableType]:
    """The scores of each class; of many classes the lowest."""
    if len(scores) <= _MOST_CLASSES:
        return [_class_table(scores)]
    lowest = sorted(scores, key=lambda each: (each.f1, -each.support))[:_MOST_CLASSES]
    line = Text(f"the {len(lowest)} of {len(scores)} classes with the lowest F1:")
    return [line, _class_table(lowest)]


def _class_table(classes: Sequence[ClassScores]) -> Table:
    table = Table("class")
    for name in ("precision", "recall", "F1", "rows"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for scores in classes:
        figures = [f"{value:.4f}" for value in (scores.precision, scores.recall, scores.f1)]
        table.add_row(Text(printable(scores.name)), *figures, f"{scores.support:,}")
    return table


class _Confusion:
    """The confusion matrix, or where it is too wide the pairs confused most often."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._names = [printable(scores.name) for scores in evaluation.classes]
        self._confusion = evaluation.confusion

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if len(self._names) <= options.max_width // 3:
            matrix = self._matrix()
            wanted = console.measure(matrix, options=options.update(width=1_000)).maximum
            if wanted <= options.max_width:
                yield matrix
                return
        yield self._pairs()

    def _matrix(self) -> Table:
        table = Table()
        table.add_column("class / predicted", no_wrap=True)
        for name in self._names:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for name, line in zip(self._names, self._confusion, strict=True):
            table.add_row(Text(name), *[f"{count:,}" for count in line])
        return table

    def _pairs(self) -> RenderableType:
        pairs = confused_pairs(self._names, self._confusion, _MOST_PAIRS)
        if not pairs:
            return Text("no class was taken for another")
        table = Table("class", "taken for")
        for name in ("rows", "of the class"):
            table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
        for pair in pairs:
            table.add_row(
                Text(pair.name), Text(pair.predicted), f"{pair.rows:,}", f"{pair.share:.1%}"
            )
        return table
