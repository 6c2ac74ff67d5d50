"""What may be wrong with a trained model: one line each, with what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnntune.training.evaluation import SplitPredictions

__all__ = ["diagnose_training"]

_NEARLY_ALL = 0.95
_BEYOND = 0.1
_STILL_RISING = 0.01


def diagnose_training(
    history: Sequence[Mapping[str, Any]],
    predictions: SplitPredictions | None,
    classes: Sequence[str],
) -> list[str]:
    """What in a training speaks against its model.

    Args:
        history: metrics of the epochs.
        predictions: of the model on test rows; None: not kept.
        classes: names of the classes.

    Returns:
        Lines for the user; none where nothing stands out.
    """
    found = [_still_rising(history)]
    if predictions is not None and len(predictions.labels):
        found.insert(0, _one_answer(predictions, classes))
    return [line for line in found if line]


def _one_answer(predictions: SplitPredictions, classes: Sequence[str]) -> str:
    if predictions.labels.ndim == 2:
        return _no_label(predictions.labels, predictions.predicted)
    return _one_class(predictions.labels, predictions.predicted, classes)


def _no_label(labels: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> str:
    share, true_share = (float((~rows.any(axis=1)).mean()) for rows in (predicted, labels))
    if share < _NEARLY_ALL or share - true_share < _BEYOND:
        return ""
    return (
        f"no label is predicted for {share:.0%} of the test rows, {true_share:.0%} have none: the "
        "model has learned little; try more train.epochs, another train.learning_rate, or "
        "train.class_weights balanced"
    )


def _one_class(
    labels: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32], classes: Sequence[str]
) -> str:
    counts = np.bincount(predicted, minlength=len(classes))
    most = int(counts.argmax())
    share = counts[most] / len(predicted)
    true_share = float((labels == most).mean())
    if share < _NEARLY_ALL or share - true_share < _BEYOND:
        return ""
    return (
        f"class {classes[most]!r} is predicted for {share:.0%} of the test rows, "
        f"{true_share:.0%} are of it: the model has learned little; try more train.epochs, "
        "another train.learning_rate, or train.class_weights balanced"
    )


def _still_rising(history: Sequence[Mapping[str, Any]]) -> str:
    has_sets = bool(history) and "validation_micro_f1" in history[0]
    name, words = ("micro_f1", "micro F1") if has_sets else ("accuracy", "accuracy")
    if len(history) < 2 or any(f"validation_{name}" not in epoch for epoch in history):
        return ""
    scores = [float(epoch[f"validation_{name}"]) for epoch in history]
    gained = scores[-1] - max(scores[:-1])
    if gained < _STILL_RISING:
        return ""
    return (
        f"validation {words} still rose in the last epoch, by {gained:.3f}: "
        f"train.epochs {2 * len(scores)} may be better"
    )
