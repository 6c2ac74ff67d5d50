"""What was found in data and what came of a run, as tables and plain values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from rnntune import cache, cluster, dataset
from rnntune.batching import plan_batches
from rnntune.config import Config
from rnntune.progress import Terminal, duration

__all__ = ["data_table", "describe", "interval", "run_table"]


def describe(config: Config, terminal: Terminal, *, verbose: bool = False) -> dict[str, Any]:
    """Prepare the data of a configuration and say what it holds.

    Returns:
        By split: rows, tokens, lengths, coverage by the vocabulary (0 to 1), classes; for the
        training rows the padding fraction of an epoch's batches too.

    Raises:
        DataError: the data cannot be used.
    """
    with cluster.connect(verbose=verbose):
        prepared = dataset.prepare(config.data, terminal.line, require_test=False)
    train = prepared.splits["train"]
    lengths = np.repeat(np.arange(len(train.length_rows)), train.length_rows).astype(np.int32)
    plan = plan_batches(lengths, config.batching, seed=config.train.seed, epoch=0)
    padded, cells = plan.padding(lengths)
    return {
        "place": prepared.place,
        "from_cache": prepared.from_cache,
        "num_skipped": prepared.num_skipped,
        "problems": list(prepared.problems),
        "num_words": prepared.num_words,
        "rows_per_s": round(prepared.rows_per_s, 1),
        "padding_fraction": padded / max(cells, 1),
        "num_batches": len(plan),
        "splits": {
            name: _described(split, prepared.classes) for name, split in prepared.splits.items()
        },
    }


def _described(split: cache.Split, classes: tuple[str, ...]) -> dict[str, Any]:
    lengths = np.repeat(np.arange(len(split.length_rows)), split.length_rows)
    some = len(lengths) > 0
    return {
        "rows": split.num_rows,
        "tokens": split.num_tokens,
        "cut": split.num_cut,
        "coverage": split.num_known / max(split.num_tokens, 1),
        "length_mean": float(lengths.mean()) if some else 0.0,
        "length_p99": int(np.percentile(lengths, 99)) if some else 0,
        "length_max": int(lengths.max()) if some else 0,
        "classes": dict(zip(classes, split.class_rows, strict=True)),
    }


def data_table(found: Mapping[str, Any]) -> Table:
    """What `describe` found, for people."""
    table = Table(
        title=f"{found['num_words']:,} words, {found['num_batches']:,} batches an epoch, "
        f"{found['padding_fraction']:.2%} padding, {found['num_skipped']:,} rows left out",
        caption=found["place"] + (" (from the cache)" if found["from_cache"] else ""),
    )
    for column in ("split", "rows", "tokens", "known", "cut", "mean", "99%", "longest", "classes"):
        table.add_column(column, justify="left" if column in ("split", "classes") else "right")
    for name, split in found["splits"].items():
        table.add_row(
            name,
            f"{split['rows']:,}",
            f"{split['tokens']:,}",
            f"{split['coverage']:.2%}",
            f"{split['cut']:,}",
            f"{split['length_mean']:.1f}",
            str(split["length_p99"]),
            str(split["length_max"]),
            ", ".join(f"{label} {rows:,}" for label, rows in split["classes"].items()),
        )
    return table


def interval(accuracy: float, rows: int) -> tuple[float, float]:
    """Wilson's interval of 95% for an accuracy that was measured on some rows."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    found = binomtest(round(accuracy * rows), rows).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def run_table(place: str, result: Mapping[str, Any]) -> Table:
    """The result of a run, for people."""
    table = Table(show_header=False, title=place)
    table.add_column()
    table.add_column()
    low, high = interval(result["test_accuracy"], result["test_rows"])
    text = f"{result['test_accuracy']:.4f} on {result['test_rows']:,} rows"
    table.add_row("test accuracy", f"{text} (95%: {low:.4f} to {high:.4f})")
    table.add_row("test macro F1", f"{result['test_macro_f1']:.4f}")
    if result.get("validation_accuracy") is not None:
        table.add_row("validation accuracy", f"{result['validation_accuracy']:.4f}")
    table.add_row("parameters", f"{result['num_parameters']:,}")
    if "num_trials" in result:
        table.add_row("trials", f"{result['num_trials']}, {result['num_errors']} failed")
    table.add_row("training", f"{result['train_rows_per_s']:,.0f} rows/s")
    if (padding := result["padding_fraction"]) is not None:
        table.add_row("padding", f"{padding:.2%}")
    seconds = result["seconds"]
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total")
    table.add_row("time", f"{duration(seconds['total'])} ({parts})")
    table.add_row("model", f"{place}/model")
    return table
