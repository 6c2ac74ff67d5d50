"""A trial on folds: one configuration trained once a fold, scored by the mean over the folds."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.data.batching import EncodedRows
from rnntune.data.folds import assign_folds, split_fold
from rnntune.data.loader import Shard, scoring_batches
from rnntune.data.prepared import ShardRef
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.worker import build_model, train_batches
from rnntune.tuning.constraints import ModelSize
from rnntune.tuning.reports import EpochReport, TrialSpec
from rnntune.tuning.trial_loop import Rank, TrialContext, report_epoch, trial_dataset

if TYPE_CHECKING:
    from rnntune.training.checkpoint import State

__all__ = ["fit_folds", "mean_of_folds"]
_SUMS = {"step", "rows", "epoch_rows", "train_s", "validation_s", "validation_rows"}


def fit_folds(
    context: TrialContext,
    spec: TrialSpec,
    size: ModelSize,
    rank: Rank,
    report: Callable[[EpochReport], None],
) -> None:
    """Train a trial once a fold of the training plus validation rows.

    The folds take turns after each epoch, so that an epoch's report is the mean over all of them
    and a scheduler can stop the trial as any other. Nothing is kept to go on from: a trial that
    was interrupted starts anew and reports the same.

    Args:
        context: what trials have in common.
        spec: the trial.
        size: of its model.
        rank: this process, which is the only one.
        report: called with the mean of each epoch.

    Raises:
        DivergedError: a gradient that is not finite, in any fold.
    """
    from rnntune.training.threads import tune_threads

    config = context.config.override(spec.values)
    assert config.tune.folds is not None
    feed = trial_dataset(context, spec.values)
    rows = EncodedRows.concatenate(
        [part.load() for split in ("train", "validation") for part in feed.parts[split]]
    )
    folds = assign_folds(rows, config.tune.folds, config.data.seed)
    tune_threads(config, _new_model(config, feed, rank), rank.device, rank.num_cpus)
    begun = time.time()
    trainings = [
        _train_fold(config, feed, *split_fold(rows, folds, fold), rank)
        for fold in range(config.tune.folds)
    ]
    for training in trainings:
        next(training)  # where it begins
    scores: list[float] = []
    metric = Metric(config.tune.metrics[0])
    for epoch in range(config.train.epochs):
        states = [next(training) for training in trainings]
        means = mean_of_folds([state.history[-1] for state in states], metric.name)
        scores.append(metric.score(means[metric.name]))
        best = scores.index(max(scores))
        patience = config.train.patience
        last = epoch + 1 == config.train.epochs or (patience > 0 and epoch - best >= patience)
        report_epoch(report, size, means, last=last, begun=begun)
        if last:
            return


def _new_model(config: Config, feed: SharedDataset, rank: Rank) -> Any:
    import torch

    torch.manual_seed(config.train.seed)
    return build_model(config, feed, rank.device)


def _train_fold(
    config: Config,
    feed: SharedDataset,
    train: EncodedRows,
    validation: EncodedRows,
    rank: Rank,
) -> Iterator["State"]:
    from rnntune.training.loop import fit_epochs

    batches = train_batches(
        config, [ShardRef(num_rows=len(train), uri="", ref=train)], rank.device, 0, 1
    )
    held_out = [Shard(num_rows=len(validation), load=lambda: validation)]
    return fit_epochs(
        _new_model(config, feed, rank),
        batches,
        lambda: rank.heartbeat.follow(scoring_batches(held_out, padding=config.model.packed)),
        dataclasses.replace(config.train, patience=0),  # that of the mean counts
        device=rank.device,
        report=lambda _: None,
        metric=config.tune.metrics[0],
        class_weights=feed.class_weights,
        on_batch=rank.heartbeat.beat,
    )


def mean_of_folds(folds: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """The metrics of an epoch over folds: means of scores, sums of rows and seconds.

    Args:
        folds: metrics of each, at least two.
        metric: whose standard error is added, as `standard_error`.
    """
    means: dict[str, Any] = dict(folds[0])
    for name, value in folds[0].items():
        if isinstance(value, float) or name in _SUMS:
            total = sum(fold[name] for fold in folds)
            means[name] = total if name in _SUMS else total / len(folds)
    values = [fold[metric] for fold in folds]
    means["standard_error"] = (
        statistics.stdev(values) / math.sqrt(len(values)) if np.isfinite(values).all() else None
    )
    return means
