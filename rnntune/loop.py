"""Epochs, steps and evaluation: one plain PyTorch loop that knows nothing of Ray.

Whoever calls it gives the batches, a device and `report`; the loop calls `report` with an
`Event` a few times a second (rank 0 alone), at checkpoints and at the end of each epoch (every
rank at the same step). What is random follows from (seed, step, rank), so that a run that goes
on from a checkpoint draws what an uninterrupted one would have drawn.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torchmetrics.functional.classification import multiclass_f1_score

from rnntune.batching import Batch
from rnntune.checkpoint import Snapshot, State
from rnntune.config import ModelConfig, TrainConfig
from rnntune.epochs import TrainBatches
from rnntune.errors import RnntuneError
from rnntune.model import Classifier
from rnntune.optim import Optimizer

__all__ = ["DivergedError", "Event", "Scores", "evaluate", "fit", "is_complete", "score"]
__all__ += ["uses_bf16"]

_PROGRESS_S = 0.5


class DivergedError(RnntuneError):
    """The loss or its gradient is not a finite number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """Something that the loop tells its caller.

    Args:
        kind: 'progress' (rank 0 alone), 'checkpoint' or 'epoch' (every rank).
        metrics: running figures of the epoch; at its end those of the validation too.
        snapshot: gives what is needed to go on from here.
    """

    kind: Literal["progress", "checkpoint", "epoch"]
    metrics: Mapping[str, Any]
    snapshot: Callable[[], Snapshot]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model gave for rows.

    Args:
        rows: int64 (rows,), which rows, as the batches number them.
        labels: int64 (rows,).
        probabilities: float32 (rows, classes).
    """

    rows: torch.Tensor
    labels: torch.Tensor
    probabilities: torch.Tensor


def fit(
    model: Classifier,
    batches: TrainBatches,
    validation: Callable[[], Iterable[Batch]] | None,
    config: TrainConfig,
    *,
    device: torch.device,
    report: Callable[[Event], None],
    identity: Mapping[str, Any] | None = None,
    resume: Snapshot | None = None,
    metric: str = "validation_accuracy",
) -> State:
    """Train a classifier; afterwards it has the weights of its best epoch.

    With a process group of several ranks every rank calls this with its own batches; the
    gradient of a step is that of all rows that the ranks hold together.

    Args:
        model: the classifier, on `device`.
        batches: this rank's training rows.
        validation: gives this rank's share of the validation rows; None: keep the last epoch.
        config: epochs, learning rate and so on.
        device: where the model is.
        report: called with events.
        identity: what makes this run this run; goes into snapshots.
        resume: where to go on from.
        metric: the validation metric whose best epoch is kept.

    Returns:
        Where the run stands at its end.

    Raises:
        DivergedError: a gradient that is not finite, at the step where it appears, in every
            rank.
    """
    run = _Run(model, batches, config, device, report, dict(identity or {}), metric)
    if resume is not None:
        run.restore(resume)
    while not is_complete(config, run.state):
        run.train_epoch()
        run.finish_epoch(validation)
    if run.best is not None:
        model.load_state_dict(run.best)
    return run.state


def is_complete(config: TrainConfig, state: State) -> bool:
    """Whether no epoch is left: all are done, or as many as `patience` brought nothing better."""
    patient = not config.patience or _epochs_since_best(state) < config.patience
    return state.epoch >= config.epochs or not patient


def _epochs_since_best(state: State) -> int:
    return state.epoch - state.best_epoch if state.best_epoch else 0


class _Run:
    def __init__(
        self,
        model: Classifier,
        batches: TrainBatches,
        config: TrainConfig,
        device: torch.device,
        report: Callable[[Event], None],
        identity: Mapping[str, Any],
        metric: str,
    ) -> None:
        self.model, self.batches, self.config, self.device = model, batches, config, device
        self.report, self.identity, self.metric = report, identity, metric
        self.rank, self.world_size = _rank(), _world_size()
        self.net = DistributedDataParallel(model) if self.world_size > 1 else model
        self.optimizer = Optimizer(model, config)
        self.state = State()
        self.best: dict[str, torch.Tensor] | None = None
        self._bf16 = uses_bf16(config, model.config, device)
        self._here = torch.zeros(2, dtype=torch.float64, device=device)  # loss, correct: this rank

    def restore(self, snapshot: Snapshot) -> None:
        self.state = dataclasses.replace(snapshot.state, history=[*snapshot.state.history])
        self.model.load_state_dict(snapshot.model)
        self.optimizer.load_state_tensors(snapshot.optimizer)
        self.best = snapshot.best
        if self.best is None and self.state.best_epoch:  # the checkpoint is that of its best epoch
            self.best = self._weights()

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def snapshot(self) -> Snapshot:
        at_best = self.state.position == 0 and _epochs_since_best(self.state) == 0
        return Snapshot(
            state=self.state,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_tensors(),
            best=None if at_best else self.best,
            identity=self.identity,
        )

    def train_epoch(self) -> None:
        state, config = self.state, self.config
        self.net.train()
        start = told = time.perf_counter()
        every = config.checkpoint_every_steps
        for batch in self.batches.epoch(state.epoch, state.position):
            self._step(batch.to(self.device))
            state.position = batch.position
            now = time.perf_counter()
            if self.rank == 0 and now - told >= _PROGRESS_S:
                told = now
                self.report(self._event("progress", self._running(state.train_s + now - start)))
            if every and state.step % every == 0 and state.rows < self.batches.num_rows:
                self._merge()
                state.train_s += time.perf_counter() - start
                self.report(self._event("checkpoint", self._running(state.train_s)))
                start = time.perf_counter()
        self._merge()
        state.train_s += time.perf_counter() - start

    def _step(self, batch: Batch) -> None:
        state, config = self.state, self.config
        seed = np.random.SeedSequence([config.seed, state.step, self.rank]).generate_state(1)[0]
        _seed_everything(int(seed), self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            logits = self.net(batch.ids, batch.lengths, uniform=batch.uniform)  # (batch, classes)
        loss = cross_entropy(
            logits, batch.labels, reduction="sum", label_smoothing=config.label_smoothing
        )
        # DDP takes the mean of the ranks' gradients; the step's is that of all its rows' mean.
        scale = batch.weight * self.world_size / batch.global_rows
        self.optimizer.zero_grad()
        (loss * scale).backward()
        progress = (state.epoch + state.rows / self.batches.num_rows) / config.epochs
        norm = self.optimizer.step(progress)
        if not torch.isfinite(norm):
            raise DivergedError(
                f"the gradient is not finite at step {state.step + 1} (epoch {state.epoch + 1}); "
                f"try a smaller train.learning_rate than {config.learning_rate:g}"
            )
        correct = (logits.detach().argmax(dim=1) == batch.labels).sum()
        self._here += torch.stack([loss.detach().double(), correct.double()]) * batch.weight
        state.step += 1
        state.rows += batch.global_rows
        state.trained_rows += batch.global_rows

    def _merge(self) -> None:
        """Add this rank's counts to those of all ranks; every rank calls it at the same step."""
        total = self._here.clone()
        if self.world_size > 1:
            distributed.all_reduce(total)
        self.state.loss_sum += float(total[0])
        self.state.correct += round(float(total[1]))
        self._here.zero_()

    def _running(self, train_s: float) -> dict[str, Any]:
        state = self.state
        here = self._here.tolist()
        # Between merges rank 0 speaks for the ranks: its counts stand for its share of the rows.
        loss = state.loss_sum + here[0] * self.world_size
        correct = state.correct + here[1] * self.world_size
        return {
            "epoch": state.epoch + 1,
            "epochs": self.config.epochs,
            "rows": state.rows,
            "epoch_rows": self.batches.num_rows,
            "train_loss": loss / max(state.rows, 1),
            "train_accuracy": min(correct / max(state.rows, 1), 1.0),
            "train_rows_per_s": state.trained_rows / max(train_s, 1e-9),
            "step": state.step,
        }

    def finish_epoch(self, validation: Callable[[], Iterable[Batch]] | None) -> None:
        state = self.state
        metrics = self._running(state.train_s)
        start = time.perf_counter()
        if validation is not None:
            metrics.update(evaluate(self.model, validation(), self.device, "validation"))
        metrics["validation_s"] = time.perf_counter() - start
        metrics["train_s"] = state.train_s
        state.history.append(metrics)
        state.epoch += 1
        state.position = state.rows = state.correct = 0
        state.loss_sum = 0.0
        if validation is not None and self._is_best(metrics):
            state.best_epoch = state.epoch
            if self.config.epochs > 1:
                self.best = self._weights()
        self.report(self._event("epoch", metrics))

    def _is_best(self, metrics: Mapping[str, Any]) -> bool:
        if not self.state.best_epoch:
            return True
        before = self.state.history[self.state.best_epoch - 1][self.metric]
        now = metrics[self.metric]
        return bool(now < before if self.metric.endswith("loss") else now > before)

    def _event(
        self, kind: Literal["progress", "checkpoint", "epoch"], metrics: Mapping[str, Any]
    ) -> Event:
        return Event(kind=kind, metrics=metrics, snapshot=self.snapshot)


