"""`TorchTrainer` around the loop, for runs and trials: scaling, failures, progress."""

import contextlib
import functools
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rnntune import storage
from rnntune.cluster.channel import KeyValueChannel
from rnntune.cluster.resources import cluster_resources
from rnntune.cluster.session import user_error
from rnntune.cluster.waiting import await_room, missing_room
from rnntune.config.load import Config
from rnntune.console import Terminal, run_interruptibly
from rnntune.errors import RnntuneError, RunError, StorageError
from rnntune.training.placement import place_workers
from rnntune.training.progress import ProgressFollower
from rnntune.training.recovery import CHECKPOINTS
from rnntune.training.result import TrainingOutcome
from rnntune.training.run_folder import RunFolder
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.watchdog import hang_message
from rnntune.training.worker import FAILURE, OUTCOME, WorkerJob, run_worker
from rnntune.training.worker_watch import WorkerWatch

__all__ = ["explain_failure", "fit_workers", "torch_trainer"]


def torch_trainer(
    function: Callable[..., None],
    settings: Mapping[str, Any],
    config: Config,
    *,
    num_workers: int | tuple[int, int],
    use_gpu: bool,
    resources: Mapping[str, float],
    uri: str,
    callbacks: Sequence[Any] = (),
) -> Any:
    """Ray's trainer of a run or of a trial with several workers.

    Checkpoints are not Ray's business: rank 0 writes them and every start reads the latest.

    Args:
        function: what each worker runs, with `settings`.
        settings: what it gets.
        config: of the run; says where workers go and how often they start again.
        num_workers: a number, or the fewest and the most.
        use_gpu: whether each gets a GPU.
        resources: of each.
        uri: a folder that all nodes share, for what Ray writes while it runs; it must be new,
            because Ray goes on with a trainer whose notes it sees.
        callbacks: Ray Train's.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    filesystem, path = storage.locate(uri)
    run = PurePosixPath(path)
    return TorchTrainer(
        function,
        train_loop_config=dict(settings),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers,  # type: ignore[arg-type]  # [min, max] too
            use_gpu=use_gpu,
            resources_per_worker=dict(resources),
            placement_strategy=config.train.placement.upper(),
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=str(run.parent),
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.train.max_failures),
            callbacks=list(callbacks),
        ),
    )


def fit_workers(
    config: Config, folder: RunFolder, feed: SharedDataset, terminal: Terminal
) -> TrainingOutcome:
    """Train on the cluster's workers, which evaluate the test rows once at the end.

    Raises:
        RnntuneError: training failed.
    """
    use_gpu, resources = place_workers(config, cluster_resources())
    asked = config.train.num_workers
    least = asked[0] if isinstance(asked, tuple) else asked
    await_room(
        least,
        resources,
        terminal.line,
        spread=config.train.placement == "spread",
    )
    channel = KeyValueChannel()
    checkpoints = folder.inside(CHECKPOINTS)
    job = WorkerJob(config=config, feed=feed, checkpoints=checkpoints, channel=channel)
    notes = storage.join(checkpoints, f".ray-{uuid.uuid4().hex[:12]}")
    trainer = torch_trainer(
        run_worker,
        {"job": job},
        config,
        num_workers=config.train.num_workers,
        use_gpu=use_gpu,
        resources=resources,
        uri=notes,
    )
    follower = ProgressFollower(config, folder, terminal)
    watch = WorkerWatch(
        channel,
        config.train.hang_timeout_s,
        terminal.line,
        functools.partial(missing_room, least, resources),
    )
    try:
        with watch:
            ended = run_interruptibly(trainer.fit, lambda: follower.look(channel.poll()))
    finally:
        follower.show(channel.read())
        follower.close()
        with contextlib.suppress(StorageError):
            storage.delete(notes)
    left = channel.read()
    failure = left.get(FAILURE)
    if isinstance(ended, BaseException) and watch.num_hangs > config.train.max_failures:
        message = hang_message(config.train.hang_timeout_s)
        raise RunError(f"{message}; go on later with --resume {folder.uri}") from ended
    if isinstance(ended, BaseException):
        raise explain_failure(ended, folder.uri, failure)
    outcome: TrainingOutcome | None = left.get(OUTCOME)
    if outcome is None:
        if failure is not None:
            raise failure
        raise RunError(
            f"the cluster lost what the workers reported; go on later with --resume {folder.uri}"
        )
    return outcome


def explain_failure(
    error: BaseException, uri: str, reported: RnntuneError | None = None
) -> BaseException:
    """The user's mistake, the storage's failure or the last line of what the workers wrote.

    Args:
        error: that ended the training.
        uri: the run folder.
        reported: what a worker reported before it ended.
    """
    import ray
    from ray.train import TrainingFailedError
    from ray.tune import TuneError

    mistake = user_error(error)
    of_ray = (ray.exceptions.RayError, TrainingFailedError, TuneError, RuntimeError)
    if isinstance(mistake, RnntuneError) or not isinstance(error, of_ray):
        return mistake
    causes = [reported, getattr(error, "controller_failure", None)]
    of_storage = [cause for cause in causes if isinstance(cause, OSError | StorageError)]
    lines = str(of_storage[0] if of_storage else error).strip().splitlines()
    return RunError(f"training failed: {lines[-1]}; go on later with --resume {uri}")
