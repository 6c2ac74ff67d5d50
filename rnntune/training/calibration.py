"""How far a model's probabilities can be believed, and the temperature that mends them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from rnntune.data.batching import Batch
from rnntune.model.ensemble import Network
from rnntune.training.evaluation import count_split, score_batches
from rnntune.training.ranks import world_size

__all__ = ["Calibration", "calibrate", "calibration_error", "fit_temperature"]
__all__ += ["uncalibrated"]
_NUM_BINS = 15
_BOUNDS = (0.05, 20.0)
_SMALLEST = 1e-30
FloatArray = npt.NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What temperature scaling does to a model, or the thresholds of one for sets of labels.

    Args:
        temperature: what logits are divided by; 1: nothing.
        error: expected calibration error of the rows with it, 0 to 1; None: there were no rows.
        error_before: the same without it.
        thresholds: of sets of labels, the probability from which on a row has each class.
    """

    temperature: float = 1.0
    error: float | None = None
    error_before: float | None = None
    thresholds: tuple[float, ...] | None = None


def uncalibrated(model: Network, thresholds: tuple[float, ...] | None = None) -> Calibration:
    """What a model has without validation rows.

    Args:
        model: the classifier.
        thresholds: of sets of labels, those of a model like it; None: a half.
    """
    if not model.task.is_multi_label:
        return Calibration()
    return Calibration(thresholds=thresholds or (0.5,) * model.num_classes)


def calibrate(model: Network, batches: Iterable[Batch], device: torch.device) -> Calibration:
    """Choose a model's temperature on the validation rows of all ranks, or its thresholds.

    Probabilities of sets of labels are left as they are: thresholds make up for their scale.

    Args:
        model: the classifier, on `device`.
        batches: this rank's share of the rows.
        device: where the model is.

    Returns:
        The same in every rank.
    """
    if model.task.is_multi_label:
        counts = count_split(model, score_batches(model, batches, device))
        counts.figures("validation")
        return Calibration(thresholds=tuple(counts.thresholds or ()))
    found = [
        (s.labels.numpy(), s.probabilities.numpy()) for s in score_batches(model, batches, device)
    ]
    if world_size() > 1:
        gathered: list[Any] = [None] * world_size()
        distributed.all_gather_object(gathered, found)
        found = [pair for part in gathered for pair in part]
    if not found:
        return Calibration()
    labels = np.concatenate([pair[0] for pair in found])
    logits = np.log(np.concatenate([pair[1] for pair in found]).clip(_SMALLEST))
    temperature = fit_temperature(logits, labels)
    return Calibration(
        temperature=temperature,
        error=calibration_error(_softmax(logits / temperature), labels),
        error_before=calibration_error(_softmax(logits), labels),
    )


def fit_temperature(logits: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """The temperature whose probabilities have the least negative log-likelihood.

    One row more, of every class alike, is counted among the rows: without it a model that is
    right about all of them would be told to be as sure as it can.

    Args:
        logits: (rows, classes), or logarithms of probabilities.
        labels: int64 (rows,).

    Returns:
        From 0.05 to 20; 1 without rows.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599; Platt 1999 for the smoothed targets.
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
    from scipy.special import logsumexp  # type: ignore[import-untyped]

    if not len(labels):
        return 1.0
    logits = logits.astype(np.float64)
    share = 1 / (len(labels) + 1)  # of the row of every class
    of_label = logits[np.arange(len(labels)), labels]
    target = (1 - share) * of_label + share * logits.mean(axis=1)

    def loss(log_temperature: float) -> float:
        factor = np.exp(-log_temperature)
        return float((logsumexp(logits * factor, axis=1) - target * factor).mean())

    best = minimize_scalar(loss, bounds=tuple(np.log(_BOUNDS)), method="bounded")
    return round(float(np.exp(best.x)), 4)


def calibration_error(probabilities: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy in 15 bins.

    Args:
        probabilities: (rows, classes).
        labels: int64 (rows,).

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * _NUM_BINS).astype(int) - 1, 0, _NUM_BINS - 1)
    gaps = np.bincount(bins, confidence - right, minlength=_NUM_BINS)
    return float(np.abs(gaps).sum() / max(len(labels), 1))


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
