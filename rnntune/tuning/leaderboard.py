"""What a person sees of a search: how it stands while it runs, and the leaderboard after it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rnntune.console import format_duration
from rnntune.tuning.aims import Aims
from rnntune.tuning.importance import undecided
from rnntune.tuning.journal import Trial, TrialState, best_score, best_trial

__all__ = ["leaderboard", "standing_line", "standing_table"]
_BAR_CELLS = 24


def standing_line(trials: Sequence[Trial], total: int, aims: Aims, left_s: float | None) -> str:
    """How a search stands, in one line."""
    counts, metric = _counts(trials), aims.first
    best = best_trial(trials, metric)
    value = None if best is None else best_score(best, metric)
    best_text = "none yet" if value is None else f"{metric.short_name} {value:.4f}"
    if aims.are_several and best is not None:
        best_text += f", {len(aims.front(trials))} on the front"
    left = f"  {format_duration(left_s)} left" if left_s is not None else ""
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    over = f", {counts['over limit']} over the limit" if counts["over limit"] else ""
    paused = f", {counts['paused']} paused" if counts["paused"] else ""
    return (
        f"{counts['over']} of {total} trials ({counts['finished']} finished, "
        f"{counts['stopped']} stopped early{failed}{over}), {counts['running']} running{paused}, "
        f"best {best_text}{left}"
    )


def standing_table(
    trials: Sequence[Trial], total: int, aims: Aims, left_s: float | None
) -> RenderableType:
    """How a search stands, as a table: the best trials so far and those that run."""
    line, metric = standing_line(trials, total, aims, left_s), aims.first
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("trial", "state", "epoch", metric.short_name):
        shown.add_column(name, no_wrap=True, min_width=8)
    shown.add_column("settings", no_wrap=True, overflow="ellipsis")
    scores = [(t, best_score(t, metric)) for t in trials if t.is_over]
    scored = [(t, metric.score(score)) for t, score in scores if score is not None]
    best = [t for t, _ in sorted(scored, key=lambda pair: -pair[1])]
    for trial in [*best[:3], *(t for t in trials if not t.is_over)]:
        score = best_score(trial, metric)
        shown.add_row(
            str(trial.number),
            str(trial.state),
            f"{len(trial.history)}/{trial.epochs}",
            "" if score is None else f"{score:.4f}",
            "  ".join(f"{_last(name)} {_text(v)}" for name, v in trial.values.items()),
        )
    return Group(line, shown)


def leaderboard(
    trials: pd.DataFrame,
    importance: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]] | None = None,
    most: int = 10,
) -> RenderableType:
    """The best trials of a search, and which settings mattered.

    Args:
        trials: as `TuneResult` has them, the best first.
        importance: setting to its share of the spread of scores.
        intervals: setting to the bounds of its share.
        most: trials that are shown; a Pareto front is shown whole.
    """
    has_front = "front" in trials
    shown = trials
    if len(trials) > most:
        on_front = trials["front"].notna() if has_front else pd.Series(False, index=trials.index)
        others = max(most - int(on_front.sum()), 0)
        shown = trials[on_front | (~on_front).cumsum().le(others)]
    parts: list[RenderableType] = [_Trials(shown)]
    if len(trials) > len(shown):
        parts.append(f"... and {len(trials) - len(shown)} more in trials.csv")
    if has_front:
        parts.append("front: N of pareto.yaml#N, which train takes as --config; *: in best.yaml")
        knee = trials[trials["is_knee"]]
        if (knee["state"] == TrialState.STOPPED.value).any():
            parts.append("* was stopped early; train --config RUN/best.yaml trains it to its end")
    if "copied" in trials:
        parts.append("settings are the last ones; those before are in trials.csv, schedule.yaml")
    if importance:
        intervals = intervals or {}
        title = "what mattered (share of the spread explained; 95% of resampled trials)"
        parts += ["", title, _bars(importance, intervals)]
        if tied := undecided(importance, intervals):
            parts.append("cannot tell which of these mattered most: " + ", ".join(tied))
    return Group(*parts)


class _Trials:
    """Trials, one in a row; where that is too wide, their settings below, a trial in a column."""

    def __init__(self, trials: pd.DataFrame) -> None:
        self._rows: list[dict[str, Any]] = trials.to_dict("records")  # type: ignore[assignment]
        names = [str(name) for name in trials.columns if "." in str(name)]
        self._settings = {name: _last(name).replace("_", " ") for name in names}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def fits(table: Table) -> bool:
            wanted = console.measure(table, options=options.update(width=1000)).maximum
            return wanted <= options.max_width

        if fits(whole := self._figures(self._settings)):
            yield whole
            return
        yield self._figures({})
        yield Text()
        numbers = range(len(self._rows), 0, -1)
        yield next(filter(fits, map(self._columns, numbers)), self._columns(1))

    def _figures(self, settings: Mapping[str, str]) -> Table:
        shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        errors = ["std. error"] if any("standard_error" in row for row in self._rows) else []
        micro = ["micro F1"] if any("validation_micro_f1" in row for row in self._rows) else []
        front = ["front"] if any("front" in row for row in self._rows) else []
        latency = ["ms"] if front else []
        scores = ("trial", *front, *micro, "accuracy", "F1", "loss", *errors)
        for name in (*scores, "epochs", "seconds", "parameters", *latency):
            shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column("state", no_wrap=True)
        for title in settings.values():
            shown.add_column(title, justify="right", no_wrap=True)
        for row in self._rows:
            shown.add_row(
                str(row["trial"]),
                *(_number(row["front"], "d") + "*" * bool(row["is_knee"]) for _ in front),
                *(_number(row.get("validation_micro_f1"), ".4f") for _ in micro),
                _number(row["validation_accuracy"], ".4f"),
                _number(row["validation_macro_f1"], ".4f"),
                _number(row["validation_loss"], ".4f"),
                *(_number(row.get("standard_error"), ".4f") for _ in errors),
                str(row["epochs"]),
                _number(row["seconds"], ".1f"),
                _number(row["num_parameters"], ",.0f"),
                *(_number(row["latency_ms"], ".3f") for _ in latency),
                row["state"],
                *(_text(row[name]) for name in settings),
            )
        return shown

    def _columns(self, most: int) -> Table:
        rows = self._rows[:most]
        shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        shown.add_column("trial", no_wrap=True)
        for row in rows:
            shown.add_column(str(row["trial"]), justify="right", no_wrap=True)
        for name, title in self._settings.items():
            shown.add_row(title, *(_text(row[name]) for row in rows))
        return shown


def _bars(
    importance: Mapping[str, float], intervals: Mapping[str, Sequence[float]]
) -> RenderableType:
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, share in importance.items():
        cells = round(min(max(share, 0.0), 1.0) * _BAR_CELLS)
        low, high = intervals.get(name, [share, share])
        bounds = f"{low:.2f} to {high:.2f}" if name in intervals else ""
        shown.add_row(name, f"{share:.2f}", bounds, "#" * cells)
    return shown


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    states = [trial.state for trial in trials]
    return {
        "over": sum(trial.is_over for trial in trials),
        "running": states.count(TrialState.RUNNING),
        "paused": states.count(TrialState.PAUSED),
        "finished": states.count(TrialState.FINISHED),
        "stopped": states.count(TrialState.STOPPED),
        "failed": states.count(TrialState.FAILED) + states.count(TrialState.DIVERGED),
        "over limit": states.count(TrialState.OVER_LIMIT),
    }


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _number(value: Any, form: str) -> str:
    return "" if value is None or pd.isna(value) else format(value, form)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
