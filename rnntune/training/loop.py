"""Epochs, steps and evaluation: one plain PyTorch loop that knows nothing of Ray.

Whoever calls it gives the batches, a device and `report`; the loop calls `report` with an
`Event` a few times a second (rank 0 alone), at checkpoints and at the end of each epoch (every
rank at the same step). What is random follows from (seed, step, rank), so that a run that goes
on from a checkpoint draws what an uninterrupted one would have drawn.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from rnntune.config.metric import Metric
from rnntune.config.schema import ModelConfig, TrainConfig
from rnntune.data.batching import Batch
from rnntune.data.loader import TrainBatches
from rnntune.errors import DivergedError
from rnntune.model.network import Classifier
from rnntune.training.branches import fit_branch_weights
from rnntune.training.checkpoint import Snapshot, State
from rnntune.training.evaluation import evaluate_split
from rnntune.training.optim import Optimizer
from rnntune.training.ranks import rank, world_size
from rnntune.training.targets import DISTILL_SHARE, Targets, targets_of

__all__ = ["Event", "fit", "fit_epochs", "is_complete", "uses_bf16"]
_PROGRESS_S = 0.5
_STEPS_BETWEEN_CLOCKS = 50  # ranks look at the clock together, which costs them a message
_MIN_AVERAGED = 4  # epochs; of fewer the first are too far from the end


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
    class_weights: Sequence[float] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_batch: Callable[[], None] = lambda: None,
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
        class_weights: of the rows of each class in the loss; None: all count alike. Of sets of
            labels, of the rows that have the class against those that do not.
        should_stop: asked after each step and each epoch, where there is one rank; once it is
            true the loop reports a checkpoint and stops.
        on_batch: called after each batch of training rows.

    Returns:
        Where the run stands at its end.

    Raises:
        KeyboardInterrupt: it was asked to stop.
        DivergedError: a gradient that is not finite, at the step where it appears, in every
            rank.
    """
    epochs = fit_epochs(
        model,
        batches,
        validation,
        config,
        device=device,
        report=report,
        identity=identity,
        resume=resume,
        metric=metric,
        class_weights=class_weights,
        should_stop=should_stop,
        on_batch=on_batch,
    )
    *_, state = epochs
    return state


