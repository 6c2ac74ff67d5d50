"""What a person sees of a search: how it stands while it runs, and the leaderboard after it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rnntune.journal import Trial, best_of, score
from rnntune.progress import duration

__all__ = ["leaderboard", "standing", "standing_line"]

_BAR_CELLS = 24


def standing_line(
    trials: Sequence[Trial], total: int, metric: str, mode: str, left_s: float | None
) -> str:
    """How a search stands, in one line."""
    counts = _counts(trials)
    best = best_of(trials, metric, mode)
    value = None if best is None else score(best, metric, mode)
    found = "none yet" if value is None else f"{_short(metric)} {value:.4f}"
    left = f"  {duration(left_s)} left" if left_s is not None else ""
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    over = f", {counts['over limit']} over the limit" if counts["over limit"] else ""
    return (
        f"{counts['over']} of {total} trials ({counts['finished']} finished, "
        f"{counts['stopped']} stopped early{failed}{over}), {counts['running']} running, "
        f"best {found}{left}"
    )


def standing(
    trials: Sequence[Trial], total: int, metric: str, mode: str, left_s: float | None
) -> RenderableType:
    """How a search stands, as a table: the best trials so far and those that run."""
    line = standing_line(trials, total, metric, mode, left_s)
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("trial", "state", "epoch", _short(metric)):
        shown.add_column(name, no_wrap=True, min_width=8)
    shown.add_column("settings", no_wrap=True, overflow="ellipsis")
    scored = [t for t in trials if t.is_over and score(t, metric, mode) is not None]
    scored.sort(key=lambda t: score(t, metric, mode) or 0.0, reverse=mode == "max")
    for trial in [*scored[:3], *(t for t in trials if not t.is_over)]:
        found = score(trial, metric, mode)
        shown.add_row(
            str(trial.number),
            trial.state,
            f"{len(trial.history)}/{trial.epochs}",
            "" if found is None else f"{found:.4f}",
            "  ".join(f"{_last(name)} {_text(v)}" for name, v in trial.values.items()),
        )
    return Group(line, shown)


def leaderboard(
    trials: pd.DataFrame, importance: Mapping[str, float], most: int = 10
) -> RenderableType:
    """The best trials of a search, and which settings mattered.

    Args:
        trials: as `TuneResult` has them, the best first.
        importance: setting to its share of the spread of scores.
        most: trials that are shown.
    """
    parts: list[RenderableType] = [_Trials(trials.head(most))]
    if len(trials) > most:
        parts.append(f"... and {len(trials) - most} more in trials.csv")
    if importance:
        parts += ["", "what mattered (share of the spread explained)", _bars(importance)]
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
        for name in ("trial", "accuracy", "F1", "loss", "epochs", "seconds", "parameters"):
            shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column("state", no_wrap=True)
        for title in settings.values():
            shown.add_column(title, justify="right", no_wrap=True)
        for row in self._rows:
            shown.add_row(
                str(row["trial"]),
                _number(row["validation_accuracy"], ".4f"),
                _number(row["validation_macro_f1"], ".4f"),
                _number(row["validation_loss"], ".4f"),
                str(row["epochs"]),
                _number(row["seconds"], ".1f"),
                _number(row["num_parameters"], ",.0f"),
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


def _bars(importance: Mapping[str, float]) -> RenderableType:
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, share in importance.items():
        cells = round(share * _BAR_CELLS)
        shown.add_row(name, f"{share:.2f}", "#" * cells)
    return shown


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    states = [trial.state for trial in trials]
    return {
        "over": sum(trial.is_over for trial in trials),
        "running": states.count("running"),
        "finished": states.count("finished"),
        "stopped": states.count("stopped"),
        "failed": states.count("failed") + states.count("diverged"),
        "over limit": states.count("over limit"),
    }


def _short(metric: str) -> str:
    return metric.removeprefix("validation_")


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _number(value: Any, form: str) -> str:
    return "" if value is None or pd.isna(value) else format(value, form)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
