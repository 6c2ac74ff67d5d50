"""The batches of an epoch, for one rank: training rows a window at a time, and rows to score."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rnntune.batching import Batch, EncodedRows, IntArray, collate, plan_batches, plan_scoring
from rnntune.config import BatchingConfig

__all__ = ["Part", "TrainBatches", "scoring_batches"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a split that can be loaded on its own.

    Args:
        num_rows: rows in it.
        load: gives the rows.
    """

    num_rows: int
    load: Callable[[], EncodedRows]


def _windows(parts: Sequence[Part], order: IntArray, window_rows: int) -> list[list[Part]]:
    windows: list[list[Part]] = [[]]
    rows = 0
    for part in (parts[number] for number in order):
        if windows[-1] and rows + part.num_rows > window_rows:
            windows.append([])
            rows = 0
        windows[-1].append(part)
        rows += part.num_rows
    return windows


class TrainBatches:
    """One rank's batches of training rows, epoch by epoch.

    Rows are planned a window of parts at a time, so memory does not grow with the data;
    parts take turns in an order drawn anew for each epoch. Data that fits one window is
    shuffled as a whole and stays loaded.

    Args:
        parts: the training rows.
        config: size of batches and buckets.
        seed: seed of the order.
        rank: this rank.
        world_size: number of ranks.
        max_ranks: largest number of ranks in the run, so that the plan outlives a change.
        default_width: bucket width if the configuration leaves it open.
        window_rows: most rows that are loaded at a time.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        config: BatchingConfig,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        max_ranks: int | None = None,
        default_width: int = 1,
        window_rows: int = 262_144,
    ) -> None:
        self._parts = [part for part in parts if part.num_rows]
        self._config = config
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._max_ranks = max_ranks or world_size
        self._default_width = default_width
        self._window_rows = window_rows
        self._loaded: EncodedRows | None = None
        self.num_rows = sum(part.num_rows for part in self._parts)
        self.padded_cells = self.cells = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch after the first `start`, counted over all ranks."""
        order = np.arange(len(self._parts))
        if self.num_rows > self._window_rows:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._parts))
        before = 0
        for number, window in enumerate(_windows(self._parts, order, self._window_rows)):
            encoded = self._load(window)
            plan = plan_batches(
                encoded.lengths,
                self._config,
                seed=self._seed,
                epoch=epoch,
                part=number,
                ranks=self._max_ranks,
                default_width=self._default_width,
            )
            padded, cells = plan.padding(encoded.lengths)
            self.padded_cells += padded
            self.cells += cells
            skip = min(max(start - before, 0), len(plan))
            yield from plan.steps(encoded, self._rank, self._world_size, start=skip, before=before)
            before += len(plan)

    def _load(self, window: Sequence[Part]) -> EncodedRows:
        if self._loaded is not None:
            return self._loaded
        encoded = EncodedRows.concatenate([part.load() for part in window])
        if len(window) == len(self._parts):
            self._loaded = encoded
        return encoded


def scoring_batches(
    parts: Sequence[Part],
    rank: int = 0,
    world_size: int = 1,
    batch_rows: int = 256,
    *,
    padding: bool = True,
) -> Iterator[Batch]:
    """One rank's share of the rows for evaluation: every row once over all ranks.

    Args:
        parts: the rows.
        rank: this rank.
        world_size: number of ranks.
        batch_rows: most rows in a batch.
        padding: see `plan_scoring`.

    Yields:
        Batches sorted by length within a part; `rows` count from the start of the split.
    """
    start = number = 0
    for part in parts:
        encoded = part.load()
        plan = plan_scoring(encoded.lengths, batch_rows, padding=padding)
        for batch in range(len(plan)):
            number += 1
            if number % world_size == rank:
                found = collate(encoded, plan.rows(batch))
                yield dataclasses.replace(found, rows=found.rows + start)
        start += part.num_rows
