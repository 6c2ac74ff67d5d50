"""The training loop of a trial, whoever runs it: its rows, its checkpoint, its reports."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rnntune import storage
from rnntune.config.load import Config
from rnntune.data.loader import scoring_batches
from rnntune.location import Location
from rnntune.training.recovery import CheckpointStore, read_checkpoint
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.watchdog import Heartbeat
from rnntune.training.worker import train_batches
from rnntune.tuning.constraints import ModelSize
from rnntune.tuning.reports import EpochReport, TrialSpec

if TYPE_CHECKING:
    from rnntune.training.loop import Event

__all__ = ["Rank", "TrialContext", "dataset_key", "fit_trial", "report_epoch", "trial_dataset"]
__all__ += ["trial_store"]
_SPLITS = {"train", "validation"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a search have in common; it travels to them once.

    Args:
        config: the configuration that trials change.
        feeds: training and validation rows, by `dataset_key`.
        uri: folder of the trials.
        text_length: tokens of the text whose latency is measured.
        workers: of a trial.
        resources: of one worker.
        use_gpu: whether workers train on GPUs.
    """

    config: Config
    feeds: Mapping[str, SharedDataset]
    uri: str
    text_length: int
    workers: int
    resources: Mapping[str, float]
    use_gpu: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rank:
    """One process of a trial.

    Args:
        device: where its model is.
        num_cpus: CPUs that are its own.
        rank: its number.
        world_size: how many there are.
        heartbeat: counts its batches.
    """

    device: Any
    num_cpus: int
    rank: int = 0
    world_size: int = 1
    heartbeat: Heartbeat = dataclasses.field(default_factory=Heartbeat)


def dataset_key(values: Mapping[str, Any]) -> str:
    """Which prepared data a trial's settings need."""
    chosen = {
        name: value
        for name, value in values.items()
        if name.startswith("data.") or name == "model.word_vectors"
    }
    return json.dumps(chosen, sort_keys=True)


def trial_dataset(context: TrialContext, values: Mapping[str, Any]) -> SharedDataset:
    """The rows of a trial with some settings: rows enter a trial here, and none is a test row."""
    feed = context.feeds[dataset_key(values)]
    assert set(feed.parts) == _SPLITS, f"a trial holds {sorted(feed.parts)}"
    for split, parts in feed.parts.items():
        for part in parts:
            name = Location.parse(part.uri).name
            assert name.startswith(f"{split}-"), f"{part.uri} is not of the {split} split"
    return feed


def trial_store(uri: str, name: str) -> CheckpointStore:
    """The checkpoint of a trial, in its folder."""
    return CheckpointStore(storage.join(uri, name))


def fit_trial(
    context: TrialContext,
    spec: TrialSpec,
    model: Any,
    size: ModelSize,
    rank: Rank,
    report: Callable[[EpochReport], None],
) -> None:
    """Train a trial's model on one rank's rows, from its checkpoint if it has one.

    A trial that is to wait for others trains no step beyond: its checkpoint is of that epoch.

    Args:
        context: what trials have in common.
        spec: the trial.
        model: on the rank's device.
        size: of the model.
        rank: this process.
        report: called with each epoch, in every rank, after rank 0 wrote the checkpoint.

    Raises:
        DivergedError: a gradient that is not finite.
        StorageError: the checkpoint cannot be read or written.
    """
    from rnntune.training.loop import fit_epochs, is_complete
    from rnntune.training.threads import tune_threads

    config = context.config.override(spec.values)
    feed = trial_dataset(context, spec.values)
    identity = {"data": feed.fingerprint, "values": json.loads(json.dumps(dict(spec.values)))}
    store = trial_store(context.uri, spec.name)
    tell = functools.partial(report_epoch, report, size)
    resume = None
    if rank.rank == 0:
        store.sweep()
    if (checkpoint := _chosen(store, rank)) is not None:
        resume = read_checkpoint(checkpoint, identity)
        print(json.dumps({"went_on_after_epoch": resume.state.epoch}))
        done = is_complete(config.train, resume.state)
        last = len(resume.state.history) - 1
        for number, metrics in enumerate(resume.state.history):  # not all of them may have arrived
            tell(metrics, last=done and number == last)
        if done:
            return

    def on_event(event: "Event") -> None:
        threads.on_progress(event.metrics["rows"])
        if event.kind != "epoch":
            return
        snapshot = event.snapshot()
        if rank.rank == 0:
            store.save(snapshot)
        padding = batches.padded_cells / max(batches.cells, 1)
        tell(
            {**event.metrics, "padding_fraction": padding},
            last=is_complete(config.train, snapshot.state),
            begun=begun,
        )

    parts = [part.part() for part in feed.parts["validation"]]
    batches = train_batches(config, feed.parts["train"], rank.device, rank.rank, rank.world_size)
    threads = tune_threads(config, model, rank.device, rank.num_cpus)
    begun = time.time()
    epochs = fit_epochs(
        model,
        batches,
        lambda: rank.heartbeat.follow(
            scoring_batches(parts, rank.rank, rank.world_size, padding=config.model.packed)
        ),
        config.train,
        device=rank.device,
        report=on_event,
        identity=identity,
        resume=resume,
        metric=config.tune.metrics[0],
        class_weights=feed.class_weights,
        on_batch=rank.heartbeat.beat,
    )
    for state in epochs:
        if spec.until_epoch is not None and state.epoch >= spec.until_epoch:
            break


def report_epoch(
    report: Callable[[EpochReport], None],
    size: ModelSize,
    metrics: Mapping[str, Any],
    *,
    last: bool,
    begun: float | None = None,
) -> None:
    """Report an epoch of a trial.

    Args:
        report: to call.
        size: of the model.
        metrics: of the epoch.
        last: whether no epoch is left.
        begun: when training began, seconds since the epoch of the clock; None: earlier.
    """
    report(
        EpochReport(
            metrics=metrics,
            is_complete=last,
            num_parameters=size.num_parameters,
            latency_ms=size.latency_ms,
            first_step_at=begun,
        )
    )


def _chosen(store: CheckpointStore, rank: Rank) -> str | None:
    """The latest checkpoint; rank 0 chooses, so that all ranks go on from the same one."""
    from torch import distributed

    chosen = [store.latest() if rank.rank == 0 else None]
    if rank.world_size > 1:
        distributed.broadcast_object_list(chosen, device=rank.device)
    return chosen[0]