def fit_epochs(
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
    class_weights: Sequence[float] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Iterator[State]:
    """The same as `fit`, an epoch at a time: several trainings can take turns in one process.

    Yields:
        Where the run stands before its first epoch and after each.
    """
    run = _Run(model, batches, config, device, report, dict(identity or {}), metric)
    run.should_stop, run.on_batch = should_stop, on_batch
    if class_weights is not None:
        run.weight = torch.tensor(class_weights, dtype=torch.float32, device=device)
    if resume is not None:
        run.restore(resume)
    else:
        run.fit_statistics()
    yield run.state
    while not is_complete(config, run.state):
        run.train_epoch()
        run.finish_epoch(validation)
        if should_stop is not None and should_stop():
            raise KeyboardInterrupt
        yield run.state
    if run.best is not None:
        model.load_state_dict(run.best)


def _steps_between_reads(device: torch.device) -> int:
    """How often the host asks whether a gradient was finite; a GPU it would keep waiting."""
    return 1 if device.type == "cpu" else 50


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
        self.rank, self.world_size = rank(), world_size()
        self.net = DistributedDataParallel(model) if self.world_size > 1 else model
        self._read_every = _steps_between_reads(device)
        self.optimizer = Optimizer(model, config, skip_not_finite=self._read_every == 1)
        self._diverged_at = torch.zeros((), dtype=torch.int64, device=device)  # a step, from 1
        self.state = State(bucket_width=batches.default_width)
        self.best: dict[str, torch.Tensor] | None = None
        self.average: dict[str, torch.Tensor] | None = None
        self.targets = targets_of(model.task)
        self.weight: torch.Tensor | None = None  # of the rows of each class
        self.should_stop: Callable[[], bool] | None = None
        self.on_batch: Callable[[], None] = lambda: None
        # A context that does nothing costs less than one of autocast that is switched off.
        self._autocast = (
            torch.autocast(device.type, dtype=torch.bfloat16)
            if uses_bf16(config, model.config, device)
            else contextlib.nullcontext()
        )
        self._here = torch.zeros(2, dtype=torch.float64, device=device)  # of this rank
        self._loss_here, self._right_here = self._here.unbind()  # views of it
        self._kept_at = time.perf_counter()  # when there was a checkpoint last

    def fit_statistics(self) -> None:
        """Count what the network wants to know of the training rows before the first step."""
        ngrams = self.model.ngrams
        if ngrams is None:
            return
        seen = ngrams.count_texts(self._texts())
        if self.world_size > 1:
            distributed.all_reduce(seen)
        ngrams.set_idf(seen)

    def _texts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in self.batches.once():
            self.on_batch()
            rows = batch.to(self.device)
            # Validation rows that are trained on hold words that have no trained rows.
            yield self.model.trained_ids(rows.ids), rows.lengths

    def restore(self, snapshot: Snapshot) -> None:
        self.state = dataclasses.replace(snapshot.state, history=[*snapshot.state.history])
        # The epoch goes on in the batches in which it began, on whichever device that was.
        self.batches.default_width = self.state.bucket_width or self.batches.default_width
        self.state.bucket_width = self.batches.default_width
        self.model.load_state_dict(snapshot.model)
        self.optimizer.load_state_tensors(snapshot.optimizer)
        self.best = snapshot.best
        self.average = snapshot.average
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
            average=self.average,
            identity=self.identity,
        )

    def train_epoch(self) -> None:
        state = self.state
        self.net.train()
        start = told = time.perf_counter()
        for batch in self.batches.epoch(state.epoch, state.position):
            self._step(batch.to(self.device))
            state.position = batch.position
            self.on_batch()
            now = time.perf_counter()
            if self.rank == 0 and now - told >= _PROGRESS_S:
                told = now
                self.report(self._event("progress", self._running(state.train_s + now - start)))
            stop = self.should_stop is not None and self.should_stop()
            if (stop or self._is_checkpoint_due(now)) and state.rows < self.batches.num_rows:
                self._merge()
                state.train_s += time.perf_counter() - start
                self.report(self._event("checkpoint", self._running(state.train_s)))
                if stop:
                    raise KeyboardInterrupt
                start = self._kept_at = time.perf_counter()
        self._merge()
        state.train_s += time.perf_counter() - start

    def _is_checkpoint_due(self, now: float) -> bool:
        """Whether a checkpoint is due by steps or by the clock of rank 0; all ranks agree."""
        config, step = self.config, self.state.step
        if config.checkpoint_every_steps and step % config.checkpoint_every_steps == 0:
            return True
        if not config.checkpoint_every_s:
            return False
        due = now - self._kept_at >= config.checkpoint_every_s
        if self.world_size == 1:
            return due
        if step % _STEPS_BETWEEN_CLOCKS:
            return False
        flag = torch.tensor(int(due), device=self.device)
        distributed.broadcast(flag, src=0)
        return bool(flag)

    def _step(self, batch: Batch) -> None:
        state, config = self.state, self.config
        seed = np.random.SeedSequence([config.seed, state.step, self.rank]).generate_state(1)[0]
        _seed_everything(int(seed), self.device)
        with self._autocast:
            branches = self.net(batch.ids, batch.lengths, same_length=batch.same_length)
        logits = self.model.combine(branches.detach())  # (batch, classes)
        # Each branch has a loss of its own, so that the quick one does not starve the slow one.
        loss = self._loss(branches, batch)
        # DDP takes the mean of the ranks' gradients; the step's is that of all its rows' mean.
        scale = batch.weight * self.world_size / batch.global_rows
        self.optimizer.zero_grad()
        (loss * scale).backward()
        progress = (state.epoch + state.rows / self.batches.num_rows) / config.epochs
        self._note_divergence(self.optimizer.step(progress), state.step + 1)
        if len(branches) > 1:  # what is shown is the loss of their sum
            loss = self._loss(logits[None], batch)
        self._loss_here.add_(loss.detach(), alpha=batch.weight)
        right = self.targets.num_right(logits, batch.labels)
        self._right_here.add_(right, alpha=batch.weight)
        state.step += 1
        state.rows += batch.global_rows
        state.trained_rows += batch.global_rows

    def _loss(self, branches: torch.Tensor, batch: Batch) -> torch.Tensor:
        smoothing = self.config.label_smoothing
        return sum_losses(self.targets, branches, batch, smoothing, self.weight)

    def _note_divergence(self, norm: torch.Tensor, step: int) -> None:
        """Note the first step, from 1, whose gradient is not finite; end there, now or later."""
        if self._read_every == 1:  # it costs no wait
            if not math.isfinite(norm):
                self._diverged_at.fill_(step)
                self._refuse_divergence()
            return
        first = ~torch.isfinite(norm) & (self._diverged_at == 0)
        self._diverged_at.masked_fill_(first, step)
        if step % self._read_every == 0:
            self._refuse_divergence()

    def _refuse_divergence(self) -> None:
        """End training if a gradient was not finite; waits for the device."""
        if step := int(self._diverged_at):
            raise DivergedError(
                f"the gradient is not finite at step {step} (epoch {self.state.epoch + 1}); "
                f"try a smaller train.learning_rate than {self.config.learning_rate:g}"
            )

    def _merge(self) -> None:
        """Add this rank's counts to those of all ranks; every rank calls it at the same step."""
        self._refuse_divergence()  # no checkpoint and no epoch of weights that are not finite
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
        if averaged := self._take_average():
            metrics["averaged"] = True
        if validation is not None:
            if self.model.ngrams is not None:
                prior = self.model.config.recurrent_weight
                fit_branch_weights(self.model, validation(), self.device, prior)
            metrics.update(evaluate_split(self.model, validation(), self.device, "validation"))
        metrics["validation_s"] = time.perf_counter() - start
        metrics["train_s"] = state.train_s
        state.history.append(metrics)
        state.epoch += 1
        state.position = state.rows = state.correct = 0
        state.loss_sum = 0.0
        if averaged or (validation is not None and self._is_best(metrics)):
            state.best_epoch = state.epoch
            if self.config.epochs > 1:
                self.best = self._weights()
        self.report(self._event("epoch", metrics))
        self._kept_at = time.perf_counter()

    def _take_average(self) -> bool:
        """Add the weights to their mean; at the end of the last epoch take the mean.

        Source: https://arxiv.org/abs/1803.05407.
        """
        epochs = self.config.epochs
        if (
            not self.config.average_weights
            or epochs < _MIN_AVERAGED
            or self.state.epoch < epochs // 2
        ):
            return False
        weights = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        if self.average is None:
            self.average = {name: value.clone() for name, value in weights.items()}
        else:
            num = self.state.epoch - epochs // 2 + 1
            for name, value in weights.items():
                self.average[name].lerp_(value, 1 / num)
        if self.state.epoch + 1 < epochs:
            return False
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(self.average[name])
        self.average = None
        return True

    def _is_best(self, metrics: Mapping[str, Any]) -> bool:
        if not self.state.best_epoch:
            return True
        before = self.state.history[self.state.best_epoch - 1][self.metric]
        now = metrics[self.metric]
        return Metric(self.metric).is_better(now, before)

    def _event(
        self, kind: Literal["progress", "checkpoint", "epoch"], metrics: Mapping[str, Any]
    ) -> Event:
        return Event(kind=kind, metrics=metrics, snapshot=self.snapshot)


