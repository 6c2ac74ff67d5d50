"""What runs inside a trial: one configuration through the loop, reported epoch by epoch.

A trial of one worker runs in a reused actor of Ray Tune; one of several workers starts them
with a Ray Train trainer of its own. Neither ever holds a test row.
"""

import contextlib
import ctypes
import dataclasses
import functools
import gc
import io
import json
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnntune import storage
from rnntune.config import Config, flatten
from rnntune.epochs import scoring_batches
from rnntune.errors import RnntuneError, RunError
from rnntune.limits import OverLimitError, measured_model
from rnntune.worker import Feed, build_model, num_threads, train_batches

if TYPE_CHECKING:
    from rnntune.checkpoint import Snapshot

__all__ = ["Job", "feed_key", "latest_checkpoint", "rows_of", "run_trial"]

_M_ARENA_MAX = -8
_SPLITS = {"train", "validation"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What all trials of a search have in common; it travels to them once.

    Args:
        config: the configuration that trials change, as a tree.
        feeds: training and validation rows, by `feed_key`.
        place: folder of the trials.
        text_length: tokens of the text whose latency is measured.
        workers: of a trial.
        resources: of one worker.
        use_gpu: whether workers train on GPUs.
    """

    config: dict[str, Any]
    feeds: Mapping[str, Feed]
    place: str
    text_length: int
    workers: int
    resources: Mapping[str, float]
    use_gpu: bool


def feed_key(values: Mapping[str, Any]) -> str:
    """Which prepared data a trial's settings need."""
    chosen = {
        name: value
        for name, value in values.items()
        if name.startswith("data.") or name == "model.word_vectors"
    }
    return json.dumps(chosen, sort_keys=True)


def run_trial(settings: dict[str, Any], job: Job) -> None:
    """Train one configuration and report each epoch to Ray Tune.

    What goes wrong in it (a loss that is not finite, no memory) is reported as well: the
    search goes on, and the trial is not tried again.

    Args:
        settings: `number` and `values` of the trial, and `folders`, where its checkpoints are.
        job: what trials have in common.
    """
    import ray.tune

    log = _Log(storage.join(job.place, settings["folders"][-1], "log.txt"))
    with log.capture():
        try:
            config = Config().override(flatten(job.config)).override(settings["values"])
            print(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
            print(json.dumps(settings["values"]))
            if job.workers > 1:
                log.write()
                _run_workers(config, settings, job)
            else:
                _run_here(config, settings, job, log)
        except (OSError, storage.StorageError):
            raise  # it may pass, and Ray Tune tries again
        except Exception as error:
            traceback.print_exc()
            ray.tune.report(_ended(error))
        finally:
            log.write()
            _give_back_memory()


def _give_back_memory() -> None:
    """Free what a trial leaves in a process that goes on to the next one.

    Each trial runs in a thread of its own, and glibc gives each thread an arena of its own to
    allocate from, which keeps what was freed. Source: `man 3 mallopt` (M_ARENA_MAX), `malloc_trim`.
    """
    gc.collect()  # models hang in cycles
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_ARENA_MAX, 1)
            libc.malloc_trim(0)


def _ended(error: Exception) -> dict[str, Any]:
    from rnntune.loop import DivergedError

    if isinstance(error, OverLimitError):
        return {"ended": "over limit", "reason": str(error), **error.size}
    state = "diverged" if isinstance(error, DivergedError) else "failed"
    reason = str(error).strip().splitlines()
    text = reason[-1] if reason else type(error).__name__
    known = isinstance(error, RnntuneError)
    return {"ended": state, "reason": text if known else f"{type(error).__name__}: {text}"}


class _Log:
    """The trial's `log.txt`: what it prints, written at its epochs and its end."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._text = io.StringIO()

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        with contextlib.redirect_stdout(self._text), contextlib.redirect_stderr(self._text):
            yield

    def write(self) -> None:
        """Write what is new behind what is there."""
        if not self._text.getvalue():
            return
        before = storage.read_text(self._place) if storage.exists(self._place) else ""
        storage.write_text(self._place, before + self._text.getvalue())
        self._text.seek(0)
        self._text.truncate()


def _run_here(config: Config, settings: dict[str, Any], job: Job, log: _Log) -> None:
    import ray.tune
    import torch

    torch.set_num_threads(num_threads(config.model.hidden_size))
    device = torch.device("cuda" if job.use_gpu and torch.cuda.is_available() else "cpu")
    feed = rows_of(job, settings["values"])
    model, size = measured_model(config, feed, job.text_length, device)
    _fit(config, settings, job, model, device, _reporter(ray.tune, size, log))


def _reporter(
    to: Any, size: Mapping[str, Any], log: _Log
) -> Callable[[dict[str, Any], "Snapshot | None"], None]:
    """A function that tells Ray Tune or Ray Train an epoch's metrics, and keeps its snapshot."""
    from rnntune.checkpoint import save_snapshot

    def report(metrics: dict[str, Any], snapshot: "Snapshot | None") -> None:
        print(json.dumps(metrics))
        log.write()
        if snapshot is None:
            to.report({**metrics, **size})
            return
        with tempfile.TemporaryDirectory() as folder:
            save_snapshot(Path(folder), snapshot)
            to.report({**metrics, **size}, checkpoint=to.Checkpoint.from_directory(folder))

    return report


def _fit(
    config: Config,
    settings: Mapping[str, Any],
    job: Job,
    model: Any,
    device: Any,
    report: Callable[[dict[str, Any], "Snapshot | None"], None],
    *,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """The loop over one rank's rows; `report` gets an epoch's metrics and its snapshot."""
    from rnntune import loop
    from rnntune.checkpoint import load_snapshot

    feed = rows_of(job, settings["values"])
    identity = {"data": feed.fingerprint, "values": json.loads(json.dumps(settings["values"]))}
    resume = None
    if (found := latest_checkpoint(job.place, settings["folders"])) is not None:
        with tempfile.TemporaryDirectory() as aside:
            resume = load_snapshot(Path(storage.local_copy(found, aside)), identity)
        print(json.dumps({"went_on_after_epoch": resume.state.epoch}))
        for metrics in resume.state.history:  # the search may have been killed before it heard
            report({**metrics, "complete": False}, None)
        if loop.is_complete(config.train, resume.state):
            report({**resume.state.history[-1], "complete": True}, None)
            return

    def listen(event: Any) -> None:
        if event.kind != "epoch":
            return
        snapshot = event.snapshot()
        told = {
            **event.metrics,
            "complete": loop.is_complete(config.train, snapshot.state),
            "first_step_at": begun,
            "padding_fraction": batches.padded_cells / max(batches.cells, 1),
        }
        report(told, snapshot)

    parts = [part.part() for part in feed.parts["validation"]]
    batches = train_batches(config, feed.parts["train"], device, rank, world_size)
    begun = time.time()
    loop.fit(
        model,
        batches,
        lambda: scoring_batches(parts, rank, world_size, padding=config.model.packed),
        config.train,
        device=device,
        report=listen,
        identity=identity,
        resume=resume,
        metric=config.tune.metric,
    )


def rows_of(job: Job, values: Mapping[str, Any]) -> Feed:
    """The rows of a trial with some settings: here they enter, and none is a test row."""
    feed = job.feeds[feed_key(values)]
    assert set(feed.parts) == _SPLITS, f"a trial holds {sorted(feed.parts)}"
    for split, parts in feed.parts.items():
        for part in parts:
            name = part.place.rsplit("/", 1)[-1]
            assert name.startswith(f"{split}-"), f"{part.place} is not of the {split} split"
    return feed


def latest_checkpoint(place: str, folders: list[str]) -> str | None:
    """The newest whole checkpoint of a trial: its latest folder comes last; None: there is none."""
    from rnntune.checkpoint import verify

    for folder in reversed(folders):
        inside = storage.join(place, folder)
        for name in sorted(storage.list_folder(inside), reverse=True):
            found = storage.join(inside, name)
            if not storage.exists(storage.join(found, "state.json")):
                continue
            with tempfile.TemporaryDirectory() as aside, contextlib.suppress(RunError):
                verify(Path(storage.local_copy(found, aside)))
                return found
    return None


def _run_workers(config: Config, settings: dict[str, Any], job: Job) -> None:
    """Train with several workers: Ray Train inside Ray Tune.

    Source: https://docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html
    """
    import ray
    import torch
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    feed = rows_of(job, settings["values"])
    _, size = measured_model(config, feed, job.text_length, torch.device("cpu"))
    filesystem, path = storage.locate(job.place)
    trainer = TorchTrainer(
        _worker,  # type: ignore[arg-type]  # Ray's hint is narrower than what it takes
        train_loop_config={
            "config": config.to_dict(),
            "values": settings["values"],
            "job": ray.put(job),
            "folders": settings["folders"],
            "size": size,
        },
        torch_config=TorchConfig(backend="nccl" if job.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.use_gpu,
            resources_per_worker=dict(job.resources),
            placement_strategy=config.train.placement.upper(),
        ),
        run_config=RunConfig(
            name=settings["folders"][-1],
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=config.train.max_failures),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
        ),
    )
    outcome = trainer.fit().return_value  # type: ignore[attr-defined]
    if outcome:
        ray.tune.report(outcome)


def _worker(settings: dict[str, Any]) -> dict[str, Any]:
    """One rank of a trial; how it went wrong is returned: trying again would not mend it."""
    try:
        _work(settings)
    except storage.StorageError:
        raise
    except RnntuneError as error:
        return _ended(error)
    return {}


def _work(settings: dict[str, Any]) -> None:
    import ray
    import ray.train
    import ray.train.torch
    import torch

    job: Job = ray.get(settings["job"])
    config = Config().override(flatten(settings["config"]))
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    torch.set_num_threads(num_threads(config.model.hidden_size))
    torch.manual_seed(config.train.seed)
    model = build_model(config, rows_of(job, settings["values"]), device)
    fit = functools.partial(_fit, config, settings, job, model, device)
    if rank != 0:
        fit(lambda metrics, _: ray.train.report(metrics), rank=rank, world_size=world_size)
        return
    log = _Log(storage.join(job.place, settings["folders"][-1], "log.txt"))
    with log.capture():
        fit(_reporter(ray.train, settings["size"], log), world_size=world_size)
