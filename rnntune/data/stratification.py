"""Which row goes to which split, where the data has no files for one.

A row's split depends on a hash of its text alone: equal texts stay together, and neither the
number nor the order of blocks changes anything. The hash is uniform on [0, 1): the lowest values
are test rows, the next ones validation rows. With few rows of a class that alone would give it
too many or too few, or none; so texts close to the limits are reassigned until each class has its
share. Classes with many rows have theirs to a few percent and are left alone.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "SPLITS",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "ClassHashes",
    "Fractions",
    "Reassigned",
    "assign_splits",
    "hash_texts",
    "lowest_hashes",
    "text_slices",
]
SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
_MIN_ROWS = 2  # of a class in validation and in test, where it has enough
_EXACT_ROWS = 512  # held-out rows up to which a class has exactly its share
_MAX_KEPT = 2 * _EXACT_ROWS  # hashes of a class, on the driver
_LOWEST = 32  # hashes of a class in a block that are kept, however large
_SLICE_BYTES = 4 << 20
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Fractions:
    """Parts of the rows that become test rows, and of what is left, validation rows."""

    validation: float
    test: float

    @property
    def held_out(self) -> float:
        """Part of the rows in either."""
        return self.test + self.validation * (1 - self.test)


@dataclass(frozen=True)
class Reassigned:
    """Texts that go to another split than their hash alone says.

    Args:
        hashes: sorted, uint64 (texts,).
        parts: index in `SPLITS` of each, int8 (texts,).
    """

    hashes: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    parts: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, dtype=np.int8))


def hash_texts(texts: pa.StringArray, seed: int) -> Hashes:
    """A hash of each text, uint64 (rows,)."""
    parts = [np.empty(0, dtype=np.uint64)]
    for part in text_slices(texts):
        values = np.array(part.to_pylist(), dtype=object)
        key = f"{seed:016d}"[-16:]
        parts.append(pd.util.hash_array(values, hash_key=key, categorize=False))
    return np.concatenate(parts)


def text_slices(texts: pa.StringArray) -> Iterator[pa.StringArray]:
    """Rows in slices of a few megabytes: as Python strings and tokens they take many times that."""
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    number = np.cumsum(sizes, dtype=np.int64) // _SLICE_BYTES
    starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(texts)]
    for start, end in itertools.pairwise(starts):
        yield texts[start:end]


def assign_splits(
    hashes: Hashes, fractions: Fractions, reassigned: Reassigned | None = None
) -> npt.NDArray[np.int8]:
    """The split of each row, int8 (rows,), as index in `SPLITS`.

    Args:
        hashes: of the texts, uint64 (rows,).
        fractions: sizes of the splits.
        reassigned: exceptions.
    """
    quantile = hashes / 2.0**64
    parts = np.full(len(hashes), TRAIN, dtype=np.int8)
    parts[quantile < fractions.held_out] = VALIDATION
    parts[quantile < fractions.test] = TEST
    if reassigned is not None and len(reassigned.hashes):
        index = np.searchsorted(reassigned.hashes, hashes).clip(max=len(reassigned.hashes) - 1)
        moved = reassigned.hashes[index] == hashes
        parts[moved] = reassigned.parts[index[moved]]
    return parts


def lowest_hashes(
    hashes: Hashes, label_ids: npt.NDArray[np.int32], fractions: Fractions
) -> tuple[npt.NDArray[np.int32], Hashes]:
    """The rows of a block that `ClassHashes` needs.

    Args:
        hashes: of the texts, uint64 (rows,).
        label_ids: of the labels, int32 (rows,).
        fractions: sizes of the splits.

    Returns:
        Label ids, int32, and hashes, uint64, (kept rows,): below twice the limit, and in any case
        the lowest of each label.
    """
    order = np.lexsort((hashes, label_ids))
    hashes, label_ids = hashes[order], label_ids[order]
    starts = np.searchsorted(label_ids, label_ids)  # of each row's label
    rank = np.arange(len(hashes)) - starts
    kept = (hashes / 2.0**64 < 2 * fractions.held_out) | (rank < _LOWEST)
    return label_ids[kept], hashes[kept]


class ClassHashes:
    """The lowest hashes of each class over all blocks, in bounded memory.

    Args:
        fractions: sizes of the splits.
    """

    def __init__(self, fractions: Fractions) -> None:
        self._fractions = fractions
        self._num_rows: dict[str, int] = {}
        self._lowest: dict[str, Hashes] = {}

    def add(
        self,
        names: Sequence[str],
        class_rows: npt.NDArray[np.int64],
        label_ids: npt.NDArray[np.int32],
        hashes: Hashes,
    ) -> None:
        """Take in a block.

        Args:
            names: its labels.
            class_rows: rows of each, int64 (labels,).
            label_ids: as `lowest_hashes` gives them.
            hashes: as `lowest_hashes` gives them.
        """
        ends = np.searchsorted(label_ids, np.arange(len(names) + 1))
        for number, name in enumerate(names):
            self._num_rows[name] = self._num_rows.get(name, 0) + int(class_rows[number])
            new = hashes[ends[number] : ends[number + 1]]
            both = np.concatenate([self._lowest.get(name, hashes[:0]), new])
            self._lowest[name] = np.sort(both)[:_MAX_KEPT]

    def reassigned(self) -> Reassigned:
        """The texts that must move so that each class has its share of every split.

        A class keeps a text for training. Where classes share a text, the one with fewer rows
        decides.
        """
        moved: dict[int, int] = {}
        decided: set[int] = set()
        for name, num_rows in sorted(self._num_rows.items(), key=lambda item: (item[1], item[0])):
            texts, wanted, is_whole = self._wanted(num_rows, self._lowest[name])
            now = assign_splits(texts, self._fractions)
            free = np.array([text not in decided for text in texts.tolist()], dtype=bool)
            moves = free & (wanted != now)
            moved.update(zip(texts[moves].tolist(), wanted[moves].tolist(), strict=True))
            decided.update(texts.tolist() if is_whole else texts[moves].tolist())
        hashes = np.array(sorted(moved), dtype=np.uint64)
        return Reassigned(hashes, np.array([moved[h] for h in hashes.tolist()], dtype=np.int8))

    def _wanted(self, num_rows: int, lowest: Hashes) -> tuple[Hashes, npt.NDArray[np.int8], bool]:
        """A class's lowest texts, the split that each should be in, and whether these are all."""
        num_test, num_validation = self._targets(num_rows)
        if num_test + num_validation > _EXACT_ROWS:
            return lowest[:0], np.empty(0, dtype=np.int8), False
        below = int((lowest / 2.0**64 < 2 * self._fractions.held_out).sum())
        lowest = lowest[: max(below, _LOWEST)]  # what each block gave is complete up to here
        is_whole = len(lowest) == num_rows
        texts, counts = np.unique(lowest, return_counts=True)
        rows_before = np.cumsum(counts) - counts
        wanted = np.full(len(texts), TRAIN, dtype=np.int8)
        wanted[rows_before < num_test + num_validation] = VALIDATION
        wanted[rows_before < num_test] = TEST
        if is_whole:
            wanted[-1] = TRAIN
        return texts, wanted, is_whole

    def _targets(self, num_rows: int) -> tuple[int, int]:
        """Test and validation rows that a class with so many rows is to have."""
        fractions = self._fractions
        shares = 2 + bool(fractions.test and fractions.validation)
        fewest = min(_MIN_ROWS, num_rows // shares)
        num_test = max(round(num_rows * fractions.test), fewest) if fractions.test else 0
        left = num_rows - num_test
        if not fractions.validation:
            return num_test, 0
        if num_rows == 2 and fractions.test:
            return 0, 1
        return num_test, max(round(left * fractions.validation), fewest)
