"""How many threads a worker's matrix products run on: measured, and again when the speed changes.

Two threads on two cores wait for each other at every product. If anything else takes one of the
cores, both run at a part of the speed of a single thread. So the number of CPUs says how
many threads are worth trying, and the clock decides.
"""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rnntune.config.load import Config

__all__ = ["ThreadTuner", "process_cpus", "tune_threads", "worthwhile_threads"]
_ROUNDS = 5
_ROUND_S = 0.01
_GAIN = 0.9
_HOPELESS = 2.0
_SLOW = 0.6
_PAUSE_S = 1.0
_RENEW_S, _LONGEST_RENEW_S = 15.0, 600.0
_TOKENS = 16


def worthwhile_threads(hidden_size: int, num_cpus: int) -> int:
    """Threads that a worker's matrix products can gain by, on CPUs that nothing else uses.

    Measured on 2 cores, batch 64, two threads against one: no gain at hidden size 32, 1.27 of the
    rows/s at 64, 1.64 at 128.

    Args:
        hidden_size: of the recurrent layers.
        num_cpus: CPUs that are the worker's.
    """
    most = 1 if hidden_size < 64 else 2 if hidden_size < 128 else 8
    return max(1, min(num_cpus, most))


def tune_threads(
    config: Config, model: nn.Module, device: torch.device, num_cpus: int
) -> "ThreadTuner":
    """Choose the threads of a run or trial; call it before the first step.

    Args:
        config: of the run or trial.
        model: the classifier, on `device`.
        device: where it is.
        num_cpus: CPUs that are this worker's.

    Returns:
        What chooses again while training goes on.
    """
    tuner = ThreadTuner(
        model,
        device,
        most=worthwhile_threads(config.model.hidden_size, num_cpus),
        batch_rows=config.batching.batch_rows,
        fixed=config.train.num_threads,
    )
    tuner.measure()
    return tuner


def process_cpus() -> int:
    """CPUs on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ThreadTuner:
    """Sets torch's number of threads for a training run, and changes it when that pays.

    Results depend on the number of threads in the last bits at most, because sums may be split
    between threads; `train.num_threads` fixes it.

    Args:
        model: the classifier, on `device`.
        device: threads matter on a CPU alone.
        most: threads to try at most; see `worthwhile_threads`.
        batch_rows: rows of the batches that are timed.
        fixed: the number of threads, if it is given; None: it is measured.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        most: int,
        batch_rows: int,
        fixed: int | None = None,
    ) -> None:
        self._model, self._batch_rows = model, batch_rows
        self._choices = [fixed] if fixed else _choices(most) if device.type == "cpu" else [1]
        self._measured_at = time.perf_counter()
        self._renew_s = _RENEW_S
        self._usual = 0.0
        self._last: tuple[float, int] | None = None
        self.num_threads = self._choices[0]
        torch.set_num_threads(self.num_threads)

    def measure(self) -> None:
        """Time a few steps with each number of threads, in turns, and keep the fastest.

        A larger number must be faster by a tenth.
        """
        before = self.num_threads
        if len(self._choices) > 1:
            times = self._times()
            best = self._choices[0]
            for choice in self._choices[1:]:
                if choice in times and times[choice] < _GAIN * times[best]:
                    best = choice
            self.num_threads = best
            torch.set_num_threads(best)
        # Where threads are in each other's way, finding out takes seconds.
        same = self.num_threads == before
        self._renew_s = min(2 * self._renew_s, _LONGEST_RENEW_S) if same else _RENEW_S
        self._measured_at = time.perf_counter()
        self._usual, self._last = 0.0, None

    def on_progress(self, rows: int) -> None:
        """Measure again when several threads became much slower, and now and then.

        Args:
            rows: rows of this epoch that were trained on.
        """
        if len(self._choices) == 1:
            return
        now = time.perf_counter()
        rate = self._rate(now, rows)
        since = now - self._measured_at
        if rate is None or since < _PAUSE_S:
            return
        self._usual = max(self._usual, rate)
        slower = self.num_threads > 1 and rate < _SLOW * self._usual
        if slower or since > self._renew_s:
            self.measure()

    def _rate(self, now: float, rows: int) -> float | None:
        """Rows a second since the last call; None where an epoch began between."""
        before, self._last = self._last, (now, rows)
        if before is None or rows <= before[1]:
            return None
        return (rows - before[1]) / max(now - before[0], 1e-9)

    def _times(self) -> dict[int, float]:
        """Median seconds of a step by number of threads; hopeless ones are left out."""
        found: dict[int, list[float]] = {choice: [] for choice in self._choices}
        was_training = self._model.training
        self._model.train()
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        with torch.random.fork_rng(devices=[]):
            batch = self._batch()
            _step(self._model, parameters, batch)  # the first one allocates
            for _ in range(_ROUNDS):
                for choice in [*found]:
                    torch.set_num_threads(choice)
                    found[choice].append(_timed(self._model, parameters, batch))
                single = statistics.median(found[self._choices[0]])
                for choice in self._choices[1:]:
                    if choice in found and min(found[choice]) > _HOPELESS * single:
                        del found[choice]
                if len(found) == 1:
                    break
        self._model.train(was_training)
        return {choice: statistics.median(times) for choice, times in found.items()}

    def _batch(self) -> Mapping[str, torch.Tensor]:
        num_words = int(self._model.get_submodule("embedding").num_embeddings)
        return {
            "ids": torch.randint(min(2, num_words - 1), num_words, (self._batch_rows, _TOKENS)),
            "lengths": torch.full((self._batch_rows,), _TOKENS),
            "labels": torch.zeros(self._batch_rows, dtype=torch.int64),
        }


def _choices(most: int) -> list[int]:
    """1, 2, 4, ... up to a number, and itself."""
    powers = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*powers, most]


def _timed(
    model: nn.Module, parameters: Sequence[nn.Parameter], batch: Mapping[str, torch.Tensor]
) -> float:
    """Seconds of a step, the mean of as many as fit a short time."""
    start = time.perf_counter()
    steps = 0
    while time.perf_counter() - start < _ROUND_S:
        _step(model, parameters, batch)
        steps += 1
    return (time.perf_counter() - start) / steps


def _step(
    model: nn.Module, parameters: Sequence[nn.Parameter], batch: Mapping[str, torch.Tensor]
) -> None:
    """Forward and backward, without leaving a gradient: `autograd.grad` calls no hook of DDP's."""
    outputs: Any = model(batch["ids"], batch["lengths"], same_length=True)
    labels = batch["labels"].expand(outputs.shape[:-1])
    loss = cross_entropy(outputs.flatten(0, -2), labels.flatten())
    torch.autograd.grad(loss, parameters, allow_unused=True)
