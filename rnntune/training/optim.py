"""Optimizers (sparse rows for the embedding, dense for the rest) and schedules."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rnntune.config.schema import TrainConfig
from rnntune.errors import RunError
from rnntune.model.ngrams import NGramBranch

__all__ = ["Optimizer", "lr_multiplier"]

_BIAS_RATE = 0.1  # of the linear branch: its gradient is not small as those of rare words are


def lr_multiplier(schedule: str, warmup_fraction: float, progress: float) -> float:
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

    Args:
        model: the classifier.
        config: learning rate and so on.
        skip_not_finite: leave the weights as they are where a gradient is not finite; to know it
            the host waits for the device at each step.

    Source: https://arxiv.org/abs/1412.6980 (Adam), https://arxiv.org/abs/1711.05101 (AdamW).
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, *, skip_not_finite: bool = True
    ) -> None:
        self._config, self._skip_not_finite = config, skip_not_finite
        table = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, nn.Embedding) and module.sparse
        }
        linear = [
            parameter
            for module in model.modules()
            if isinstance(module, NGramBranch)
            for parameter in module.parameters()
        ]
        of_branch = {id(parameter) for parameter in linear}
        trained = [p for p in model.parameters() if p.requires_grad and id(p) not in of_branch]
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
        if linear:
            # Plain descent fits a linear model of normalised TF-IDF better than Adam or Adagrad.
            rate = config.ngram_learning_rate
            tables = {"params": [p for p in linear if p.dim() > 1], "peak": rate}
            biases = {"params": [p for p in linear if p.dim() == 1], "peak": _BIAS_RATE}
            self._optimizers.append(torch.optim.SGD([tables, biases], lr=rate))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._names = [
            [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
            for optimizer in self._optimizers
        ]

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
            finite, no weight was changed, if that was asked for.
        """
        norm: torch.Tensor = nn.utils.clip_grad_norm_(
            self.dense, self._config.gradient_clip or math.inf
        )
        if self._skip_not_finite and not torch.isfinite(norm):
            return norm
        config = self._config
        factor = lr_multiplier(config.schedule, config.warmup_fraction, progress)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.get("peak", config.learning_rate) * factor
            optimizer.step()
        return norm

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """All state as dense tensors: `<parameter>/<name>`, whichever optimizer holds it.

        SparseAdam and AdamW keep the same moments of the same rows, so that a run may go on with
        the other one: on a GPU after a CPU, or the other way round.
        """
        return {
            f"{parameter}/{name}": torch.as_tensor(value).contiguous()
            for number, optimizer in enumerate(self._optimizers)
            for index, state in optimizer.state_dict()["state"].items()
            for parameter in [self._names[number][index]]
            for name, value in state.items()
            if value is not None
        }

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_tensors` gave, of this model on any device.

        Raises:
            RunError: a tensor is of no trained parameter of this model, or of another shape.
        """
        states: list[dict[int, dict[str, Any]]] = [{} for _ in self._optimizers]
        indices = {
            name: (number, index)
            for number, names in enumerate(self._names)
            for index, name in enumerate(names)
        }
        for key, value in tensors.items():
            parameter, _, name = key.rpartition("/")
            if parameter not in indices:
                raise RunError(f"optimizer state {key}: the model trains no such parameter")
            number, index = indices[parameter]
            shape = self._shapes[parameter]
            if name != "step" and value.shape != shape:
                raise RunError(
                    f"optimizer state {key} is {tuple(value.shape)}, its parameter {tuple(shape)}"
                )
            states[number].setdefault(index, {})[name] = self._own_form(number, name, value)
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _own_form(self, number: int, name: str, value: torch.Tensor) -> Any:
        """SparseAdam counts its steps in an int, AdamW in a float32 tensor."""
        if name != "step":
            return value
        return (
            int(value)
            if isinstance(self._optimizers[number], torch.optim.SparseAdam)
            else (value.float())
        )