def _seed_everything(seed: int, device: torch.device) -> None:
    """Seed what a step draws from.

    `torch.manual_seed` also notes the whole call stack for a GPU that may come, at every call.
    Measured inside a Ray worker: 0.86 of a bare loop's rows/s with it, 0.98 without.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def uses_bf16(train: TrainConfig, model: ModelConfig, device: torch.device) -> bool:
    """Whether the forward pass in training is done in bf16.

    Measured on a CPU with AVX512-BF16, one thread, batch 64, bf16 against fp32: 1.3 of the
    rows/s for an LSTM of hidden size 64, 1.8 at 128, 2.0 at 256. Elsewhere nothing is known.
    """
    if train.precision != "auto":
        return train.precision == "bf16"
    large = model.cell == "lstm" and model.hidden_size >= 128
    return large and device.type == "cpu" and _multiplies_bf16()


@functools.cache
def _multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16."""
    with contextlib.suppress(OSError):
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    return False


def score(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[Scores]:
    """Probabilities of the classes for batches, without training.

    Yields:
        The scores of a batch, on the CPU.
    """
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            there = batch.to(device)
            logits = model(there.ids, there.lengths, uniform=there.uniform)
            probabilities = logits.softmax(dim=1).cpu()
            yield Scores(rows=batch.rows, labels=batch.labels, probabilities=probabilities)


def evaluate(
    model: nn.Module, batches: Iterable[Batch], device: torch.device, split: str
) -> dict[str, Any]:
    """Accuracy, macro F1 and loss over the rows of all ranks.

    Args:
        model: the classifier.
        batches: this rank's share of the rows.
        device: where the model is.
        split: what the names of the figures begin with.
    """
    found = [(s.labels, s.probabilities) for s in score(model, batches, device)]
    num_classes = int(model.classifier.out_features)
    labels = torch.cat([torch.empty(0, dtype=torch.int64), *(pair[0] for pair in found)])
    probabilities = torch.cat([torch.empty(0, num_classes), *(pair[1] for pair in found)])
    predicted = probabilities.argmax(dim=1)
    of_label = probabilities.gather(1, labels[:, None]).double().clamp_min(1e-30)
    loss = float(-of_label.log().sum())
    if _world_size() > 1:
        gathered: list[Any] = [None] * _world_size()
        distributed.all_gather_object(gathered, (labels.numpy(), predicted.numpy(), loss))
        labels = torch.from_numpy(np.concatenate([part[0] for part in gathered]))
        predicted = torch.from_numpy(np.concatenate([part[1] for part in gathered]))
        loss = sum(part[2] for part in gathered)
    f1 = multiclass_f1_score(predicted, labels, num_classes=num_classes, average="macro")
    return {
        f"{split}_accuracy": float((predicted == labels).double().mean()),
        f"{split}_macro_f1": float(f1),
        f"{split}_loss": loss / max(len(labels), 1),
        f"{split}_rows": len(labels),
    }


def _world_size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0
