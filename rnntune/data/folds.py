"""Folds of small data: every row validates once, and trains all other times."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from rnntune.data.batching import EncodedRows
from rnntune.errors import DataError

__all__ = ["assign_folds", "split_fold"]


def assign_folds(rows: EncodedRows, num_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold in which each row validates, int64 (rows,).

    Equal texts fall into one fold, and each class is spread evenly over the folds. A row's fold
    depends on its tokens, on the other rows and on the seed, never on their order, so that it is
    the same for any number of blocks. Where classes share a text, the one with fewer rows decides.
    A row of several labels counts as one of the rarest of them.

    Args:
        rows: that are to be divided.
        num_folds: at least 2.
        seed: of the division.

    Raises:
        DataError: there are fewer different texts than folds.
    """
    hashes = _hash_rows(rows, seed)
    labels = _rarest_labels(rows.labels) if rows.labels.ndim == 2 else rows.labels
    class_rows = np.bincount(labels)
    by_class = np.lexsort((labels, class_rows[labels], hashes))
    texts, first = np.unique(hashes[by_class], return_index=True)
    owners = labels[by_class][first]  # the class that decides over each text
    if len(texts) < num_folds:
        raise DataError(f"{num_folds} folds need as many different texts; there are {len(texts)}")
    folds = np.empty(len(texts), dtype=np.int64)
    # A class goes on in the fold after the last class's, so that rare ones miss different folds.
    folds[np.lexsort((texts, owners))] = np.arange(len(texts)) % num_folds
    return folds[np.searchsorted(texts, hashes)]


def _rarest_labels(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For sets of labels, (rows, classes), the rarest one of each row; without one a class more."""
    num_rows, num_classes = labels.shape
    rarity = np.where(labels, labels.sum(axis=0, dtype=np.int64), num_rows + 1)
    numbers: npt.NDArray[np.int64] = rarity.argmin(axis=1)
    return np.where(labels.any(axis=1), numbers, num_classes)


def _hash_rows(rows: EncodedRows, seed: int) -> npt.NDArray[np.uint64]:
    """A hash of the tokens of each row, uint64 (rows,)."""
    ends = rows.starts + rows.lengths
    texts = np.array(
        [rows.ids[start:end].tobytes() for start, end in zip(rows.starts, ends, strict=True)],
        dtype=object,
    )
    return pd.util.hash_array(texts, hash_key=f"{seed:016d}"[-16:], categorize=False)


def split_fold(
    rows: EncodedRows, folds: npt.NDArray[np.int64], fold: int
) -> tuple[EncodedRows, EncodedRows]:
    """The training and the validation rows of a fold.

    Args:
        rows: all of them.
        folds: as `assign_folds` gives them.
        fold: number of the fold, from 0.
    """
    return _selected(rows, folds != fold), _selected(rows, folds == fold)


def _selected(rows: EncodedRows, chosen: npt.NDArray[np.bool_]) -> EncodedRows:
    return EncodedRows(
        ids=rows.ids[np.repeat(chosen, rows.lengths)],
        lengths=rows.lengths[chosen],
        labels=rows.labels[chosen],
    )
