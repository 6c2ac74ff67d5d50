"""Parallel coordinates: an axis for each setting and one for the score, a line for each trial."""

import math
from collections.abc import Sequence
from typing import Any

from rnntune.config.metric import Metric
from rnntune.report.content import Figure, label
from rnntune.report.trial_labels import metric_name
from rnntune.tuning.journal import Trial

__all__ = ["parallel_coordinates"]
_NUM_SHADES = 5


def parallel_coordinates(
    names: Sequence[str], scored: Sequence[tuple[Trial, float]], metric: Metric
) -> Figure:
    """Parallel coordinates of trials; the better a trial, the stronger its line.

    Args:
        names: the settings that vary.
        scored: trials with their scores.
        metric: what the scores are.
    """
    axes = [_positions([trial.values.get(name) for trial, _ in scored]) for name in names]
    titles = [name.rpartition(".")[2].replace("_", " ") for name in names]
    axes.append(_positions([score for _, score in scored]))
    titles.append(metric_name(metric))
    ranked = sorted(range(len(scored)), key=lambda n: metric.score(scored[n][1]))
    traces: list[dict[str, Any]] = []
    for rank, n in enumerate(ranked):
        shade = rank * _NUM_SHADES // len(ranked)
        trial, score = scored[n]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": list(range(len(axes))),
                "y": [positions[n] for positions, _ in axes],
                "line": {
                    "color": f"var(--shade-{shade + 1})",
                    "width": 1 + shade / 2,
                },
                "showlegend": False,
                "name": f"trial {trial.number}",
                "hovertemplate": f"trial {trial.number}, {score:.4f}<extra></extra>",
            }
        )
    marks = [
        {
            "x": x,
            "y": y,
            "text": text,
            "showarrow": False,
            "xanchor": "left",
            "xshift": 3,
            "bgcolor": "var(--card)",
            "opacity": 0.9,
            "font": {"size": 11},
        }
        for x, (_, marks) in enumerate(axes)
        for y, text in marks
    ]
    return Figure(
        key="parallel",
        title="Parallel coordinates",
        summary=f"A line for each of {len(scored)} trials through its settings to its score; "
        "the table of trials has the figures.",
        data=traces,
        layout={
            "xaxis": {
                "tickmode": "array",
                "tickvals": list(range(len(axes))),
                # A word a line: side by side they have room on a narrow page, too.
                "ticktext": [label(title, 24).replace(" ", "<br>") for title in titles],
                "tickangle": 0,
                "range": [-0.15, len(axes) - 0.45],
                "showgrid": True,
                "zeroline": False,
            },
            "yaxis": {"visible": False, "range": [-0.06, 1.06]},
            "hovermode": "closest",
            "annotations": marks,
        },
        height=420,
        wide=True,
        min_width=90 * len(axes),
    )


def _positions(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1 of values on their axis, and the marks of the axis.

    Numbers of a wide range are drawn by their logarithm; of few distinct values each has a mark.
    """
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numeric:
        values = [str(v).lower() if isinstance(v, bool) else str(v) for v in values]
    distinct: list[Any] = sorted(set(values))
    if len(distinct) == 1:
        return [0.5] * len(values), [(0.5, _mark(distinct[0]))]
    if not numeric or len(distinct) <= 5:
        height = {value: n / (len(distinct) - 1) for n, value in enumerate(distinct)}
        marks = [(height[value], _mark(value)) for value in distinct]
        return [height[v] for v in values], marks
    low, high = distinct[0], distinct[-1]
    is_log = low > 0 and high / low >= 8

    def at(value: float) -> float:
        if is_log:
            return math.log(value / low) / math.log(high / low)
        return float((value - low) / (high - low))

    middle = math.sqrt(low * high) if is_log else (low + high) / 2
    return [at(v) for v in values], [(at(v), _mark(v)) for v in (low, middle, high)]


def _mark(value: Any) -> str:
    return label(f"{value:.3g}" if isinstance(value, float) else value, 14)
