"""What a network learns for each task: its loss, its probabilities, which rows are right."""

from typing import Protocol

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rnntune.data.task import Task

__all__ = ["DISTILL_SHARE", "DISTILL_TEMPERATURE", "Targets", "targets_of"]
DISTILL_SHARE, DISTILL_TEMPERATURE = 0.5, 2.0
"""Of a model that learns from another one: the other's part in the loss, and the temperature that
both are softened by."""
_CLOSEST = 1e-6  # of a probability to 0 and 1; float16 knows nothing nearer


class Targets(Protocol):
    """What depends on the task."""

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        weight: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """The loss of a batch, summed over its rows, float32 ().

        Args:
            logits: float32 (batch, classes).
            labels: as a `Batch` has them.
            weight: float32 (classes,), of each class; None: alike.
            label_smoothing: part of the target that is spread.
        """

    def soft_loss(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """The loss against what another model says, summed over the rows, float32 ().

        Both are divided by the temperature `DISTILL_TEMPERATURE` first, and its square keeps the
        gradient as large as that of `loss`.

        Args:
            logits: float32 (batch, classes).
            probabilities: float32 (batch, classes), of the other model.

        Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531.
        """

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes) as probabilities of the same shape."""

    def branch_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (..., classes) in the form in which those of several branches are added."""

    def num_right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Rows whose label is predicted, of a set of labels all of them at a threshold of 0.5."""


class _SingleLabel:
    """One class a row: labels int64 (batch,), softmax and cross entropy."""

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        weight: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        return cross_entropy(
            logits, labels, weight=weight, reduction="sum", label_smoothing=label_smoothing
        )

    def soft_loss(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        softened = probabilities.clamp_min(_CLOSEST).log().div(DISTILL_TEMPERATURE).softmax(dim=1)
        loss = cross_entropy(logits / DISTILL_TEMPERATURE, softened, reduction="sum")
        return loss * DISTILL_TEMPERATURE**2

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=1)

    def branch_scores(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(dim=-1)

    def num_right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits.argmax(dim=1) == labels).sum()


class _MultiLabel:
    """A set of classes a row: labels float32 (batch, classes), a sigmoid for each class.

    The loss is the binary cross entropy summed over the classes; the weight of a class is that of
    its positive rows; a smoothed target of y is `y * (1 - s) + s / 2`.

    Source: https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html (pos_weight),
    https://keras.io/api/losses/probabilistic_losses/#binarycrossentropy-class (label_smoothing).
    """

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        weight: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        target = labels * (1 - label_smoothing) + label_smoothing / 2
        return binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="sum")

    def soft_loss(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        softened = probabilities.logit(eps=_CLOSEST).div(DISTILL_TEMPERATURE).sigmoid()
        loss = binary_cross_entropy_with_logits(
            logits / DISTILL_TEMPERATURE, softened, reduction="sum"
        )
        return loss * DISTILL_TEMPERATURE**2

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def branch_scores(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def num_right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return ((logits > 0) == (labels > 0)).all(dim=1).sum()


_TARGETS: dict[Task, Targets] = {
    Task.SINGLE_LABEL: _SingleLabel(),
    Task.MULTI_LABEL: _MultiLabel(),
}


def targets_of(task: Task) -> Targets:
    """What a network learns for a task."""
    return _TARGETS[task]
