"""What there is to see of one trained model: its epochs, and what the other modules draw."""

from collections.abc import Mapping, Sequence
from typing import Any

from rnntune.report.calibration_figures import calibration_section
from rnntune.report.class_figures import class_section
from rnntune.report.content import Column, Figure, Section, Table, counted_axis, finite
from rnntune.report.data_figures import data_section, mistakes_section, words_section
from rnntune.report.run_contents import RunContents

__all__ = ["training_sections"]


def training_sections(run: RunContents) -> list[Section]:
    """What there is to see of a run's model, as far as the run kept it."""
    sections = [_epochs(run.history)] if run.history else []
    if run.data is None:
        return sections
    if run.predictions is not None and len(run.predictions.row):
        sections += [
            class_section(run.data, run.predictions),
            calibration_section(run, run.predictions),
            mistakes_section(run.data, run.predictions),
        ]
    return [*sections, words_section(run.data), data_section(run, run.data)]


def _epochs(history: Sequence[Mapping[str, Any]]) -> Section:
    both = ("train", *(["validation"] if "validation_loss" in history[-1] else []))
    figures = [
        _curve(history, "loss", ".4f", both),
        _curve(history, "accuracy", ".4f", both),
    ]
    if "validation_micro_f1" in history[-1]:
        figures.append(_curve(history, "micro_f1", ".4f", ("validation",)))
    return Section(
        key="epochs",
        title="Epochs",
        text=(
            "Training figures are running ones: means over an epoch in which the model changes, "
            "with dropout and, for the loss, label smoothing. So validation can look better than "
            "training.",
        ),
        figures=tuple(figures),
    )


def _curve(
    history: Sequence[Mapping[str, Any]], name: str, form: str, parts: Sequence[str]
) -> Figure:
    epochs = [epoch["epoch"] for epoch in history]
    title = {"micro_f1": "micro F1"}.get(name, name)
    columns = {part: [finite(e.get(f"{part}_{name}")) for e in history] for part in parts}
    styles = {"train": ("solid", "circle"), "validation": ("dash", "diamond")}
    last = ", ".join(
        f"{part} {values[-1]:{form}}" for part, values in columns.items() if values[-1] is not None
    )
    return Figure(
        key=f"epochs-{name.replace('_', '-')}",
        title=f"{_capital(title)} by epoch",
        summary=f"{_capital(title)} over {len(epochs)} epochs; at the end {last}.",
        data=[
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": part,
                "x": epochs,
                "y": values,
                "line": {"dash": styles[part][0]},
                "marker": {"symbol": styles[part][1], "size": 7},
                "hovertemplate": f"epoch %{{x}}: %{{y:{form}}}<extra>{part}</extra>",
            }
            for part, values in columns.items()
        ],
        layout={
            "xaxis": counted_axis("epoch", len(epochs)),
            "yaxis": {"title": {"text": title}},
        },
        values=Table(
            key=f"epochs-{name.replace('_', '-')}-values",
            caption=f"{_capital(title)} by epoch",
            columns=(Column(name="epoch", form="d"), *(Column(name=n, form=form) for n in parts)),
            rows=[[e, *(columns[n][i] for n in parts)] for i, e in enumerate(epochs)],
        ),
    )


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]
