"""`TorchTrainer` around the loop: scaling, checkpoints, failures, and what a run leaves behind."""

import contextlib
import dataclasses
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnntune import cache, cluster, dataset, storage
from rnntune.config import Config, DataConfig
from rnntune.encoding import SPLITS
from rnntune.errors import RnntuneError, RunError
from rnntune.probe import probe
from rnntune.progress import Terminal, in_thread
from rnntune.recovery import CHECKPOINTS, check_checkpoints
from rnntune.run import EventFiles, RunFolder
from rnntune.worker import Feed, run_worker

__all__ = ["TrainResult", "best_weights", "describe_skipped", "explained", "finish", "fit_workers"]
__all__ += ["make_feed", "save_model", "scaling", "train", "worker_resources"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run of `train` left.

    Args:
        place: the run folder.
        result: the content of `result.json`.
    """

    place: str
    result: dict[str, Any]


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> TrainResult:
    """Train a classifier as the command `rnntune train` does.

    Args:
        config: all settings; `config.output` names the run folder.
        resume: go on with the run in that folder, with its own configuration.
        overwrite: replace a run that is there.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        RnntuneError: a mistake of the user's; see `rnntune.errors`.
    """
    terminal = terminal or Terminal(silent=True)
    begin = time.perf_counter()
    folder, config = RunFolder.open(config, resume=resume, overwrite=overwrite)
    if resume and (result := folder.finished()) is not None:
        terminal.line(f"{folder.place} is finished already")
        return TrainResult(place=folder.place, result=result)
    if resume:
        check_checkpoints(folder.place)
    with cluster.connect(verbose=verbose):
        scaling(config, cluster.resources())
        probe([folder.place, config.data.cache_dir])
        connected = time.perf_counter()
        prepared = dataset.prepare(config.data, terminal.line)
        describe_skipped(prepared, terminal)
        if not resume:
            folder.begin(config, overwrite=overwrite)
        feed = make_feed(config, prepared, terminal)
        ready = time.perf_counter()
        outcome = fit_workers(config, folder, feed, terminal)
        result = finish(config, folder, prepared, feed, outcome)
        result["seconds"] = {
            "prepare": round(ready - connected, 2),
            "startup": round(connected - begin + outcome["started_s"], 2),
            "train": round(outcome["train_s"], 2),
            "evaluate": round(outcome["evaluate_s"], 2),
            "total": round(time.perf_counter() - begin, 2),
        }
        folder.write_result(result)
    return TrainResult(place=folder.place, result=result)


def describe_skipped(prepared: cache.Prepared, terminal: Terminal) -> None:
    """Say which rows were left out."""
    if prepared.num_skipped:
        first = f"; the first: {prepared.problems[0]}" if prepared.problems else ""
        terminal.line(f"left out {prepared.num_skipped:,} bad rows{first}")


def make_feed(
    config: Config,
    prepared: cache.Prepared,
    terminal: Terminal,
    splits: Sequence[str] = SPLITS,
) -> Feed:
    """Put prepared data and word vectors where workers can reach them.

    Args:
        config: names the word vectors.
        prepared: the data.
        terminal: where to say what was done.
        splits: those that the workers may see.

    Raises:
        DataError: the word vectors cannot be read.
    """
    import ray

    there = cluster.resources()
    in_store = cache.fits_store(prepared, there.object_store_bytes)
    if not in_store:
        terminal.line(
            f"encoded data ({prepared.encoded_bytes / 1e6:,.0f} MB) is more than a third of the "
            f"object store of a node ({there.object_store_bytes / 1e6:,.0f} MB): "
            "streaming from the cache"
        )
    vectors, vector_dim = None, 0
    if config.model.word_vectors:
        matrix, found = _word_vectors(config.model.word_vectors, config.data, prepared)
        terminal.line(f"word vectors for {found:.1%} of {prepared.num_words:,} words")
        vectors, vector_dim = ray.put(matrix), matrix.shape[1]
    return Feed(
        parts={name: cache.share(prepared, name, in_store=in_store) for name in splits},
        classes=prepared.classes,
        num_words=prepared.num_words,
        fingerprint=prepared.fingerprint,
        vectors=vectors,
        vector_dim=vector_dim,
    )


def _word_vectors(
    name: str, data: DataConfig, prepared: cache.Prepared
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], float]:
    from rnntune import text

    words = prepared.vocab_text().split("\n")[:-1]
    local = tempfile.gettempdir() if storage.is_remote(data.cache_dir) else data.cache_dir
    return text.load_word_vectors(name, words, storage.locate(local)[1])


def worker_resources(config: Config, there: cluster.Resources) -> tuple[bool, dict[str, float]]:
    """Whether to train on GPUs, and the least resources of a worker."""
    use_gpu = config.train.use_gpu
    gpu = there.total("GPU") > 0 if use_gpu == "auto" else use_gpu
    return gpu, {"CPU": 1.0, **({"GPU": 1.0} if gpu else {}), **config.train.resources_per_worker}


def scaling(config: Config, there: cluster.Resources) -> tuple[bool, dict[str, float]]:
    """Whether to train on GPUs, and the resources of one worker; CPU workers share all CPUs.

    Raises:
        ClusterError: the cluster cannot hold the workers, with the numbers.
    """
    gpu, resources = worker_resources(config, there)
    if not gpu and not config.train.resources_per_worker:
        most = int(max((node.get("CPU", 0.0) for node in there.nodes), default=0))
        wanted = config.train.max_workers
        shares = (cpus for cpus in range(most, 0, -1) if there.room({"CPU": cpus}) >= wanted)
        resources["CPU"] = float(next(shares, 1))
    least = config.train.num_workers
    there.require(least[0] if isinstance(least, tuple) else least, resources)
    return gpu, resources


def fit_workers(
    config: Config, folder: RunFolder, feed: Feed, terminal: Terminal
) -> dict[str, Any]:
    """Train on the cluster's workers, which evaluate the test rows once at the end.

    Returns:
        What rank 0 found, and the name of its last checkpoint.

    Raises:
        RnntuneError: training failed.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    there = cluster.resources()
    use_gpu, resources = scaling(config, there)
    name = uuid.uuid4().hex[:12]
    board = cluster.Board(name)
    filesystem, path = storage.locate(folder.place)
    trainer = TorchTrainer(
        run_worker,  # type: ignore[arg-type]  # Ray has it return None, but gives it back
        train_loop_config={"config": config.to_dict(), "feed": feed, "board": name},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.train.num_workers,  # type: ignore[arg-type]  # [min, max] too
            use_gpu=use_gpu,
            resources_per_worker=resources,
            placement_strategy=config.train.placement.upper(),
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=config.train.keep_checkpoints),
            failure_config=FailureConfig(max_failures=config.train.max_failures),
        ),
    )
    start = time.time()
    follower = _Follower(board, folder, terminal)
    try:
        outcome = in_thread(trainer.fit, follower.look)
    finally:
        follower.close()
        board.clear()
    if isinstance(outcome, BaseException):
        raise explained(outcome, folder.place)
    returned: dict[str, Any] = outcome.return_value
    if returned.get("error"):
        raise RnntuneError(returned["error"])
    returned["started_s"] = max(0.0, returned["first_step_at"] - start)
    returned["checkpoint"] = Path(outcome.checkpoint.path).name
    return returned


