"""What preparation found in data, as plain values."""

from typing import Any

import numpy as np

from rnntune.config.auto import Choice, DataFacts, resolve
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.batching import plan_batches
from rnntune.data.diagnosis import diagnose_data
from rnntune.data.prepared import PreparedDataset, Split
from rnntune.data.preprocess import prepare
from rnntune.errors import ConfigError

__all__ = ["data_facts", "describe_data", "resolve_config"]


def data_facts(prepared: PreparedDataset) -> DataFacts:
    """What settings that are `auto` depend on."""
    train = prepared.splits["train"]
    return DataFacts(
        num_rows=train.num_rows,
        class_rows=train.class_rows,
        length_rows=train.length_rows,
        num_words=prepared.num_trained_words,
        vector_coverage=prepared.vector_coverage,
        mean_letters=prepared.mean_letters,
        multi_label=prepared.task.is_multi_label,
    )


def resolve_config(config: Config, prepared: PreparedDataset) -> tuple[Config, tuple[Choice, ...]]:
    """Choose every setting that is `auto` by what was prepared.

    Returns:
        The configuration without `auto`, and what was chosen.

    Raises:
        ConfigError: a metric that rows of one label do not have.
    """
    _refuse_metrics(config, prepared)
    of_data = {choice.name: choice.value for choice in prepared.choices}
    resolved, choices = resolve(config.override(of_data), data_facts(prepared))
    return resolved, (*prepared.choices, *choices)


def _refuse_metrics(config: Config, prepared: PreparedDataset) -> None:
    """Refuse a metric that there is not."""
    if prepared.task.is_multi_label:
        return
    for group, names in (("train", (config.train.metric,)), ("tune", config.tune.metrics)):
        if "validation_micro_f1" in names:
            raise ConfigError(
                f"{group}.metric: validation_micro_f1 is for rows of several labels; with one "
                "label a row it is validation_accuracy"
            )


def describe_data(config: Config, terminal: Terminal, *, verbose: bool = False) -> dict[str, Any]:
    """Prepare the data of a configuration and say what it holds.

    Returns:
        By split: rows, tokens, lengths, coverage by the vocabulary (0 to 1), classes; for the
        training rows the padding fraction of an epoch's batches too.

    Raises:
        DataError: the data cannot be used.
    """
    prepared = prepare(config.data, terminal.line, require_test=False, verbose=verbose)
    config, choices = resolve_config(config, prepared)
    warnings = diagnose_data(prepared)
    terminal.warn(warnings)
    train = prepared.splits["train"]
    lengths = np.repeat(np.arange(len(train.length_rows)), train.length_rows).astype(np.int32)
    plan = plan_batches(lengths, config.batching, seed=config.train.seed, epoch=0)
    padded, cells = plan.padding(lengths)
    return {
        "uri": prepared.uri,
        "from_cache": prepared.from_cache,
        "num_skipped": prepared.num_skipped,
        "problems": list(prepared.problems),
        "task": prepared.task.value,
        "num_words": prepared.num_words,
        "rows_per_s": round(prepared.rows_per_s, 1),
        "padding_fraction": padded / max(cells, 1),
        "num_batches": len(plan),
        "warnings": warnings,
        "auto": {choice.name: [choice.value, choice.reason] for choice in choices},
        "splits": {
            name: _described(split, prepared.classes) for name, split in prepared.splits.items()
        },
    }


def _described(split: Split, classes: tuple[str, ...]) -> dict[str, Any]:
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
