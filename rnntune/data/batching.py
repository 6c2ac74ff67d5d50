"""Rows to batches: the `Batch` type, the seeded bucket plan, collate. Pure numpy and torch.

A plan is a function of the lengths, the settings, the seed and the epoch alone, so every rank
makes the same one: rank r of w takes batches r, r + w, r + 2w, ... and knows, without asking,
how many rows all ranks hold in each step.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnntune.config.schema import BatchingConfig

__all__ = ["Batch", "BatchPlan", "EncodedRows", "collate", "plan_batches", "plan_scoring"]
_UNIFORM_ROWS = 8  # measured: fewer rows of one length go faster with others, packed
_SCORED_CELLS = 1 << 18  # of a batch that is scored; its n-grams take up to 150 MB
IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedRows:
    """Rows as token ids, one after the other.

    Args:
        ids: int32 (tokens,).
        lengths: int32 (rows,), each at least 1.
        labels: int64 (rows,), the classes; or uint8 (rows, classes), 1 for each class of the row.
        soft: float16 (rows, classes), probabilities that another model gives them, or None.
    """

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    labels: npt.NDArray[Any]
    soft: npt.NDArray[np.float16] | None = None

    starts: IntArray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        assert len(self.lengths) == len(self.labels)
        object.__setattr__(self, "starts", np.cumsum(self.lengths, dtype=np.int64) - self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def concatenate(cls, parts: Sequence["EncodedRows"]) -> "EncodedRows":
        """Join parts in order."""
        if len(parts) == 1:
            return parts[0]
        soft = [part.soft for part in parts if part.soft is not None]
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            soft=np.concatenate(soft) if len(soft) == len(parts) else None,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows that go through the network together.

    Args:
        ids: int64 (batch, time), zero where padded.
        lengths: int64 (batch,), on the CPU.
        labels: int64 (batch,); of rows with sets of classes float32 (batch, classes), 0 or 1.
        soft: float32 (batch, classes), probabilities of another model to learn from, or None.
        rows: int64 (batch,), where the rows stand in what was batched.
        same_length: whether all lengths are equal, so that there is no padding.
        global_rows: rows that all ranks hold in this step.
        position: batches of the epoch taken by all ranks when this step is done.
        weight: 0 for a batch that only keeps the ranks in step, else 1.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    same_length: bool
    global_rows: int
    position: int = 0
    weight: int = 1
    soft: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch with ids, labels and soft labels on a device."""
        if device.type == "cpu":
            return self
        ids, labels, soft = (
            None if tensor is None else tensor.pin_memory().to(device, non_blocking=True)
            for tensor in (self.ids, self.labels, self.soft)
        )
        assert ids is not None
        assert labels is not None
        return dataclasses.replace(self, ids=ids, labels=labels, soft=soft)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which rows make which batch.

    Args:
        order: int64 (rows,), every row once.
        starts: int64 (batches + 1,); batch b is `order[starts[b]:starts[b + 1]]`.
    """

    order: IntArray
    starts: IntArray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, batch: int) -> IntArray:
        """The rows of a batch, int64 (batch,)."""
        return self.order[self.starts[batch] : self.starts[batch + 1]]

    def padding(self, lengths: npt.NDArray[np.int32]) -> tuple[int, int]:
        """Padded cells and all cells of the batches."""
        if not len(self):
            return 0, 0
        longest = np.maximum.reduceat(lengths[self.order], self.starts[:-1]).astype(np.int64)
        cells = int((longest * np.diff(self.starts)).sum())
        return cells - int(lengths.sum()), cells

    def steps(
        self, encoded: EncodedRows, rank: int, world_size: int, *, start: int = 0, before: int = 0
    ) -> Iterator[Batch]:
        """The batches of one rank, the same number for every rank.

        Args:
            encoded: the rows that were planned.
            rank: this rank.
            world_size: number of ranks.
            start: batches of this plan, over all ranks, that were already taken.
            before: batches of the epoch that came before this plan.

        Yields:
            One batch a step; in the last step, ranks that are left without rows get the
            first batch again with weight 0.
        """
        for first in range(start, len(self), world_size):
            last = min(first + world_size, len(self))
            mine = first + rank if first + rank < last else first
            yield dataclasses.replace(
                collate(encoded, self.rows(mine)),
                global_rows=int(self.starts[last] - self.starts[first]),
                position=before + last,
                weight=int(first + rank < last),
            )


def collate(encoded: EncodedRows, rows: IntArray) -> Batch:
    """Gather rows into a batch; only a batch of several lengths is padded."""
    lengths = encoded.lengths[rows]
    longest = int(lengths.max())
    same_length = bool((lengths == longest).all())
    cells = encoded.starts[rows][:, None] + np.arange(longest)  # (batch, time)
    if same_length:
        ids = encoded.ids[cells]
    else:
        inside = np.arange(longest) < lengths[:, None]
        ids = np.where(inside, encoded.ids[np.where(inside, cells, 0)], 0)
    labels = encoded.labels[rows]
    soft = None if encoded.soft is None else encoded.soft[rows].astype(np.float32)
    return Batch(
        ids=torch.from_numpy(ids.astype(np.int64)),
        lengths=torch.from_numpy(lengths.astype(np.int64)),
        labels=torch.from_numpy(labels if labels.ndim == 1 else labels.astype(np.float32)),
        soft=None if soft is None else torch.from_numpy(soft),
        rows=torch.from_numpy(rows),
        same_length=same_length,
        global_rows=len(rows),
    )


def plan_batches(
    lengths: npt.NDArray[np.int32],
    config: BatchingConfig,
    *,
    seed: int,
    epoch: int,
    part: int = 0,
    ranks: int = 1,
    default_width: int = 1,
) -> BatchPlan:
    """Group rows of like length into batches, in an order drawn anew for each epoch.

    Full batches hold one bucket; what is left of the buckets is grouped with its neighbours
    in length. Batches of like length stand together in groups of `ranks`, so that ranks in
    the same step have like work.

    Args:
        lengths: int32 (rows,).
        config: size of batches and buckets.
        seed: seed of the run.
        epoch: number of the epoch.
        part: number of the part of the epoch that these rows are.
        ranks: largest number of ranks that share the plan.
        default_width: bucket width if the configuration leaves it open.
    """
    random = np.random.default_rng([seed, epoch, part])
    order = random.permutation(len(lengths))
    if not config.bucketing:
        return BatchPlan(order=order, starts=_cut(lengths[order], config))
    width = config.bucket_width or default_width
    buckets = (lengths[order] - 1) // width
    by_bucket = np.argsort(buckets, kind="stable")
    order, buckets = order[by_bucket], buckets[by_bucket]
    caps = _rows_that_fit((buckets + 1) * width, config)
    _, first, counts = np.unique(buckets, return_index=True, return_counts=True)
    full = counts // caps[first] * caps[first] if len(first) else counts
    position_in_bucket = np.arange(len(order)) - np.repeat(first, counts)  # of a row in its bucket
    in_full = position_in_bucket < np.repeat(full, counts)
    full_starts = _run_starts(buckets[in_full], (position_in_bucket // caps)[in_full])
    tails = order[~in_full]
    tails = tails[np.argsort(lengths[tails], kind="stable")]
    tail_starts = _cut(lengths[tails], config)
    starts = np.concatenate([full_starts, tail_starts[:-1] + int(in_full.sum()), [len(order)]])
    return _shuffled(np.concatenate([order[in_full], tails]), starts, lengths, ranks, random)


def plan_scoring(
    lengths: npt.NDArray[np.int32], batch_rows: int = 256, *, padding: bool = True
) -> BatchPlan:
    """Every row once: batches of one length, then batches of the lengths that few rows have.

    Batches of long texts hold fewer rows: a network keeps numbers of every n-gram of a batch.

    Args:
        lengths: int32 (rows,).
        batch_rows: most rows in a batch.
        padding: put lengths that few rows have together, which is faster; without it every
            batch holds one length, for a model that reads the padding.
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    values, counts = np.unique(lengths, return_counts=True)
    common = counts >= (_UNIFORM_ROWS if padding else 1)
    own = np.repeat(common, counts)
    limits = BatchingConfig(batch_rows=batch_rows, max_tokens=_SCORED_CELLS)
    starts: list[int] = []
    end = 0
    for longest, rows in zip(values[common].tolist(), counts[common].tolist(), strict=True):
        most = min(batch_rows, max(1, _SCORED_CELLS // longest))
        starts.extend(range(end, end + rows, most))
        end += rows
    mixed = _cut(lengths[order[~own]], limits) + end
    return BatchPlan(
        order=np.concatenate([order[own], order[~own]]),
        starts=np.concatenate([np.array(starts, dtype=np.int64), mixed]),
    )


def _rows_that_fit(longest: npt.NDArray[np.int32], config: BatchingConfig) -> IntArray:
    if config.max_tokens is None:
        return np.full(len(longest), config.batch_rows, dtype=np.int64)
    return np.clip(config.max_tokens // longest, 1, config.batch_rows).astype(np.int64)


def _cut(lengths: npt.NDArray[np.int32], config: BatchingConfig) -> IntArray:
    """Starts of consecutive batches (and the end) that keep within rows and tokens."""
    if config.max_tokens is None:
        return np.append(np.arange(0, len(lengths), config.batch_rows), len(lengths))
    starts, longest = [0], 0
    for row, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        rows = row - starts[-1] + 1
        if rows > 1 and (rows > config.batch_rows or rows * longest > config.max_tokens):
            starts.append(row)
            longest = length
    return np.array([*starts, len(lengths)] if len(lengths) else [0], dtype=np.int64)


def _run_starts(buckets: IntArray, pieces: IntArray) -> IntArray:
    """Where runs of an equal pair of bucket and piece start."""
    if not len(buckets):
        return np.empty(0, dtype=np.int64)
    change = (np.diff(buckets) != 0) | (np.diff(pieces) != 0)
    return np.concatenate([[0], np.flatnonzero(change) + 1])


def _shuffled(
    order: IntArray,
    starts: IntArray,
    lengths: npt.NDArray[np.int32],
    ranks: int,
    random: np.random.Generator,
) -> BatchPlan:
    sizes = np.diff(starts)
    num_batches = len(sizes)
    if not num_batches:
        return BatchPlan(order=order, starts=starts)
    longest = np.maximum.reduceat(lengths[order], starts[:-1])
    by_length = np.lexsort((sizes, longest))
    num_groups = num_batches // ranks
    groups = random.permutation(num_groups)
    grouped = by_length[: num_groups * ranks].reshape(num_groups, ranks)[groups].ravel()
    batches = np.concatenate([grouped, by_length[num_groups * ranks :]])
    pieces = [order[starts[batch] : starts[batch + 1]] for batch in batches]
    return BatchPlan(
        order=np.concatenate(pieces), starts=np.concatenate([[0], np.cumsum(sizes[batches])])
    )
