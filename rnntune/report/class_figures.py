"""How a model does on each class: confusion matrix, scores, pairs that it confuses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnntune.data.f1 import class_scores, count_label_sets
from rnntune.report.content import Column, Figure, Section, Table, label
from rnntune.report.evaluation_table import confused_pairs
from rnntune.report.run_contents import DataFigures, Predictions

__all__ = ["class_section", "confusion_matrix"]
_MOST_CELLS_NAMED = 14  # classes up to which the cells of the confusion matrix show numbers
_MOST_MATRIX = 100  # classes that a confusion matrix shows
_MOST_PAIRS = 25
IntArray = npt.NDArray[np.int64]


def confusion_matrix(predictions: Predictions, num_classes: int) -> IntArray:
    """Rows of each class (first axis) by the class they were given, int64 (classes, classes)."""
    pairs = predictions.label.astype(np.int64) * num_classes + predictions.predicted
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def class_section(data: DataFigures, predictions: Predictions) -> Section:
    """Confusion matrix, scores of each class, classes most often confused."""
    names = data.classes
    if predictions.label.ndim == 2:
        return _label_set_section(names, predictions)
    confusion = confusion_matrix(predictions, len(names))
    pairs = confused_pairs(names, confusion.tolist(), _MOST_PAIRS)
    text = [f"Over {len(predictions.row):,} test rows; a line of the matrix is a class."]
    shown = np.arange(len(names))
    if len(names) > _MOST_MATRIX:
        wrong = confusion.sum(axis=1) + confusion.sum(axis=0) - 2 * confusion.diagonal()
        shown = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_MATRIX])
        text.append(f"The matrix shows the {_MOST_MATRIX} classes with the most mistakes.")
    pair_table = Table(
        key="pairs",
        caption="Classes most often taken for another",
        columns=(
            Column(name="class"),
            Column(name="taken for"),
            Column(name="rows", form=",d"),
            Column(name="of the class", form=".1%"),
        ),
        rows=[[pair.name, pair.predicted, pair.rows, pair.share] for pair in pairs],
    )
    matrix = _matrix([names[n] for n in shown], confusion, shown)
    return Section(
        key="classes",
        title="Classes",
        text=tuple(text),
        figures=(matrix,),
        tables=(_scores_of_classes(names, confusion), *([pair_table] if pairs else [])),
    )


def _matrix(names: Sequence[str], confusion: IntArray, shown: IntArray) -> Figure:
    rows = np.maximum(confusion.sum(axis=1), 1)[shown]
    counts = confusion[np.ix_(shown, shown)]
    shares = counts / rows[:, None]
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [label(name, 22) for name in names],
        "tickfont": {"size": 13 if len(names) <= _MOST_CELLS_NAMED else 9},
        "showgrid": False,
        "zeroline": False,
        "constrain": "domain",
    }
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": [[round(float(share), 4) for share in line] for line in shares],
        "text": [[f"{count:,}" for count in line] for line in counts.tolist()],
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorscale": [[0, "var(--heat-low)"], [1, "var(--heat-high)"]],
        "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0},
        "customdata": [[label(name, 60)] * len(names) for name in names],
        "hovertemplate": "%{customdata}<br>taken for %{x}<br>%{text} rows, %{z:.1%}<extra></extra>",
    }
    if len(names) <= _MOST_CELLS_NAMED:
        trace["texttemplate"] = "%{text}"
    right = float(counts.diagonal().sum() / max(counts.sum(), 1))
    return Figure(
        key="confusion",
        title="Confusion matrix",
        summary=f"Share of the rows of each of {len(names)} classes by the class they were given; "
        f"{right:.1%} lie on the diagonal. The tables below have the figures.",
        data=[trace],
        layout={
            "xaxis": {"title": {"text": "predicted"}, "side": "bottom", "tickangle": -45, **ticks},
            "yaxis": {"title": {"text": "class"}, "autorange": "reversed", **ticks},
            "meta": {"many": len(names) > _MOST_CELLS_NAMED},
        },
        height=max(440, min(1_000, 200 + 11 * len(names))),
        wide=True,
    )


def _label_set_section(names: Sequence[str], predictions: Predictions) -> Section:
    """Scores of each class, where rows have sets of labels."""
    label, given = predictions.label, predictions.predicted
    table = _class_table(names, *count_label_sets(given, label))
    text = (
        f"Over {len(predictions.row):,} test rows; a row has {label.sum(1).mean():.2f} labels in "
        f"the mean, {given.sum(1).mean():.2f} are predicted."
    )
    return Section(key="classes", title="Classes", text=(text,), tables=(table,))


def _scores_of_classes(names: Sequence[str], confusion: IntArray) -> Table:
    return _class_table(names, confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1))


def _class_table(
    names: Sequence[str], right: IntArray, given: IntArray, support: IntArray
) -> Table:
    columns = zip(names, *class_scores(right, given, support), support, given, strict=True)
    return Table(
        key="per-class",
        caption="Scores of each class",
        columns=(
            Column(name="class"),
            *(Column(name=name, form=".4f") for name in ("precision", "recall", "F1")),
            Column(name="rows", form=",d"),
            Column(name="predicted", form=",d"),
        ),
        rows=[[n, float(p), float(r), float(f), int(s), int(g)] for n, p, r, f, s, g in columns],
        filter="Filter classes" if len(names) > 12 else None,
    )
