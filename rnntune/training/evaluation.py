"""Scores of a model over batches, merged over ranks."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnntune.data.batching import Batch
from rnntune.data.task import confidence, decide
from rnntune.model.ensemble import Network
from rnntune.training.label_counts import LabelCounts, label_counts
from rnntune.training.ranks import gather_lists
from rnntune.training.targets import targets_of

__all__ = ["Scores", "SplitPredictions", "count_split", "evaluate_split", "predict_split"]
__all__ += ["score_batches"]
_SMALLEST = 1e-30
_MOST_CELLS = 20_000_000  # decisions on a class of a row that are kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model gave for rows.

    Args:
        rows: int64 (rows,), which rows, as the batches number them.
        labels: as a `Batch` has them.
        probabilities: float32 (rows, classes).
    """

    rows: torch.Tensor
    labels: torch.Tensor
    probabilities: torch.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitPredictions:
    """What a model predicts for the first rows of a split, in the order of the rows.

    Args:
        rows: int64 (rows,), their numbers in the split.
        labels: int32 (rows,); of rows with sets of classes bool (rows, classes).
        predicted: of the same form.
        probability: float32 (rows,), of what is predicted.
        calibrated: float32 (rows,), the same with the model's temperature.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probability: npt.NDArray[np.float32]
    calibrated: npt.NDArray[np.float32]


def score_batches(
    model: Network,
    batches: Iterable[Batch],
    device: torch.device,
    *,
    temperature: float = 1.0,
) -> Iterator[Scores]:
    """Probabilities of the classes for batches, without training.

    Args:
        model: the classifier, on `device`.
        batches: rows of any kind.
        device: where the model is.
        temperature: what logits are divided by.

    Yields:
        The scores of a batch, on the CPU.
    """
    model.eval()
    targets = targets_of(model.task)
    with torch.inference_mode():
        for batch in batches:
            moved = batch.to(device)
            logits = model(moved.ids, moved.lengths, same_length=moved.same_length)
            probabilities = targets.probabilities(logits.div(temperature)).cpu()
            yield Scores(rows=batch.rows, labels=batch.labels, probabilities=probabilities)


def evaluate_split(
    model: Network, batches: Iterable[Batch], device: torch.device, split: str
) -> dict[str, Any]:
    """Accuracy, macro F1 and loss over the rows of all ranks; of sets of labels micro F1, too.

    Of sets of labels accuracy is the share of the rows with all labels right, and thresholds are
    those that suit these rows best.

    Args:
        model: the classifier.
        batches: this rank's share of the rows.
        device: where the model is.
        split: what the names of the figures begin with.
    """
    return count_split(model, score_batches(model, batches, device)).figures(split)


def count_split(
    model: Network, scores: Iterable[Scores], thresholds: Sequence[float] | None = None
) -> LabelCounts:
    """Count the scores of a model.

    Args:
        model: the classifier.
        scores: of this rank's share of the rows.
        thresholds: see `label_counts`.
    """
    counts = label_counts(model.task, model.num_classes, thresholds)
    for part in scores:
        counts.add(part.labels, part.probabilities)
    return counts


def predict_split(
    model: Network,
    batches: Iterable[Batch],
    device: torch.device,
    split: str,
    *,
    temperature: float,
    most_rows: int,
    thresholds: Sequence[float] | None = None,
) -> tuple[dict[str, Any], SplitPredictions]:
    """What `evaluate_split` gives, and what the model predicts for the first rows of all ranks.

    Args:
        model: the classifier.
        batches: this rank's share of the rows.
        device: where the model is.
        split: what the names of the figures begin with.
        temperature: what logits are divided by in the calibrated probabilities.
        most_rows: rows whose predictions are kept, of sets of many classes fewer.
        thresholds: of each class where rows have sets of labels; with the temperature, as all of
            their probabilities are.
    """
    kept: list[SplitPredictions] = []
    if thresholds is not None:
        most_rows = min(most_rows, _MOST_CELLS // len(thresholds))

    def keep(scores: Scores) -> Scores:
        kept.append(_predictions(scores, temperature, most_rows, thresholds))
        return scores

    of_sets = 1.0 if thresholds is None else temperature
    scored = map(keep, score_batches(model, batches, device, temperature=of_sets))
    figures = count_split(model, scored, thresholds).figures(split)
    return figures, _joined(gather_lists(kept))


def _predictions(
    scores: Scores, temperature: float, most_rows: int, thresholds: Sequence[float] | None
) -> SplitPredictions:
    first = scores.rows < most_rows
    rows, labels = scores.rows[first].numpy(), scores.labels[first].numpy()
    if thresholds is not None:
        of_rows = scores.probabilities[first].numpy()
        given = decide(of_rows, thresholds)
        sure = confidence(of_rows, given)
        return SplitPredictions(
            rows=rows, labels=labels > 0, predicted=given, probability=sure, calibrated=sure
        )
    probabilities = scores.probabilities[first].double().clamp_min(_SMALLEST)
    highest, predicted = probabilities.max(dim=1)
    powers = (probabilities / highest[:, None]) ** (1 / temperature)
    return SplitPredictions(
        rows=rows,
        labels=labels.astype(np.int32),
        predicted=predicted.numpy().astype(np.int32),
        probability=highest.numpy().astype(np.float32),
        calibrated=(1 / powers.sum(dim=1)).numpy().astype(np.float32),
    )


def _joined(parts: list[SplitPredictions]) -> SplitPredictions:
    types = {"rows": np.int64, "labels": np.int32, "predicted": np.int32}
    names = [field.name for field in dataclasses.fields(SplitPredictions)]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        if parts
        else np.empty(0, types.get(name, np.float32))
        for name in names
    }
    order = np.argsort(columns["rows"], kind="stable")
    return SplitPredictions(**{name: column[order] for name, column in columns.items()})
