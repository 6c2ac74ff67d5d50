"""How much each branch of a network has to say, chosen on validation rows."""

import math
from collections.abc import Iterable

import torch
from torch import distributed

from rnntune.data.batching import Batch
from rnntune.data.task import Task
from rnntune.model.network import Classifier
from rnntune.training.ranks import world_size
from rnntune.training.targets import targets_of

__all__ = ["choose_branch_weights", "fit_branch_weights"]

_RATIOS = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
_SCALES = (0.35, 0.5, 0.7, 1.0, 1.4)
_STRENGTH = 4.0  # of the prior, in rows that would have to speak against it
_MAX_ROWS = 20_000
_MAX_CELLS = 4_000_000  # of sets of labels: rows x classes


def fit_branch_weights(
    model: Classifier, batches: Iterable[Batch], device: torch.device, prior: float
) -> None:
    """Set the weights with which a network adds its branches, on this rank's validation rows.

    Rank 0 chooses and the others follow; a network of one branch is left as it is.

    Args:
        model: the network.
        batches: of this rank's share of the validation rows.
        device: where the network is.
        prior: weight of the recurrent branch against the linear one where few rows speak.
    """
    if model.ngrams is None:
        return
    model.eval()
    most_rows = _MAX_ROWS
    if model.task.is_multi_label:
        most_rows = min(most_rows, max(_MAX_CELLS // model.num_classes, 1))
    found, labels, rows = [], [], 0
    with torch.inference_mode():
        for batch in batches:
            there = batch.to(device)
            logits = model.branches(there.ids, there.lengths, same_length=there.same_length)
            found.append(logits.cpu())
            labels.append(batch.labels)
            rows += len(batch.labels)
            if rows >= most_rows:
                break
    if rows:
        weights = choose_branch_weights(
            torch.cat(found, dim=1), torch.cat(labels), prior, model.task
        )
        model.branch_weights.copy_(torch.tensor(weights))
    if world_size() > 1:
        distributed.broadcast(model.branch_weights, src=0)


def choose_branch_weights(
    branches: torch.Tensor, labels: torch.Tensor, prior: float, task: Task = Task.SINGLE_LABEL
) -> tuple[float, float]:
    """The weights of two branches under which some rows are most likely, near a prior ratio.

    Their common scale calibrates the probabilities as a temperature would.

    Args:
        branches: float32 (2, rows, classes), logits of the recurrent and the linear branch.
        labels: as a `Batch` has them.
        prior: expected weight of the first against the second.
        task: what the labels are.

    Returns:
        The weight of each.
    """
    targets = targets_of(task)
    recurrent, linear = targets.branch_scores(branches)
    best = (math.inf, prior, 1.0)
    for ratio in _RATIOS:
        penalty = _STRENGTH * math.log(ratio / prior) ** 2
        for scale in _SCALES:
            logits = scale * (ratio * recurrent + linear)
            loss = float(targets.loss(logits, labels)) + penalty
            best = min(best, (loss, scale * ratio, scale))
    return best[1], best[2]