def sum_losses(
    targets: Targets,
    branches: torch.Tensor,
    batch: Batch,
    label_smoothing: float,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of every branch, summed over branches and rows.

    Args:
        targets: what the network learns.
        branches: float32 (branches, batch, classes), the recurrent one first.
        batch: has the labels, and perhaps soft labels, which are `DISTILL_SHARE` of the loss.
        label_smoothing: part of the target spread over all classes.
        weight: float32 (classes,), how much rows of each class count; None: alike.

    Returns:
        float32 ().
    """
    labels = batch.labels
    loss = targets.loss(branches[0], labels, weight=weight, label_smoothing=label_smoothing)
    for logits in branches[1:]:
        loss = loss + targets.loss(logits, labels, weight=weight, label_smoothing=label_smoothing)
    if batch.soft is None:
        return loss
    learned = torch.stack([targets.soft_loss(logits, batch.soft) for logits in branches]).sum()
    return torch.lerp(loss, learned, DISTILL_SHARE)


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
    rows/s for an LSTM of hidden size 64, 1.8 at 128, 2.0 at 256; the LSTM alone at 96, CPU
    seconds: 1.6 to 2.0 times as fast; windows of 15 words at 128 1.7 (GRU) and 1.8 (LSTM).
    Elsewhere nothing is known.
    """
    if train.precision != "auto":
        return train.precision == "bf16"
    large = model.hidden_size >= 96 and (model.cell == "lstm" or model.window is not None)
    return large and device.type == "cpu" and _multiplies_bf16()


@functools.cache
def _multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16."""
    with contextlib.suppress(OSError):
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    return False
