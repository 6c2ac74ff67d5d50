"""What a search will do, before it does any of it: data, trials at once, resources, memory."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from rnntune.cluster.resources import Resources, cluster_resources
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.prepared import PreparedDataset
from rnntune.data.preprocess import data_fingerprint, prepare
from rnntune.data.sharing import fits_object_store
from rnntune.errors import DataError
from rnntune.training.placement import worker_resources
from rnntune.training.shared_dataset import report_skipped_rows
from rnntune.tuning.sampler import count_trials
from rnntune.tuning.space import Space
from rnntune.tuning.trial_loop import dataset_key

__all__ = [
    "SearchPlan",
    "check_folds",
    "combined_fingerprint",
    "median_length",
    "place_trials",
    "plan_search",
    "prepare_all",
    "search_fingerprint",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search will do.

    Args:
        num_trials: configurations to try.
        space_size: configurations in the space; None: without end.
        settings: searched settings and their distributions.
        max_concurrent: trials that run at the same time.
        workers: of a trial.
        resources: of a worker.
        use_gpu: whether workers train on GPUs.
        epochs: most epochs of a trial.
        train_rows: training rows of an epoch, of all folds together.
        folds: that a trial is trained on; None: on the usual split.
        object_store_bytes: memory of the object store that the shared rows take.
        object_store_total_bytes: what a node has of it.
    """

    num_trials: int
    space_size: int | None
    settings: Mapping[str, str]
    max_concurrent: int
    workers: int
    resources: Mapping[str, float]
    use_gpu: bool
    epochs: int
    train_rows: int
    folds: int | None = None
    object_store_bytes: int
    object_store_total_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {**dataclasses.asdict(self), "settings": dict(self.settings)}

    def table(self) -> Text:
        """The plan as text for a person."""
        return Text("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The plan, line by line."""
        size = "without end" if self.space_size is None else f"{self.space_size:,} configurations"
        each = ", ".join(f"{amount:g} {name}" for name, amount in self.resources.items())
        workers = f"{self.workers} workers with {each} each" if self.workers > 1 else each
        return [
            f"space: {len(self.settings)} settings, {size}",
            *(f"  {name}: {text}" for name, text in self.settings.items()),
            f"trials: {self.num_trials}, {self.max_concurrent} at once, {workers} a trial",
            f"training: at most {self.epochs} epochs of {self.train_rows:,} rows a trial"
            + (f", in {self.folds} folds" if self.folds else ""),
            f"object store: {self.object_store_bytes / 1e6:,.1f} MB of "
            f"{self.object_store_total_bytes / 1e6:,.0f} MB on each node",
        ]


def place_trials(
    config: Config, space: Space, cluster: Resources
) -> tuple[int, bool, dict[str, float]]:
    """How many trials run at once, whether on GPUs, and the resources of one worker.

    An autoscaler is asked for as many as `tune.max_concurrent_trials` says.

    Raises:
        ClusterError: the cluster cannot hold one trial, with the numbers.
    """
    gpu, resources = worker_resources(config, cluster)
    room = cluster.require(config.tune.workers_per_trial, resources)
    max_concurrent: float = config.tune.max_concurrent_trials or math.inf
    if math.isinf(max_concurrent) or not cluster.autoscales:
        max_concurrent = min(max_concurrent, max(1, room // config.tune.workers_per_trial))
    max_concurrent = min(max_concurrent, count_trials(config.tune, space))
    return int(max_concurrent), gpu, resources


def prepare_all(config: Config, space: Space, terminal: Terminal) -> dict[str, PreparedDataset]:
    """Prepared data for every choice of the searched `data` settings, by its key.

    Raises:
        DataError: there is no such data, or it has no validation rows.
    """
    by_key = {}
    for values in space.finite("data."):
        changed = config.override(values)
        prepared = prepare(changed.data, terminal.line)
        report_skipped_rows(prepared, terminal)
        if not prepared.splits["validation"].num_rows:
            raise DataError(
                f"{config.data.source}: no validation rows to compare trials on; "
                "set data.validation_fraction"
            )
        check_folds(changed, prepared)
        by_key[dataset_key(values)] = prepared
    return by_key


def check_folds(config: Config, prepared: PreparedDataset) -> None:
    """Make sure that every fold of a trial can hold rows of every class.

    Raises:
        DataError: a class has fewer rows than there are folds.
    """
    folds = config.tune.folds
    if folds is None:
        return
    splits = (prepared.splits[name].class_rows for name in ("train", "validation"))
    rows, name = min(zip(map(sum, zip(*splits, strict=True)), prepared.classes, strict=True))
    if rows < folds:
        remedy = f"set tune.folds to at most {rows}" if rows > 1 else "leave tune.folds out"
        raise DataError(
            f"tune.folds is {folds}, but class {name!r} of {config.data.source} has {rows} rows "
            f"for training and validation; {remedy}"
        )


def search_fingerprint(config: Config, space: Space) -> str:
    """The fingerprint of a search's data, for every choice of its settings, as it is now.

    Raises:
        DataError: there is no such data.
    """
    choices = space.finite("data.")
    return combined_fingerprint(
        {dataset_key(values): data_fingerprint(config.override(values).data) for values in choices}
    )


def combined_fingerprint(by_key: Mapping[str, str]) -> str:
    """One fingerprint of several prepared data sets; of one alone it is that one's."""
    if len(by_key) == 1:
        return next(iter(by_key.values()))
    text = json.dumps(by_key, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def plan_search(
    config: Config, space: Space, prepared: Mapping[str, PreparedDataset]
) -> SearchPlan:
    """The plan of a search over prepared data."""
    cluster = cluster_resources()
    max_concurrent, use_gpu, resources = place_trials(config, space, cluster)
    shared = 0
    if fits_object_store(prepared.values(), cluster.object_store_bytes):
        splits = [each.splits[n] for each in prepared.values() for n in ("train", "validation")]
        shared = sum(split.encoded_bytes for split in splits)
    first = next(iter(prepared.values()))
    train_rows = first.splits["train"].num_rows
    if config.tune.folds:
        train_rows = (train_rows + first.splits["validation"].num_rows) * (config.tune.folds - 1)
    return SearchPlan(
        num_trials=count_trials(config.tune, space),
        space_size=space.size,
        settings={d.name: d.describe() for d in space.dimensions},
        max_concurrent=max_concurrent,
        workers=config.tune.workers_per_trial,
        resources=resources,
        use_gpu=use_gpu,
        epochs=space.highest("train.epochs", config.train.epochs),
        train_rows=train_rows,
        folds=config.tune.folds,
        object_store_bytes=shared,
        object_store_total_bytes=cluster.object_store_bytes,
    )


def median_length(prepared: PreparedDataset) -> int:
    """Tokens of the middle one of the training rows."""
    rows = prepared.splits["train"].length_rows
    half, seen = sum(rows) / 2, 0
    for length, count in enumerate(rows):
        seen += count
        if seen >= half:
            return max(length, 1)
    return 1
