"""What a search will do, before it does any of it: data, trials at once, resources, memory."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from rnntune import cache, cluster, dataset, proposals, space
from rnntune.config import Config
from rnntune.errors import DataError
from rnntune.progress import Terminal
from rnntune.train import describe_skipped, worker_resources
from rnntune.trial import feed_key

__all__ = ["Plan", "make_plan", "median_length", "place_trials", "prepare_all"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a search will do.

    Args:
        num_trials: configurations to try.
        space_size: configurations in the space; None: without end.
        settings: searched settings and their distributions.
        at_once: trials that run at the same time.
        workers: of a trial.
        resources: of a worker.
        use_gpu: whether workers train on GPUs.
        epochs: most epochs of a trial.
        train_rows: training rows of an epoch.
        object_store_bytes: memory of the object store that the shared rows take.
        object_store_total_bytes: what a node has of it.
    """

    num_trials: int
    space_size: int | None
    settings: Mapping[str, str]
    at_once: int
    workers: int
    resources: Mapping[str, float]
    use_gpu: bool
    epochs: int
    train_rows: int
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
            f"trials: {self.num_trials}, {self.at_once} at once, {workers} a trial",
            f"training: at most {self.epochs} epochs of {self.train_rows:,} rows a trial",
            f"object store: {self.object_store_bytes / 1e6:,.1f} MB of "
            f"{self.object_store_total_bytes / 1e6:,.0f} MB on each node",
        ]


def place_trials(
    config: Config, found: space.Space, there: cluster.Resources
) -> tuple[int, bool, dict[str, float]]:
    """How many trials run at once, whether on GPUs, and the resources of one worker.

    An autoscaler is asked for as many as `tune.max_concurrent_trials` says.

    Raises:
        ClusterError: the cluster cannot hold one trial, with the numbers.
    """
    gpu, resources = worker_resources(config, there)
    room = there.require(config.tune.workers_per_trial, resources)
    at_once: float = config.tune.max_concurrent_trials or math.inf
    if math.isinf(at_once) or not there.autoscales:
        at_once = min(at_once, max(1, room // config.tune.workers_per_trial))
    at_once = min(at_once, proposals.num_trials(config.tune, found))
    return int(at_once), gpu, resources


def prepare_all(
    config: Config, found: space.Space, terminal: Terminal
) -> dict[str, cache.Prepared]:
    """Prepared data for every choice of the searched `data` settings, by its key.

    Raises:
        DataError: there is no such data, or it has no validation rows.
    """
    by_key = {}
    for values in found.finite("data."):
        changed = config.override(values)
        prepared = dataset.prepare(changed.data, terminal.line)
        describe_skipped(prepared, terminal)
        if not prepared.splits["validation"].num_rows:
            raise DataError(
                f"{config.data.source}: no validation rows to compare trials on; "
                "set data.validation_fraction"
            )
        by_key[feed_key(values)] = prepared
    return by_key


def make_plan(config: Config, found: space.Space, prepared: Mapping[str, cache.Prepared]) -> Plan:
    """The plan of a search over prepared data."""
    there = cluster.resources()
    at_once, use_gpu, resources = place_trials(config, found, there)
    shared = 0
    for each in prepared.values():
        if cache.fits_store(each, there.object_store_bytes):
            shared += sum(each.splits[name].encoded_bytes for name in ("train", "validation"))
    first = next(iter(prepared.values()))
    return Plan(
        num_trials=proposals.num_trials(config.tune, found),
        space_size=found.size,
        settings={d.name: d.describe() for d in found.dimensions},
        at_once=at_once,
        workers=config.tune.workers_per_trial,
        resources=resources,
        use_gpu=use_gpu,
        epochs=found.highest("train.epochs", config.train.epochs),
        train_rows=first.splits["train"].num_rows,
        object_store_bytes=shared,
        object_store_total_bytes=there.object_store_bytes,
    )


def median_length(prepared: cache.Prepared) -> int:
    """Tokens of the middle one of the training rows."""
    rows = prepared.splits["train"].length_rows
    half, seen = sum(rows) / 2, 0
    for length, count in enumerate(rows):
        seen += count
        if seen >= half:
            return max(length, 1)
    return 1
