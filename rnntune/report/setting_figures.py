"""What the settings of a search did to its score."""

from collections.abc import Mapping, Sequence
from typing import Any

from rnntune.report.content import Figure, Section, label
from rnntune.report.parallel import parallel_coordinates
from rnntune.report.run_contents import RunContents
from rnntune.report.trial_labels import metric_name, metric_title, trial_text, value_text
from rnntune.tuning.importance import undecided
from rnntune.tuning.journal import Trial

__all__ = ["setting_section"]


def setting_section(run: RunContents, scored: Sequence[tuple[Trial, float]]) -> Section:
    """Parallel coordinates, importance, and a slice for each setting that varies."""
    names = list(dict.fromkeys(name for trial, _ in scored for name in trial.values))
    varied = [n for n in names if len({str(trial.values.get(n)) for trial, _ in scored}) > 1]
    importance: Mapping[str, float] = (run.result or {}).get("importance") or {}
    figures = []
    if len(varied) > 1:
        figures.append(parallel_coordinates(varied, scored, run.metric))
    if importance:
        intervals = (run.result or {}).get("importance_interval") or {}
        figures.append(_importance(importance, intervals))
    figures += [_slice(run, name, scored) for name in varied]
    return Section(
        key="settings",
        title="Settings",
        text=("Each point or line is a trial; trials that were stopped early count with their "
              "best epoch.", *_changes(scored)),
        figures=tuple(figures),
    )  # fmt: skip


def _changes(scored: Sequence[tuple[Trial, float]]) -> tuple[str, ...]:
    if not any(trial.has_changed for trial, _ in scored):
        return ()
    return (
        "The settings of a population's members changed in training: a point is where they ended. "
        "schedule.yaml has those of the best member by epoch.",
    )


def _importance(
    importance: Mapping[str, float], intervals: Mapping[str, Sequence[float]]
) -> Figure:
    tied = undecided(importance, intervals)
    certain = f" Cannot tell which of {', '.join(tied)} mattered most." if tied else ""
    names = [name for name, _ in sorted(importance.items(), key=lambda item: item[1])]
    return Figure(
        key="importance",
        title="What mattered",
        summary="Share of the spread of scores that a setting explains (fANOVA): "
        + ", ".join(f"{name} {importance[name]:.0%}" for name in reversed(names))
        + ". Lines: 95% of resampled trials."
        + certain,
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "x": [importance[name] for name in names],
                "y": [label(name, 40) for name in names],
                "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
                **({"error_x": _error_bars(names, importance, intervals)} if intervals else {}),
            }
        ],
        layout={
            "xaxis": {"tickformat": ".0%", "rangemode": "tozero"},
            "yaxis": {"type": "category", "automargin": True},
        },
        height=120 + 28 * len(names),
        wide=True,
    )


def _error_bars(
    names: Sequence[str],
    importance: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    bounds = [(importance[name], *intervals.get(name, (importance[name],) * 2)) for name in names]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(high - share, 0.0) for share, _, high in bounds],
        "arrayminus": [max(share - low, 0.0) for share, low, _ in bounds],
    }


def _slice(run: RunContents, name: str, scored: Sequence[tuple[Trial, float]]) -> Figure:
    values = [trial.values.get(name) for trial, _ in scored]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    is_range = len(numbers) == len(values)
    axis: dict[str, Any] = {"title": {"text": label(name, 40)}}
    if not is_range:
        axis["type"] = "category"
    elif min(numbers) > 0 and max(numbers) / min(numbers) >= 8:
        axis["type"] = "log"
    return Figure(
        key=f"slice-{name.replace('.', '-')}",
        title=name,
        summary=f"{metric_title(run.metric)} by {name}.",
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "x": values if is_range else [label(value_text(v)) for v in values],
                "y": [score for _, score in scored],
                "text": [trial_text(trial) for trial, _ in scored],
                "marker": {"size": 8, "opacity": 0.75},
                "hovertemplate": "%{y:.4f}<br>%{text}<extra></extra>",
            }
        ],
        layout={"xaxis": axis, "yaxis": {"title": {"text": metric_name(run.metric)}}},
        height=260,
    )
