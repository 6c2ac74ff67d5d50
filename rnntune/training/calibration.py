"""How far a model's probabilities can be believed, and the temperature that mends them."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnntune.data.batching import Batch
from rnntune.data.reliability import expected_calibration_error
from rnntune.model.ensemble import Network
from rnntune.training.evaluation import Scores, count_split, score_batches
from rnntune.training.ranks import gather_lists, world_size

__all__ = ["Calibration", "calibrate", "calibration_error", "fit_set_temperature"]
__all__ += ["fit_temperature", "uncalibrated"]
_BOUNDS = (0.05, 20.0)
_SET_BOUNDS = (0.5, 20.0)  # from below 0.5 on some thresholds would be no float32 of their own
_SMALLEST = 1e-30
_CLOSEST = 1e-7  # of the probability of a class to 0 and 1; float32 knows little between
_MOST_CELLS = 20_000_000  # decisions on a class of a row that a temperature is fitted to
FloatArray = npt.NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What temperature scaling does to a model, and the thresholds of one for sets of labels.

    Args:
        temperature: what logits are divided by; 1: nothing.
        error: expected calibration error of the rows with it, 0 to 1; None: there were no rows.
        error_before: the same without it.
        thresholds: of sets of labels, the probability, with the temperature, from which on a row
            has each class.
    """

    temperature: float = 1.0
    error: float | None = None
    error_before: float | None = None
    thresholds: tuple[float, ...] | None = None


def uncalibrated(model: Network) -> Calibration:
    """What a model has without validation rows: of sets of labels, thresholds of a half."""
    if not model.task.is_multi_label:
        return Calibration()
    return Calibration(thresholds=(0.5,) * model.num_classes)


def calibrate(model: Network, batches: Iterable[Batch], device: torch.device) -> Calibration:
    """Choose a model's temperature on the validation rows of all ranks, of sets thresholds, too.

    Args:
        model: the classifier, on `device`.
        batches: this rank's share of the rows.
        device: where the model is.

    Returns:
        The same in every rank.
    """
    if model.task.is_multi_label:
        return _calibrate_sets(model, batches, device)
    found = _gathered(
        [(s.labels.numpy(), s.probabilities.numpy()) for s in score_batches(model, batches, device)]
    )
    if found is None:
        return Calibration()
    labels, probabilities = found
    logits = np.log(probabilities.clip(_SMALLEST))
    temperature = fit_temperature(logits, labels)
    return Calibration(
        temperature=temperature,
        error=calibration_error(_softmax(logits / temperature), labels),
        error_before=calibration_error(_softmax(logits), labels),
    )


def _gathered(
    found: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Labels and probabilities of the batches of all ranks; None: there are no rows."""
    found = gather_lists(found)
    if not found:
        return None
    labels, probabilities = zip(*found, strict=True)
    return np.concatenate(labels), np.concatenate(probabilities)


def _calibrate_sets(model: Network, batches: Iterable[Batch], device: torch.device) -> Calibration:
    from scipy.special import expit, logit  # type: ignore[import-untyped]

    most_rows = _MOST_CELLS // (model.num_classes * world_size())
    kept: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
    num_kept = 0

    def keep(scores: Scores) -> Scores:
        nonlocal num_kept
        part = slice(most_rows - num_kept)  # of a rank that has as many as are used
        if num_kept < most_rows:
            kept.append((scores.labels[part].numpy() > 0, scores.probabilities[part].numpy()))
            num_kept += len(kept[-1][0])
        return scores

    counts = count_split(model, map(keep, score_batches(model, batches, device)))
    counts.figures("validation")
    thresholds = np.array(counts.thresholds)
    found = _gathered(kept)
    if found is None:
        return Calibration(thresholds=tuple(thresholds.tolist()))
    labels, probabilities = found
    logits = logit(probabilities.astype(np.float64).clip(_CLOSEST, 1 - _CLOSEST))
    temperature = fit_set_temperature(logits, labels)
    # Scaling keeps the order of a class's rows, so that the scaled thresholds decide the same.
    scaled = expit(logit(thresholds) / temperature).round(6)
    return Calibration(
        temperature=temperature,
        # Over the decisions on all classes: https://arxiv.org/abs/1910.12656 (marginal).
        error=expected_calibration_error(expit(logits / temperature).ravel(), labels.ravel()),
        error_before=expected_calibration_error(expit(logits).ravel(), labels.ravel()),
        thresholds=tuple(scaled.tolist()),
    )


def fit_set_temperature(logits: FloatArray, labels: npt.NDArray[np.bool_]) -> float:
    """The temperature whose probabilities of each class have the least binary cross entropy.

    One row more, that has and has not every class, is counted among the rows.

    Args:
        logits: (rows, classes).
        labels: bool (rows, classes).

    Returns:
        From 0.5 to 20; 1 without rows.

    Source: as of `fit_temperature`.
    """
    if not len(labels):
        return 1.0
    share = 1 / (len(labels) + 1)  # of the row more
    target = (1 - share) * labels + share / 2

    def loss(factor: float) -> float:
        scaled = logits * factor
        return float((np.logaddexp(0, scaled) - target * scaled).mean())

    return _least(loss, _SET_BOUNDS)


def _least(loss: Callable[[float], float], bounds: tuple[float, float]) -> float:
    """The temperature with the least loss, which is told its inverse."""
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    found = minimize_scalar(
        lambda log_temperature: loss(float(np.exp(-log_temperature))),
        bounds=tuple(np.log(bounds)),
        method="bounded",
    )
    return round(float(np.exp(found.x)), 4)


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
    from scipy.special import logsumexp

    if not len(labels):
        return 1.0
    logits = logits.astype(np.float64)
    share = 1 / (len(labels) + 1)  # of the row of every class
    of_label = logits[np.arange(len(labels)), labels]
    target = (1 - share) * of_label + share * logits.mean(axis=1)

    def loss(factor: float) -> float:
        return float((logsumexp(logits * factor, axis=1) - target * factor).mean())

    return _least(loss, _BOUNDS)


def calibration_error(probabilities: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy in 15 bins.

    Args:
        probabilities: (rows, classes).
        labels: int64 (rows,).

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    right = probabilities.argmax(axis=1) == labels
    return expected_calibration_error(probabilities.max(axis=1), right)


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
