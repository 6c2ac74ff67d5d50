"""The Pareto front of a search with several aims, as a section of the page."""

from collections.abc import Sequence
from typing import Any

from rnntune.config.metric import Metric
from rnntune.report.content import Column, Figure, Section, Table
from rnntune.report.run_contents import RunContents
from rnntune.report.trial_labels import metric_name, metric_title, trial_text, value_cell
from rnntune.tuning.journal import Trial

__all__ = ["front_section"]
_FORMS = {"latency_ms": ".3f", "num_parameters": ",d"}


def front_section(run: RunContents) -> Section | None:
    """The front as a figure of the first two aims and a table of all; None: there is one aim."""
    aims = run.aims
    front = aims.front(run.trials or ())
    knee = aims.knee(front)
    if not aims.are_several or knee is None:
        return None
    names = " and ".join([", ".join(map(metric_name, aims.metrics[:-1])), _last_name(run)])
    number = front.index(knee) + 1
    text = (
        f"No other trial beats these {len(front)} in all of {names}. Number {number}, trial "
        f"{knee.number}, is the knee: the point farthest beyond the line through the extremes. "
        "Its configuration is best.yaml, its model model/. Another one is trained by "
        f"rnntune train --config {run.uri}/pareto.yaml#N."
    )
    return Section(
        key="front",
        title="Pareto front",
        text=(text,),
        figures=(_figure(run, front, knee),),
        tables=(_table(run, front, knee),),
    )


def _last_name(run: RunContents) -> str:
    return metric_name(run.aims.metrics[-1])


def _figure(run: RunContents, front: Sequence[Trial], knee: Trial) -> Figure:
    first, second = run.aims.metrics[:2]
    behind = [t for t in run.trials or () if run.aims.values(t) and t not in front]
    traces = [
        _points(run, "other trials", behind, [""] * len(behind), {"size": 7, "opacity": 0.6}),
        _points(
            run,
            "Pareto front",
            front,
            [str(number) for number in range(1, len(front) + 1)],
            {
                "size": [15 if trial is knee else 10 for trial in front],
                "symbol": ["star" if trial is knee else "circle" for trial in front],
            },
        ),
    ]
    return Figure(
        key="front-points",
        title=f"{metric_title(first)} against {metric_name(second)}",
        summary=f"{len(front)} trials of the front with their numbers; the star, number "
        f"{front.index(knee) + 1}, is the knee.",
        data=[trace for trace in traces if trace["x"]],
        layout={
            "xaxis": {"title": {"text": metric_name(second)}},
            "yaxis": {"title": {"text": metric_name(first)}},
            "hovermode": "closest",
        },
        height=360,
    )


def _points(
    run: RunContents,
    name: str,
    trials: Sequence[Trial],
    numbers: Sequence[str],
    marker: dict[str, Any],
) -> dict[str, Any]:
    first, second = run.aims.metrics[:2]
    values = [run.aims.values(trial) or {} for trial in trials]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "x": [each[second.name] for each in values],
        "y": [each[first.name] for each in values],
        "text": list(numbers),
        "textposition": "top center",
        "customdata": [trial_text(trial) for trial in trials],
        "marker": marker,
        "hovertemplate": "%{y:.4f}, %{x:,.4g}<br>%{customdata}<extra></extra>",
    }


def _table(run: RunContents, front: Sequence[Trial], knee: Trial) -> Table:
    settings = list(dict.fromkeys(name for trial in front for name in trial.values))
    rows: list[list[Any]] = []
    for number, trial in enumerate(front, 1):
        values = run.aims.values(trial) or {}
        rows.append(
            [
                number,
                trial.number,
                "knee" if trial is knee else "",
                *(values[name] for name in run.aims.names),
                *(value_cell(trial.values.get(name)) for name in settings),
            ]
        )
    return Table(
        key="front-table",
        caption="The Pareto front; numbers as in pareto.yaml#N",
        columns=(
            Column(name="number", form="d"),
            Column(name="trial", form="d"),
            Column(name="note"),
            *(_column(metric) for metric in run.aims.metrics),
            *(Column(name=name, form=".3g") for name in settings),
        ),
        rows=rows,
    )


def _column(metric: Metric) -> Column:
    return Column(name=metric_name(metric), form=_FORMS.get(metric.name, ".4f"))
