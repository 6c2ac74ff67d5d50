"""The batches of an epoch, for one rank: training rows a window at a time, and rows to score."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from rnntune.config.schema import BatchingConfig
from rnntune.data.batching import Batch, EncodedRows, IntArray, collate, plan_batches, plan_scoring
from rnntune.data.lanes import DEFAULT_LANES, LaneRound, order_windows, plan_round

__all__ = ["WINDOW_ROWS", "Shard", "TrainBatches", "scoring_batches"]
WINDOW_ROWS = 262_144
"""Training rows that are loaded and shuffled as a whole; more are read in lanes."""
_SHARED_PARTS = 4  # of a rank: so many are dealt out to the ranks whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a split that can be loaded on its own.

    Args:
        num_rows: rows in it.
        load: gives the rows.
        length_rows: rows of each length, from 0; None: they must be loaded to know.
    """

    num_rows: int
    load: Callable[[], EncodedRows]
    length_rows: npt.NDArray[np.int64] | None = None


class TrainBatches:
    """One rank's batches of training rows, epoch by epoch.

    Rows that fit one window are shuffled as a whole and stay loaded. More rows are read a window
    of each lane at a time, the next ones on a thread meanwhile, so that memory does not grow with
    the data; a rank reads its own lanes. See `lanes`.

    Args:
        parts: the training rows; more than one window of them are the windows.
        config: size of batches and buckets.
        seed: seed of the order.
        rank: this rank.
        world_size: number of ranks.
        max_ranks: largest number of ranks in the run, so that the plan outlives a change.
        lanes: how many there are, where the rows are more than one window.
        default_width: bucket width if the configuration leaves it open.
        window_rows: most rows of one window.
    """

    def __init__(
        self,
        parts: Sequence[Shard],
        config: BatchingConfig,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        max_ranks: int | None = None,
        lanes: int = DEFAULT_LANES,
        default_width: int = 1,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        self._parts = [part for part in parts if part.num_rows]
        self._config = config
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._max_ranks = max_ranks or world_size
        self._lanes = lanes
        self.default_width = default_width
        self._window_rows = window_rows
        self._loaded: EncodedRows | None = None
        self._length_rows: list[npt.NDArray[np.int64]] | None = None
        self.num_rows = sum(part.num_rows for part in self._parts)
        self.padded_cells = self.cells = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch after the first `start`, counted over all ranks."""
        if self.num_rows > self._window_rows:
            yield from self._lane_epoch(epoch, start)
            return
        if self._loaded is None:
            self._loaded = EncodedRows.concatenate([part.load() for part in self._parts])
        plan = plan_batches(
            self._loaded.lengths,
            self._config,
            seed=self._seed,
            epoch=epoch,
            ranks=self._max_ranks,
            default_width=self.default_width,
        )
        padded, cells = plan.padding(self._loaded.lengths)
        self.padded_cells += padded
        self.cells += cells
        yield from plan.steps(self._loaded, self._rank, self._world_size, start=start)

    def _lane_epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        if self._length_rows is None:
            self._length_rows = [_length_rows(part) for part in self._parts]
        order = order_windows(len(self._parts), self._lanes, self._seed, epoch)
        before = 0
        spare: Batch | None = None  # of this rank, for steps that have no rows for it
        with _ReadAhead(self._parts) as reader:
            for number, windows in enumerate(order):
                plan = plan_round(
                    windows,
                    self._length_rows,
                    self._config,
                    seed=self._seed,
                    epoch=epoch,
                    number=number,
                    default_width=self.default_width,
                )
                self.padded_cells += plan.padded_cells
                self.cells += plan.cells
                skip = min(max(start - before, 0), len(plan))
                if skip < len(plan):
                    reader.request(plan.windows_of(self._rank, self._world_size))
                    reader.request(self._next_windows(order, number))
                for batch in self._round(plan, reader, skip, before, spare):
                    spare = batch
                    yield batch
                reader.drop(windows)
                before += len(plan)

    def _next_windows(self, order: Sequence[Sequence[int | None]], number: int) -> list[int]:
        """The windows that this rank reads in the round after a round."""
        if number + 1 == len(order):
            return []
        empty = np.empty(0, dtype=np.int64)
        following = LaneRound(
            windows=order[number + 1], plans=(), batches=empty, sizes=empty, padded_cells=0, cells=0
        )
        return following.windows_of(self._rank, self._world_size)

    def _round(
        self, plan: LaneRound, reader: "_ReadAhead", skip: int, before: int, spare: Batch | None
    ) -> Iterator[Batch]:
        for first, begin, end in plan.steps(self._world_size, skip):
            slot = first + self._rank
            has_rows = begin <= slot < end and bool(plan.sizes[slot])
            if has_rows or spare is None:
                filled = slot if has_rows else begin + int(plan.sizes[begin:end].argmax())
                spare = self._collate(plan, reader, filled)
            yield dataclasses.replace(
                spare,
                global_rows=int(plan.sizes[begin:end].sum()),
                position=before + end,
                weight=int(has_rows),
            )

    @staticmethod
    def _collate(plan: LaneRound, reader: "_ReadAhead", slot: int) -> Batch:
        lane = plan.lane(slot)
        window, of_window = plan.windows[lane], plan.plans[lane]
        assert window is not None
        assert of_window is not None
        rows, by_length = reader.get(window)
        return collate(rows, by_length[of_window.rows(int(plan.batches[slot]))])

    def once(self) -> Iterator[Batch]:
        """This rank's share of the rows, each once over all ranks and in no order."""
        return scoring_batches(self._parts, self._rank, self._world_size)


def _length_rows(part: Shard) -> npt.NDArray[np.int64]:
    """How many rows a part has of each length, from 0."""
    if part.length_rows is not None:
        return part.length_rows
    return np.bincount(part.load().lengths)


class _ReadAhead:
    """Windows that a thread loads before they are needed.

    Args:
        parts: the windows.
    """

    def __init__(self, parts: Sequence[Shard]) -> None:
        self._parts = parts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._windows: dict[int, Future[tuple[EncodedRows, IntArray]]] = {}

    def __enter__(self) -> "_ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def request(self, windows: Iterable[int]) -> None:
        """Load windows when those that were asked for before are loaded."""
        for window in windows:
            if window not in self._windows:
                self._windows[window] = self._thread.submit(self._load, window)

    def get(self, window: int) -> tuple[EncodedRows, IntArray]:
        """The rows of a window, and their order by length, int64 (rows,)."""
        self.request([window])
        return self._windows[window].result()

    def drop(self, windows: Iterable[int | None]) -> None:
        """Forget windows."""
        for window in windows:
            if window is not None:
                self._windows.pop(window, None)

    def _load(self, window: int) -> tuple[EncodedRows, IntArray]:
        rows = self._parts[window].load()
        return rows, np.argsort(rows.lengths, kind="stable")


def scoring_batches(
    parts: Sequence[Shard],
    rank: int = 0,
    world_size: int = 1,
    batch_rows: int = 256,
    *,
    padding: bool = True,
) -> Iterator[Batch]:
    """One rank's share of the rows for evaluation: every row once over all ranks.

    Of many parts a rank loads its own alone; of few it takes a share of the batches of each.

    Args:
        parts: the rows.
        rank: this rank.
        world_size: number of ranks.
        batch_rows: most rows in a batch.
        padding: see `plan_scoring`.

    Yields:
        Batches sorted by length within a part; `rows` count from the start of the split.
    """
    by_part = len(parts) >= _SHARED_PARTS * world_size
    start = number = 0
    for part_number, part in enumerate(parts):
        if not by_part or part_number % world_size == rank:
            encoded = part.load()
            plan = plan_scoring(encoded.lengths, batch_rows, padding=padding)
            for batch in range(len(plan)):
                number += 1
                if by_part or number % world_size == rank:
                    found = collate(encoded, plan.rows(batch))
                    yield dataclasses.replace(found, rows=found.rows + start)
        start += part.num_rows
