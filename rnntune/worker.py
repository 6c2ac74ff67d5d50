"""What one worker does: the model and its batches on a device, the loop, checkpoints."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnntune import cache, cluster, storage
from rnntune.config import Config, flatten
from rnntune.epochs import scoring_batches
from rnntune.errors import RnntuneError

__all__ = ["Feed", "build_model", "num_threads", "run_worker", "train_batches"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
    """Prepared data where workers can reach it.

    Args:
        parts: of each split.
        classes: names of the classes.
        num_words: size of the vocabulary.
        fingerprint: of the prepared data.
        vectors: reference of float32 (words, dim) word vectors, or None.
        vector_dim: their dim; 0: none.
    """

    parts: dict[str, list[cache.SharedPart]]
    classes: tuple[str, ...]
    num_words: int
    fingerprint: str
    vectors: Any = None
    vector_dim: int = 0


def run_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs.

    A user's mistake is returned: trying again would not mend it. Every worker runs into it.
    Storage can fail one worker alone, and for a while: Ray Train then starts all of them again.
    """
    try:
        return _Worker(settings).run()
    except storage.StorageError:
        raise
    except RnntuneError as error:
        return {"error": str(error)}


class _Worker:
    def __init__(self, settings: dict[str, Any]) -> None:
        import ray.train
        import ray.train.torch

        self.config = Config().override(flatten(settings["config"]))
        self.feed: Feed = settings["feed"]
        self.board = cluster.Board(settings["board"])
        self.device = ray.train.torch.get_device()
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.first_step_at = 0.0
        self.number = 0
        self.new_from = 0

    def run(self) -> dict[str, Any]:
        import ray.train
        import torch

        from rnntune import loop
        from rnntune.checkpoint import load_snapshot

        config = self.config
        torch.set_num_threads(num_threads(config.model.hidden_size))
        torch.manual_seed(config.train.seed)
        model = build_model(config, self.feed, self.device)
        resume, checkpoint = None, ray.train.get_checkpoint()
        identity = self._identity()
        if checkpoint is not None:
            with checkpoint.as_directory() as local:
                resume = load_snapshot(Path(local), identity)
            self.new_from = len(resume.state.history)
        batches = train_batches(
            config, self.feed.parts["train"], self.device, self.rank, self.world_size
        )
        self.first_step_at = time.time()
        state = loop.fit(
            model,
            batches,
            self._scoring("validation") if self.feed.parts["validation"] else None,
            config.train,
            device=self.device,
            report=self._report,
            identity=identity,
            resume=resume,
        )
        start = time.perf_counter()
        test = loop.evaluate(model, self._scoring("test")(), self.device, "test")
        return {
            **test,
            "history": state.history,
            "best_epoch": state.best_epoch or state.epoch,
            "train_s": state.train_s,
            "train_rows_per_s": state.trained_rows / max(state.train_s, 1e-9),
            "evaluate_s": time.perf_counter() - start,
            "padding_fraction": batches.padded_cells / max(batches.cells, 1),
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "world_size": self.world_size,
            "first_step_at": self.first_step_at,
        }

    def _identity(self) -> dict[str, Any]:
        config = self.config.to_dict()
        keys = ("epochs", "learning_rate", "schedule", "seed", "label_smoothing")
        return {
            "data": self.feed.fingerprint,
            "model": config["model"],
            "batching": config["batching"],
            "train": {key: config["train"][key] for key in keys},
        }

    def _scoring(self, split: str) -> Callable[[], Any]:
        parts = [part.part() for part in self.feed.parts[split]]
        return lambda: scoring_batches(
            parts, self.rank, self.world_size, padding=self.config.model.packed
        )

    def _report(self, event: Any) -> None:
        self.number += 1
        if event.kind == "progress":
            self.board.put("progress", {"number": self.number, "metrics": event.metrics})
            return
        snapshot = event.snapshot()
        if self.rank == 0 and event.kind == "epoch":
            history = snapshot.state.history
            told = {"count": len(history), "new_from": self.new_from, "history": history}
            self.board.put("epochs", told)
        self._save(snapshot, {"epoch": event.metrics["epoch"], "step": event.metrics["step"]})

    def _save(self, snapshot: Any, metrics: dict[str, Any]) -> None:
        import ray.train
        from ray.train import Checkpoint

        from rnntune.checkpoint import save_snapshot

        if self.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as aside:
            save_snapshot(Path(aside), snapshot)
            try:
                ray.train.report(metrics, checkpoint=Checkpoint.from_directory(aside))
            except OSError as error:
                place = self.config.output
                raise storage.StorageError(f"no checkpoint in {place}: {error}") from error


def num_threads(hidden_size: int) -> int:
    """Threads for a worker's matrix products: its CPUs, as far as small products gain by them.

    Measured on 2 cores, batch 64, two threads against one: no gain inside a Ray worker at
    hidden size 32, 1.27 of the rows/s at 64, 1.64 at 128; with a busy neighbour on one of the
    cores 0.93 at 64.
    """
    import ray

    assigned = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
    most = 1 if hidden_size < 64 else 2 if hidden_size < 128 else 8
    return max(1, min(assigned, most))


def build_model(config: Config, feed: Feed, device: Any) -> Any:
    """The classifier of a configuration, on a device.

    Its embedding has sparse gradients on a CPU. NCCL does not reduce those.
    """
    import ray
    import torch

    from rnntune.model import Classifier

    vectors = None
    if feed.vectors is not None:
        vectors = torch.from_numpy(np.array(ray.get(feed.vectors)))
    model = Classifier(
        config.model,
        feed.num_words,
        len(feed.classes),
        vectors,
        sparse=device.type == "cpu",
    )
    return model.to(device)


def train_batches(
    config: Config, parts: Sequence[cache.SharedPart], device: Any, rank: int, world_size: int
) -> Any:
    """One rank's batches of training rows."""
    from rnntune.epochs import TrainBatches

    return TrainBatches(
        [part.part() for part in parts],
        config.batching,
        seed=config.train.seed,
        rank=rank,
        world_size=world_size,
        max_ranks=config.train.max_workers,
        default_width=1 if device.type == "cpu" else 8,
    )
