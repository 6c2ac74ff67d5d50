"""What a model read: its surest mistakes, words of the classes, lengths and splits."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnntune.data.task import label_names
from rnntune.report.content import Column, Figure, Section, Table
from rnntune.report.run_contents import DataFigures, Predictions, RunContents

__all__ = ["data_section", "mistakes_section", "words_section"]
_MOST_LENGTHS = 50
_MOST_MISTAKES = 50
_LONGEST_TEXT = 700


def mistakes_section(data: DataFigures, predictions: Predictions) -> Section:
    """The texts of which the model was surest and wrong."""
    numbers = [n for n, text in enumerate(predictions.text) if text is not None]
    numbers.sort(key=lambda n: -float(predictions.calibrated[n]))
    wrong = int((~predictions.right).sum())
    labels, given = (
        label_names(column, data.classes) for column in (predictions.label, predictions.predicted)
    )
    rows: list[list[Any]] = [
        [
            _cut(predictions.text[n] or ""),
            _shown(labels[n]),
            _shown(given[n]),
            float(predictions.calibrated[n]),
            int(predictions.row[n]) + 1,
        ]
        for n in numbers[:_MOST_MISTAKES]
    ]
    what = "a wrong class" if predictions.label.ndim == 1 else "a wrong set of labels"
    return Section(
        key="mistakes",
        title="Surest mistakes",
        text=(
            f"{wrong:,} of {len(predictions.row):,} test rows were given {what}. Texts are "
            "the tokens as the model read them; <unk> is a word that its vocabulary lacks.",
        ),
        tables=(
            Table(
                key="mistakes-table",
                caption=f"The {len(rows)} mistakes of which the model was surest",
                columns=(
                    Column(name="text"),
                    Column(name="class"),
                    Column(name="predicted"),
                    Column(name="probability", form=".4f"),
                    Column(name="row", form="d"),
                ),
                rows=rows,
                filter="Filter mistakes",
            ),
        )
        if rows
        else (),
    )


def _shown(label: str | list[str]) -> str:
    return label if isinstance(label, str) else ", ".join(label) or "none"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def words_section(data: DataFigures) -> Section:
    """The words that tell the classes apart."""
    known = [
        [name, ", ".join(words)]
        for name, words in zip(data.classes, data.telling_words, strict=False)
    ]
    return Section(
        key="words",
        title="Words of the classes",
        text=(
            "Words that are much more frequent in a class than in the others, in training rows "
            "(log-odds with a Dirichlet prior, more than three standard deviations). They describe "
            "the data; what the network looks at in a text may be something else.",
        )
        if known
        else ("Left out: too many classes to count every word in each.",),
        tables=(
            Table(
                key="words-table",
                caption="The most telling words of each class",
                columns=(Column(name="class"), Column(name="words")),
                rows=known,
                filter="Filter classes" if len(known) > 12 else None,
            ),
        )
        if known
        else (),
    )


def data_section(run: RunContents, data: DataFigures) -> Section:
    """Lengths, padding, splits and the rows of each class."""
    splits = {name: split for name, split in data.splits.items() if split.rows}
    longest = max(len(split.length_rows) for split in splits.values())
    padding = (run.result or {}).get("padding_fraction")
    text = f"{data.num_words:,} words in the vocabulary."
    if padding is not None:
        text += f" {padding:.2%} of the cells of training batches were padding."
    width = max(1, -(-longest // _MOST_LENGTHS))
    starts = list(range(0, longest, width))
    shares = {}
    for name, split in splits.items():
        rows = np.zeros(len(starts) * width)
        rows[: len(split.length_rows)] = split.length_rows
        shares[name] = (rows.reshape(-1, width).sum(axis=1) / split.rows).round(5).tolist()
    means = ", ".join(f"{name} {s.tokens / s.rows:.1f}" for name, s in splits.items())
    figure = Figure(
        key="lengths",
        title="Lengths of texts",
        summary=f"Share of the rows by number of tokens; the means are {means}.",
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": [start + (width - 1) / 2 for start in starts],
                "y": values,
                "line": {"shape": "hvh", "dash": dash},
                "hovertemplate": f"%{{x:.0f}} tokens: %{{y:.2%}}<extra>{name}</extra>",
            }
            for (name, values), dash in zip(shares.items(), ("solid", "dash", "dot"), strict=False)
        ],
        layout={
            "xaxis": {"title": {"text": "tokens in a text"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "share of the rows"}, "tickformat": ".0%"},
        },
        values=Table(
            key="lengths-values",
            caption="Share of the rows by length",
            columns=(
                Column(name="tokens from", form="d"),
                *(Column(name=name, form=".2%") for name in shares),
            ),
            rows=[[start, *(v[n] for v in shares.values())] for n, start in enumerate(starts)],
        ),
        wide=True,
    )
    return Section(
        key="data",
        title="Data",
        text=(text,),
        figures=(figure,),
        tables=(
            _split_table(data, list(splits)),
            _class_rows(data, list(splits)),
        ),
    )


def _split_table(data: DataFigures, names: Sequence[str]) -> Table:
    splits = [data.splits[name] for name in names]
    return Table(
        key="splits",
        caption="Splits",
        columns=(
            Column(name="split"),
            Column(name="rows", form=",d"),
            Column(name="tokens", form=",d"),
            Column(name="mean length", form=".1f"),
            Column(name="known tokens", form=".2%"),
            Column(name="rows cut", form=",d"),
        ),
        rows=[
            [name, s.rows, s.tokens, s.tokens / s.rows, s.known / max(s.tokens, 1), s.cut]
            for name, s in zip(names, splits, strict=True)
        ],
    )


def _class_rows(data: DataFigures, names: Sequence[str]) -> Table:
    return Table(
        key="class-rows",
        caption="Rows of each class",
        columns=(Column(name="class"), *(Column(name=name, form=",d") for name in names)),
        rows=[
            [name, *(data.splits[split].class_rows[number] for split in names)]
            for number, name in enumerate(data.classes)
        ],
        filter="Filter classes" if len(data.classes) > 12 else None,
    )
