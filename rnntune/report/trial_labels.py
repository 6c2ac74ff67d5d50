"""How figures write and draw a trial."""

from typing import Any

from rnntune.config.metric import Metric
from rnntune.report.content import label
from rnntune.tuning.journal import Trial

__all__ = ["SYMBOLS", "metric_name", "metric_title", "trial_text", "value_cell", "value_text"]
SYMBOLS = {
    "finished": "circle",
    "stopped": "x",
    "running": "circle-open",
    "paused": "circle-open",
    "failed": "triangle-down-open",
    "diverged": "triangle-down-open",
    "over limit": "square-open",
}
"""Plotly's marker of a trial's state."""


def metric_name(metric: Metric) -> str:
    """A metric in words."""
    return metric.name.replace("_", " ")


def metric_title(metric: Metric) -> str:
    """A metric in words, at the beginning of a sentence."""
    return metric_name(metric).capitalize()


def trial_text(trial: Trial) -> str:
    """What a figure says of a trial when a pointer rests on it."""
    lines = [f"trial {trial.number}, {trial.state}, {len(trial.history)} epochs"]
    lines += [
        f"{label(name, 40)} {label(value_text(value))}" for name, value in trial.values.items()
    ]
    return "<br>".join(lines)


def value_cell(value: Any) -> str | int | float | None:
    """A value of a setting for a table: numbers stay numbers, which sort."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return value_text(value)


def value_text(value: Any) -> str:
    """A value of a setting in a few letters."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)