def explained(error: BaseException, place: str) -> BaseException:
    """The user's mistake, the storage's failure or the last line of what the workers said."""
    import ray
    from ray.train import TrainingFailedError
    from ray.tune import TuneError

    found = dataset.users_error(error)
    known = (ray.exceptions.RayError, TrainingFailedError, TuneError, RuntimeError)
    if isinstance(found, RnntuneError) or not isinstance(error, known):
        return found
    failures = list(getattr(error, "worker_failures", {}).values())
    failures.append(getattr(error, "controller_failure", None))
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]
    of_storage = [c for c in causes if isinstance(c, OSError | storage.StorageError)]
    lines = str(of_storage[0] if of_storage else error).strip().splitlines()
    return RunError(f"training failed: {lines[-1]}; go on later with --resume {place}")


class _Follower:
    """Shows what the workers pin to the board, and keeps `metrics.jsonl` and TensorBoard."""

    def __init__(self, board: cluster.Board, folder: RunFolder, terminal: Terminal) -> None:
        self._board, self._folder, self._terminal = board, folder, terminal
        self._told = self._moved = 0
        self._events = EventFiles(folder)

    def close(self) -> None:
        """Look a last time and finish what is written."""
        self.look()
        self._terminal.done()
        self._events.close()

    def look(self) -> None:
        told = self._board.get("epochs")
        if told is not None and told["count"] != self._told:
            first = told["new_from"] if not self._told else self._told
            self._terminal.done()
            for metrics in told["history"][first:]:
                self._terminal.epoch(metrics)
                self._events.add(metrics)
            self._told = told["count"]
            with contextlib.suppress(storage.StorageError):  # what matters fails in the workers
                self._folder.write_metrics(told["history"])
        moved = self._board.get("progress")
        if moved is not None and moved["number"] != self._moved:
            self._moved = moved["number"]
            self._terminal.training(moved["metrics"])


def finish(
    config: Config,
    folder: RunFolder,
    prepared: cache.Prepared,
    feed: Feed,
    outcome: dict[str, Any],
) -> dict[str, Any]:
    """Write the model of the best epoch, and give the result."""
    checkpoint = folder.inside("checkpoints", outcome["checkpoint"])
    save_model(config, folder, prepared, feed.vector_dim, best_weights(checkpoint))
    folder.write_metrics(outcome["history"])
    best_epoch = outcome["history"][outcome["best_epoch"] - 1]
    return {
        "test_accuracy": outcome["test_accuracy"],
        "test_macro_f1": outcome["test_macro_f1"],
        "test_rows": outcome["test_rows"],
        "validation_accuracy": best_epoch.get("validation_accuracy"),
        "running_train_accuracy": outcome["history"][-1]["train_accuracy"],
        "train_rows": prepared.splits["train"].num_rows,
        "train_rows_per_s": round(outcome["train_rows_per_s"], 1),
        "padding_fraction": outcome["padding_fraction"],
        "num_parameters": outcome["num_parameters"],
        "world_size": outcome["world_size"],
        "epochs": len(outcome["history"]),
        "best_epoch": outcome["best_epoch"],
    }


def best_weights(checkpoint: str) -> bytes:
    """The weights of the best epoch up to a checkpoint, as a safetensors file."""
    best = storage.join(checkpoint, "best.safetensors")
    last = storage.join(checkpoint, "model.safetensors")
    return storage.read_bytes(best if storage.exists(best) else last)


def save_model(
    config: Config,
    folder: RunFolder,
    prepared: cache.Prepared,
    vector_dim: int,
    weights: bytes,
) -> None:
    """Write the run's model folder: all that prediction needs."""
    from rnntune.checkpoint import Description, write_model

    description = Description(
        model=config.model,
        classes=prepared.classes,
        clean=prepared.clean,
        max_length=config.data.max_length,
        text_columns=config.data.text_columns,
        label_column=config.data.label_column,
        vector_dim=vector_dim if config.model.freeze_word_vectors else 0,
    )
    write_model(folder.inside("model"), weights, prepared.vocab_text(), description)
