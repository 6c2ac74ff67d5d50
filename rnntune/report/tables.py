"""What was found in data and what came of a run, as tables of the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rnntune.console import format_duration, printable

__all__ = ["COMPARED", "data_table", "interval", "run_table"]
COMPARED = {"best_single": "best trial", "ensemble": "ensemble", "distilled": "distilled model"}
"""Models whose scores a search with an ensemble has in its result, and what they are called."""
_MOST_CLASSES = 20
_FIGURES = {
    "rows": lambda split: f"{split['rows']:,}",
    "tokens": lambda split: f"{split['tokens']:,}",
    "known tokens": lambda split: f"{split['coverage']:.2%}",
    "rows cut": lambda split: f"{split['cut']:,}",
    "mean length": lambda split: f"{split['length_mean']:.1f}",
    "99% up to": lambda split: str(split["length_p99"]),
    "longest": lambda split: str(split["length_max"]),
}


def data_table(found: Mapping[str, Any]) -> RenderableType:
    """What `describe` found, for people: a column for each split, then the classes."""
    splits = found["splits"]
    figures = _split_table("", splits)
    for name, figure in _FIGURES.items():
        figures.add_row(name, *map(figure, splits.values()))
    return Group(
        Text(
            f"{found['num_words']:,} words, {found['num_batches']:,} batches an epoch, "
            f"{found['padding_fraction']:.2%} padding, {found['num_skipped']:,} rows left out"
        ),
        figures,
        *_classes([split["classes"] for split in splits.values()], splits),
        Text(printable(found["uri"]) + (" (from the cache)" if found["from_cache"] else "")),
    )


def _split_table(first: str, splits: Mapping[str, Any]) -> Table:
    table = Table(first)
    for name in splits:
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    return table


def _classes(rows: Sequence[Mapping[str, int]], splits: Mapping[str, Any]) -> list[RenderableType]:
    """Rows of each class; of many classes the largest and the smallest."""
    names = list(rows[0])
    hidden = 0
    if len(names) > _MOST_CLASSES:
        names.sort(key=lambda name: -rows[0][name])
        half = _MOST_CLASSES // 2
        hidden = len(names) - 2 * half
        names = names[:half] + names[-half:]
    table = _split_table("class", splits)
    for number, name in enumerate(names):
        if hidden and number == len(names) // 2:
            table.add_row(f"... {hidden:,} more classes ...")
        table.add_row(Text(printable(name)), *(f"{split[name]:,}" for split in rows))
    return [table]


def interval(accuracy: float, rows: int) -> tuple[float, float]:
    """Wilson's interval of 95% for an accuracy that was measured on some rows."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    found = binomtest(round(accuracy * rows), rows).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def run_table(uri: str, result: Mapping[str, Any], report: str | None = None) -> RenderableType:
    """The result of a run, for people.

    Args:
        uri: the run folder.
        result: the content of its `result.json`.
        report: path or URI of its page; None: there is none.
    """
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    low, high = interval(result["test_accuracy"], result["test_rows"])
    text = f"{result['test_accuracy']:.4f} on {result['test_rows']:,} rows"
    name = "accuracy"
    if "test_micro_f1" in result:
        name = "all labels right"
        table.add_row("test micro F1", f"{result['test_micro_f1']:.4f}")
    table.add_row(f"test {name}", f"{text} (95%: {low:.4f} to {high:.4f})")
    table.add_row("test macro F1", f"{result['test_macro_f1']:.4f}")
    if result.get("validation_micro_f1") is not None:
        table.add_row("validation micro F1", f"{result['validation_micro_f1']:.4f}")
    if result.get("validation_accuracy") is not None:
        table.add_row(f"validation {name}", f"{result['validation_accuracy']:.4f}")
    if result.get("refit"):
        rows = f"{result['train_rows']:,} training plus validation rows"
        table.add_row("trained on", rows)
    table.add_row("parameters", f"{result['num_parameters']:,}")
    for key, title in COMPARED.items():
        if key in result:
            table.add_row(title, _compared(result[key]))
    if "front" in result:
        table.add_row("Pareto front", _front(result))
    if "num_trials" in result:
        table.add_row("trials", f"{result['num_trials']}, {result['num_errors']} failed")
    table.add_row("training", f"{result['train_rows_per_s']:,.0f} rows/s")
    if (padding := result["padding_fraction"]) is not None:
        table.add_row("padding", f"{padding:.2%}")
    seconds = result["seconds"]
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total")
    table.add_row("time", f"{format_duration(seconds['total'])} ({parts})")
    paths = [f"model   {uri}/model"]
    if "distilled" in result:
        paths.append(f"ensemble {uri}/ensemble")
    if "front" in result:
        paths.append(f"front   {uri}/pareto.yaml")
    if report is not None:
        paths.append(f"report  {report}")
    return Group(table, *(Text(printable(path)) for path in paths))  # paths to copy: in one line


def _compared(scores: Mapping[str, Any]) -> str:
    """Scores of one model among those that are compared."""
    name = "micro F1" if "test_micro_f1" in scores else "accuracy"
    key = name.lower().replace(" ", "_")
    validation = scores.get(f"validation_{key}")
    told = "" if validation is None else f", validation {validation:.4f}"
    of = f", {len(scores['members'])} models" if "members" in scores else ""
    return f"test {name} {scores[f'test_{key}']:.4f}{told}{of}"


def _front(result: Mapping[str, Any]) -> str:
    """How many trials are on the front, and the values of the one that was chosen."""
    front = result["front"]
    chosen: Mapping[str, float] = next(
        (p for p in front if p["trial"] == result.get("best_trial")), {}
    )
    values = ", ".join(
        f"{name.removeprefix('validation_').replace('_', ' ')} {_value(chosen[name])}"
        for name in result.get("metrics") or ()
        if name in chosen
    )
    return f"{len(front)} trials; the knee: {values}"


def _value(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
