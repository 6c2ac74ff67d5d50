"""One model that learns what an ensemble says of the training rows, beside their own labels.

Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531.
"""

import dataclasses

import numpy as np
import torch
from safetensors.numpy import save

from rnntune import storage
from rnntune.data.loader import scoring_batches
from rnntune.data.prepared import ShardRef
from rnntune.training.evaluation import score_batches
from rnntune.training.shared_dataset import SharedDataset
from rnntune.tuning.ensemble import SearchEnsemble

__all__ = ["SOFT_LABELS", "teach"]
SOFT_LABELS = "soft-labels"
"""Name of the folder, among those of the trials, of what an ensemble says of rows."""


def teach(ensemble: SearchEnsemble, feed: SharedDataset, uri: str) -> SharedDataset:
    """Give training and validation rows the probabilities of an ensemble.

    Validation rows have them for a second training on all rows (`train.refit`).

    Args:
        ensemble: of the same data.
        feed: the rows.
        uri: a folder for the probabilities; those of this ensemble that a killed process wrote are
            used, others are deleted.

    Returns:
        The rows with what every worker can read.

    Raises:
        StorageError: the probabilities cannot be written.
    """
    own = ensemble.fingerprint
    for name in storage.list_folder(uri):
        if name != own:
            storage.delete(storage.join(uri, name))
    parts = dict(feed.parts)
    for split in ("train", "validation"):
        parts[split] = [
            _with_soft_labels(ensemble, part, storage.join(uri, own, f"{split}-{number:05}"))
            for number, part in enumerate(feed.parts[split])
        ]
    return dataclasses.replace(feed, parts=parts, teacher=own)


def _with_soft_labels(ensemble: SearchEnsemble, part: ShardRef, uri: str) -> ShardRef:
    """A file of rows with the probabilities of an ensemble, which are written unless they are."""
    if not storage.exists(uri):
        num_classes = ensemble.network.num_classes
        probabilities = np.empty((part.num_rows, num_classes), dtype=np.float16)
        batches = scoring_batches([part.part()], padding=ensemble.packed)
        for scores in score_batches(ensemble.network, batches, torch.device("cpu")):
            probabilities[scores.rows.numpy()] = scores.probabilities.numpy()
        storage.write_bytes(uri, save({"probabilities": probabilities}))
    return dataclasses.replace(part, soft_labels=uri)
