"""Lanes: the order of an epoch's batches where the rows are more than one window.

Window n is of lane n mod V. In each epoch a lane takes its windows in an order of its own, and the
lanes go on together: a round has one window of each. Batch b of a round is of lane b mod V, and V
batches in a row have like lengths, so that W ranks, where W divides V, touch V / W lanes each and
do not wait for each other, and the batches are the same for every such W. All of this follows from
how many rows of each length a window has, without reading a row.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from rnntune.config.schema import BatchingConfig
from rnntune.data.batching import BatchPlan, IntArray, plan_batches

__all__ = ["DEFAULT_LANES", "LaneRound", "num_lanes", "order_windows", "plan_round"]
DEFAULT_LANES = 16
_MOST_LANES = 64


def num_lanes(world_sizes: Iterable[int]) -> int:
    """How many lanes a run has: at least 16, and a multiple of as many of its sizes as possible.

    1, 2, 4, 8 and 16 ranks have the same lanes. Ranks whose number divides the lanes read a share
    of the rows each; others make the same batches, but read windows of other ranks, too.

    Args:
        world_sizes: numbers of ranks that the run may have.
    """
    sizes = set(world_sizes)
    lanes = range(DEFAULT_LANES, max(_MOST_LANES, *sizes) + 1)
    return max(lanes, key=lambda number: (sum(number % size == 0 for size in sizes), -number))


def order_windows(num_windows: int, lanes: int, seed: int, epoch: int) -> list[list[int | None]]:
    """The window of each lane in each round of an epoch; None for a lane that has no more.

    Args:
        num_windows: of all lanes.
        lanes: how many there are.
        seed: of the run.
        epoch: number of the epoch.
    """
    orders = [
        np.random.default_rng([seed, epoch, lane])
        .permutation(np.arange(lane, num_windows, lanes))
        .tolist()
        for lane in range(lanes)
    ]
    rounds = -(-num_windows // lanes)
    return [[o[number] if number < len(o) else None for o in orders] for number in range(rounds)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaneRound:
    """The batches that a window of each lane makes.

    Args:
        windows: of each lane; None: none.
        plans: of each window, over its rows sorted by length.
        batches: int64 (slots,), for each slot the batch of its lane's plan, -1: none; slot s is
            of lane s mod V.
        sizes: int64 (slots,), rows of each slot.
        padded_cells: padding of all batches.
        cells: of all batches.
    """

    windows: Sequence[int | None]
    plans: Sequence[BatchPlan | None]
    batches: IntArray
    sizes: IntArray
    padded_cells: int
    cells: int

    def __len__(self) -> int:
        return len(self.batches)

    def lane(self, slot: int) -> int:
        """The lane of a slot."""
        return slot % len(self.windows)

    def steps(self, world_size: int, start: int = 0) -> Iterator[tuple[int, int, int]]:
        """The steps that so many ranks make of the slots from `start` on.

        Yields:
            The slot of rank 0, that of rank r being r more; the step's first slot and its end.
        """
        for first in range(start - start % world_size, len(self), world_size):
            begin, end = max(first, start), min(first + world_size, len(self))
            if self.sizes[begin:end].any():
                yield first, begin, end

    def windows_of(self, rank: int, world_size: int) -> list[int]:
        """The windows that a rank reads."""
        lanes = len(self.windows)
        own = range(rank, lanes, world_size) if lanes % world_size == 0 else range(lanes)
        return [window for lane in own if (window := self.windows[lane]) is not None]


def plan_round(
    windows: Sequence[int | None],
    length_rows: Sequence[npt.NDArray[np.int64]],
    config: BatchingConfig,
    *,
    seed: int,
    epoch: int,
    number: int,
    default_width: int = 1,
) -> LaneRound:
    """Plan the batches of a round.

    Args:
        windows: of each lane.
        length_rows: of every window, how many rows it has of each length, from 0.
        config: size of batches and buckets.
        seed: of the run.
        epoch: number of the epoch.
        number: of the round.
        default_width: bucket width if the configuration leaves it open.
    """
    plans: list[BatchPlan | None] = []
    ordered: list[IntArray] = []  # batches of each lane by length
    padded = cells = 0
    for window in windows:
        if window is None:
            plans.append(None)
            ordered.append(np.empty(0, dtype=np.int64))
            continue
        rows = length_rows[window]
        lengths = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
        plan = plan_batches(
            lengths, config, seed=seed, epoch=epoch, part=window, default_width=default_width
        )
        plans.append(plan)
        longest = np.maximum.reduceat(lengths[plan.order], plan.starts[:-1])
        ordered.append(np.lexsort((np.diff(plan.starts), longest)))
        more_padded, more_cells = plan.padding(lengths)
        padded, cells = padded + more_padded, cells + more_cells
    most = max(map(len, ordered))
    table = np.full((most, len(windows)), -1, dtype=np.int64)
    sizes = np.zeros_like(table)
    for lane, (plan_of_lane, batches) in enumerate(zip(plans, ordered, strict=True)):
        if plan_of_lane is not None:
            quantiles = np.arange(len(batches)) * most // len(batches)
            table[quantiles, lane] = batches
            sizes[quantiles, lane] = np.diff(plan_of_lane.starts)[batches]
    order = np.random.default_rng([seed, epoch, number, len(windows)]).permutation(most)
    return LaneRound(
        windows=windows,
        plans=plans,
        batches=table[order].ravel(),
        sizes=sizes[order].ravel(),
        padded_cells=padded,
        cells=cells,
    )
