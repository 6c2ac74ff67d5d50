"""Optimizers (sparse rows for the embedding, dense for the rest) and schedules."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rnntune.config import TrainConfig

__all__ = ["Optimizer", "rate_factor"]


def rate_factor(schedule: str, warmup_fraction: float, progress: float) -> float:
    """Learning rate as a fraction of its peak.

    Args:
        schedule: 'constant', 'linear' or 'cosine'.
        warmup_fraction: part of the run in which the rate rises linearly.
        progress: part of the run that is done, from 0 to 1.
    """
    if progress < warmup_fraction:
        return progress / warmup_fraction
    after = (progress - warmup_fraction) / (1 - warmup_fraction)
    if schedule == "linear":
        return 1 - after
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * after))
    return 1.0


class Optimizer:
    """Adam for a classifier: only the rows of the embedding that a batch touched, all the rest.

    A dense step would move the whole table of words. Where gradients of the embedding are
    dense (on a GPU: NCCL does not reduce sparse ones), one fused AdamW does everything.

    Source: https://arxiv.org/abs/1412.6980 (Adam), https://arxiv.org/abs/1711.05101 (AdamW).
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._config = config
        table = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, nn.Embedding) and module.sparse
        }
        trained = [p for p in model.parameters() if p.requires_grad]
        self.dense = [p for p in trained if id(p) not in table]
        self._sparse = [p for p in trained if id(p) in table]
        words = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
        undecayed = {id(weight) for weight in words}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.dense if id(p) not in undecayed]},
            {"params": [p for p in self.dense if id(p) in undecayed], "weight_decay": 0.0},
        ]
        fused = all(p.is_cuda for p in self.dense)
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                fused=fused or None,
            )
        ]
        if self._sparse:
            self._optimizers.append(torch.optim.SparseAdam(self._sparse, lr=config.learning_rate))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def step(self, progress: float) -> torch.Tensor:
        """Clip the gradients and update the weights.

        Args:
            progress: part of the run that is done, from 0 to 1; it sets the learning rate.

        Returns:
            The norm of the dense gradients before clipping, float32 (). Where it is not
            finite, no weight was changed.
        """
        norm: torch.Tensor = nn.utils.clip_grad_norm_(
            self.dense, self._config.gradient_clip or math.inf
        )
        if not torch.isfinite(norm):
            return norm
        config = self._config
        factor = rate_factor(config.schedule, config.warmup_fraction, progress)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            optimizer.step()
        return norm

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """All state as tensors: `<optimizer>.<parameter>.<name>`."""
        tensors = {}
        for number, optimizer in enumerate(self._optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                for name, value in state.items():
                    tensors[f"{number}.{index}.{name}"] = torch.as_tensor(value).contiguous()
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_tensors` gave."""
        states: list[dict[int, dict[str, Any]]] = [{} for _ in self._optimizers]
        for key, value in tensors.items():
            number, index, name = key.split(".", 2)
            steps = isinstance(self._optimizers[int(number)], torch.optim.SparseAdam)
            plain = int(value) if name == "step" and steps else value
            states[int(number)].setdefault(int(index), {})[name] = plain
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
