"""What one worker does: the model and its batches on a device, the loop, checkpoints."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rnntune import storage
from rnntune.cluster.worker_process import WorkerProcess
from rnntune.config.load import Config
from rnntune.config.schema import TrainConfig
from rnntune.data.loader import scoring_batches
from rnntune.data.prepared import ShardRef
from rnntune.errors import RnntuneError, StorageError
from rnntune.training.recovery import REFIT, CheckpointStore, read_checkpoint
from rnntune.training.report_data import MOST_PREDICTIONS
from rnntune.training.result import TrainingOutcome
from rnntune.training.shared_dataset import SharedDataset, fetch
from rnntune.training.watchdog import Heartbeat

if TYPE_CHECKING:
    from rnntune.training.checkpoint import Snapshot, State
    from rnntune.training.loop import Event

__all__ = ["BEATS", "EPOCHS", "FAILURE", "OUTCOME", "PROGRESS", "Channel", "EpochHistory"]
__all__ += ["PROCESSES", "Progress"]
__all__ += ["TrainingWorker", "WorkerJob", "assigned_cpus", "build_model"]
__all__ += ["report_mistakes", "run_worker", "train_batches"]
PROGRESS, EPOCHS, OUTCOME, FAILURE = "progress", "epochs", "outcome", "failure"
"""Keys of the channel: `Progress`, `EpochHistory`, `TrainingOutcome`, an exception."""
BEATS, PROCESSES = "beats", "process-"
"""Keys of the batches that rank 0 has counted since it started, and of a `WorkerProcess`: this and
its rank."""


class Channel(Protocol):
    """Where workers leave values for whoever follows the run."""

    def put(self, key: str, value: Any, *, wait: bool = False) -> None:
        """Leave a value, over any older one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """What every worker of a run gets.

    Args:
        config: of the run.
        feed: the rows of its splits.
        checkpoints: URI of the folder of its checkpoints.
        channel: where the workers tell the driver how it goes.
    """

    config: Config
    feed: SharedDataset
    checkpoints: str
    channel: Channel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Running figures of an epoch.

    Args:
        number: counts up, so that a reader knows new ones.
        metrics: the figures.
    """

    number: int
    metrics: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochHistory:
    """The finished epochs of a run.

    Args:
        history: metrics of each.
        num_resumed: how many of them an earlier attempt had finished.
    """

    history: Sequence[Mapping[str, Any]]
    num_resumed: int


def run_worker(settings: Mapping[str, WorkerJob]) -> None:
    """What each worker runs; rank 0 leaves the outcome in the channel, or a user's mistake.

    Args:
        settings: the job, as `job`.
    """
    job = settings["job"]
    with report_mistakes(job.channel):
        outcome = _ray_worker(job).run()
        if outcome is not None:
            job.channel.put(OUTCOME, outcome, wait=True)


@contextlib.contextmanager
def report_mistakes(channel: Channel) -> Iterator[None]:
    """Leave a user's mistake in the channel, and go on as if all were well within.

    Ray Train would try again what trying again does not mend; every worker runs into it.
    Storage can fail one worker alone, and for a while: that is left there and raised.

    Raises:
        StorageError: as it came.
    """
    try:
        yield
    except RnntuneError as error:
        channel.put(FAILURE, error, wait=True)
        if isinstance(error, StorageError):
            raise


def _ray_worker(job: WorkerJob) -> "TrainingWorker":
    """The worker that Ray Train made this process."""
    import ray.train.torch

    context = ray.train.get_context()
    rank = context.get_world_rank()
    job.channel.put(f"{PROCESSES}{rank}", WorkerProcess.this_process())
    return TrainingWorker(
        job,
        device=ray.train.torch.get_device(),
        num_cpus=assigned_cpus(),
        rank=rank,
        world_size=context.get_world_size(),
    )


class TrainingWorker:
    """One rank of a run: builds the model, trains, keeps checkpoints, scores the test rows.

    Args:
        job: what all ranks get.
        device: where the model goes.
        num_cpus: CPUs that are this rank's.
        rank: this rank.
        world_size: number of ranks.
    """

    def __init__(
        self, job: WorkerJob, *, device: Any, num_cpus: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.config, self.feed, self.channel = job.config, job.feed, job.channel
        self.store = CheckpointStore(job.checkpoints, job.config.train.keep_checkpoints)
        self.device, self.num_cpus = device, num_cpus
        self.rank, self.world_size = rank, world_size
        self.num_reports = self.num_resumed = 0
        self.heartbeat = Heartbeat()
        if self.rank == 0:
            self.channel.put(FAILURE, None)  # that of an earlier start is over
            self.heartbeat = Heartbeat(lambda count: self.channel.put(BEATS, count))

    def run(self, should_stop: Callable[[], bool] | None = None) -> TrainingOutcome | None:
        """Train and score the test rows.

        Args:
            should_stop: asked after each step; see `loop.fit`.

        Returns:
            The outcome, in rank 0.

        Raises:
            KeyboardInterrupt: training was asked to stop, and is in a checkpoint.
        """
        from rnntune.training.calibration import calibrate, uncalibrated
        from rnntune.training.evaluation import predict_split
        from rnntune.training.threads import tune_threads

        config, parts = self.config, self.feed.parts
        model = self._new_model()
        self.threads = tune_threads(config, model, self.device, self.num_cpus)
        identity = self._identity()
        resume = self._resume(self.store, identity)
        self.num_resumed = len(resume.state.history) if resume else 0
        batches = self._batches(parts["train"])
        first_step_at, start = time.time(), time.perf_counter()
        state = self._fit(
            model,
            batches,
            config.train,
            validation=self._scoring("validation") if parts["validation"] else None,
            report=self._report,
            identity=identity,
            resume=resume,
            should_stop=should_stop,
        )
        trained = time.perf_counter()
        validation_s = sum(epoch["validation_s"] for epoch in state.history[self.num_resumed :])
        calibration, refit_rows, refit_s = self.feed.calibration or uncalibrated(model), 0, 0.0
        if parts["validation"]:
            calibration = calibrate(model, self._scoring("validation")(), self.device)
            if config.train.refit:
                refitted = time.perf_counter()
                model, refit_rows = self._refit(model, state.best_epoch, should_stop)
                refit_s = time.perf_counter() - refitted
        test, predictions = predict_split(
            model,
            self._scoring("test")(),
            self.device,
            "test",
            temperature=calibration.temperature,
            most_rows=MOST_PREDICTIONS,
            thresholds=calibration.thresholds,
        )
        if self.rank != 0:
            return None
        return TrainingOutcome(
            test_accuracy=test["test_accuracy"],
            test_macro_f1=test["test_macro_f1"],
            test_micro_f1=test.get("test_micro_f1"),
            test_rows=test["test_rows"],
            calibration=calibration,
            predictions=predictions,
            history=state.history,
            best_epoch=state.best_epoch or state.epoch,
            train_s=trained - start - validation_s + refit_s,
            train_rows_per_s=state.trained_rows / max(state.train_s, 1e-9),
            evaluate_s=time.perf_counter() - trained - refit_s + validation_s,
            padding_fraction=batches.padded_cells / max(batches.cells, 1),
            num_parameters=sum(p.numel() for p in model.parameters()),
            world_size=self.world_size,
            first_step_at=first_step_at,
            refit_rows=refit_rows,
        )

    def _new_model(self) -> Any:
        import torch

        torch.manual_seed(self.config.train.seed)
        return build_model(self.config, self.feed, self.device)

    def _batches(self, parts: Sequence[ShardRef]) -> Any:
        return train_batches(self.config, parts, self.device, self.rank, self.world_size)

    def _fit(self, model: Any, batches: Any, train: TrainConfig, **settings: Any) -> "State":
        from rnntune.training.loop import fit

        settings["metric"] = train.metric
        settings["class_weights"] = self.feed.class_weights
        settings["on_batch"] = self.heartbeat.beat
        validation = settings.pop("validation")
        return fit(model, batches, validation, train, device=self.device, **settings)

    def _refit(
        self, first: Any, best_epoch: int, should_stop: Callable[[], bool] | None
    ) -> tuple[Any, int]:
        """Train a model like the first one on training plus validation rows.

        What was chosen on validation rows is that of the first training: the number of epochs,
        the weights of the branches and the temperature. The checkpoints have a folder of their
        own, so that a run that goes on knows which of the two trainings it is in.

        Args:
            first: the model that was validated.
            best_epoch: how many epochs to train; 0: as many as are set.
            should_stop: see `run`.

        Returns:
            The model and the rows that it was trained on.
        """
        config, parts = self.config, self.feed.parts
        model = self._new_model()
        if model.ngrams is not None:
            model.branch_weights.copy_(first.branch_weights)
        store = CheckpointStore(storage.join(self.store.uri, REFIT), config.train.keep_checkpoints)
        identity = {**self._identity(), "refit": True}
        batches = self._batches([*parts["train"], *parts["validation"]])

        def report(event: "Event") -> None:
            self.threads.on_progress(event.metrics["rows"])
            if self.rank != 0:
                return
            if event.kind == "progress":
                self._tell_progress(event.metrics)
            else:
                store.save(event.snapshot())

        epochs = best_epoch or config.train.epochs
        self._fit(
            model,
            batches,
            dataclasses.replace(config.train, epochs=epochs, patience=0),
            validation=None,
            report=report,
            identity=identity,
            resume=self._resume(store, identity),
            should_stop=should_stop,
        )
        return model, batches.num_rows

    def _resume(self, store: CheckpointStore, identity: Mapping[str, Any]) -> "Snapshot | None":
        """The latest checkpoint; rank 0 chooses, so that all ranks go on from the same one."""
        from torch import distributed

        chosen = [store.latest() if self.rank == 0 else None]
        if self.world_size > 1:
            distributed.broadcast_object_list(chosen, device=self.device)
        if chosen[0] is None:
            return None
        return read_checkpoint(chosen[0], identity)

    def _identity(self) -> dict[str, Any]:
        config = self.config.to_dict()
        keys = ("epochs", "learning_rate", "schedule", "seed", "label_smoothing")
        taught = {} if self.feed.teacher is None else {"teacher": self.feed.teacher}
        return {
            **taught,
            "data": self.feed.fingerprint,
            "model": config["model"],
            "batching": config["batching"],
            "train": {key: config["train"][key] for key in keys},
        }

    def _scoring(self, split: str) -> Callable[[], Any]:
        parts = [part.part() for part in self.feed.parts[split]]
        return lambda: self.heartbeat.follow(
            scoring_batches(parts, self.rank, self.world_size, padding=self.config.model.packed)
        )

    def _report(self, event: "Event") -> None:
        self.threads.on_progress(event.metrics["rows"])
        if self.rank != 0:
            return
        if event.kind == "progress":
            self._tell_progress(event.metrics)
            return
        snapshot = event.snapshot()
        self.store.save(snapshot)
        if event.kind == "epoch":
            history = [*snapshot.state.history]
            self.channel.put(EPOCHS, EpochHistory(history=history, num_resumed=self.num_resumed))

    def _tell_progress(self, metrics: Mapping[str, Any]) -> None:
        self.num_reports += 1
        self.channel.put(PROGRESS, Progress(number=self.num_reports, metrics=metrics))


def assigned_cpus() -> int:
    """CPUs that Ray gave to this worker or actor, at least 1."""
    import ray

    assigned = ray.get_runtime_context().get_assigned_resources()
    return max(1, int(assigned.get("CPU", 1)))


def build_model(config: Config, feed: SharedDataset, device: Any) -> Any:
    """The classifier of a configuration, on a device.

    Its embedding has sparse gradients on a CPU. NCCL does not reduce those.
    """
    import torch

    from rnntune.model.network import Classifier

    vectors = None
    if feed.vectors is not None:
        vectors = torch.from_numpy(np.array(fetch(feed.vectors)))
    letters = fetch(feed.letters)
    model = Classifier(
        config.model,
        feed.num_words,
        len(feed.classes),
        vectors,
        letters,
        num_trained_words=feed.num_trained_words,
        task=feed.task,
        sparse=device.type == "cpu",
    )
    if feed.label_odds is not None:
        model.start_from_rates(torch.tensor(feed.label_odds))
    return model.to(device)


def train_batches(
    config: Config, parts: Sequence[ShardRef], device: Any, rank: int, world_size: int
) -> Any:
    """One rank's batches of training rows."""
    from rnntune.data.lanes import num_lanes
    from rnntune.data.loader import TrainBatches

    sizes = config.train.num_workers
    first, last = sizes if isinstance(sizes, tuple) else (sizes, sizes)
    return TrainBatches(
        [part.part() for part in parts],
        config.batching,
        seed=config.train.seed,
        rank=rank,
        world_size=world_size,
        max_ranks=config.train.max_workers,
        lanes=num_lanes(range(first, last + 1)),
        default_width=1 if device.type == "cpu" else 8,
    )
