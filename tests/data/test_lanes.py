"""Lanes: the same batches for any number of ranks that divides them, each row once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import coded_rows

from rnntune.config.schema import BatchingConfig
from rnntune.data.lanes import num_lanes, order_windows, plan_round
from rnntune.data.loader import Shard, TrainBatches


def test_the_usual_numbers_of_ranks_have_the_same_lanes():
    assert {num_lanes([ranks]) for ranks in (1, 2, 4, 8, 16)} == {16}
    assert num_lanes([1, 2, 4]) == 16
    assert num_lanes([3]) % 3 == 0
    assert all(num_lanes(range(2, 5)) % ranks == 0 for ranks in (2, 3, 4))
    assert num_lanes([100]) == 100
    assert sum(num_lanes(range(1, 9)) % ranks == 0 for ranks in range(1, 9)) >= 6


def shards(seed: int, num_windows: int, loads: list[int] | None = None) -> list[Shard]:
    """Windows of rows whose labels number all rows."""
    random = np.random.default_rng(seed)
    found, start = [], 0
    for number in range(num_windows):
        rows = coded_rows(random.integers(1, 12, random.integers(1, 30)))
        rows.labels[:] += start
        start += len(rows)

        def load(rows=rows, number=number):
            if loads is not None:
                loads.append(number)
            return rows

        known = np.bincount(rows.lengths)
        found.append(Shard(num_rows=len(rows), load=load, length_rows=known))
    return found


def steps(parts, rank, world_size, lanes, *, epoch=0, start=0, seed=0):
    batches = TrainBatches(
        parts, BatchingConfig(batch_rows=4), seed=seed, rank=rank, world_size=world_size,
        lanes=lanes, window_rows=1,
    )  # fmt: skip
    return list(batches.epoch(epoch, start))


def flat(lists) -> list[int]:
    return [*itertools.chain.from_iterable(lists)]


def sequence(parts, world_size, lanes, **given_):
    """The rows of all batches in order, and what every step says of all ranks."""
    of_ranks = [steps(parts, rank, world_size, lanes, **given_) for rank in range(world_size)]
    assert len({len(of_rank) for of_rank in of_ranks}) == 1
    rows = []
    for batches in zip(*of_ranks, strict=True):
        assert len({(batch.global_rows, batch.position) for batch in batches}) == 1
        held = [batch.labels.tolist() for batch in batches if batch.weight]
        assert sum(map(len, held)) == batches[0].global_rows > 0
        rows += held
    return rows


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(0, 3))
def test_batches_are_the_same_for_any_ranks_that_divide_the_lanes(seed, num_windows, epoch):
    parts = shards(seed, num_windows)
    whole = sequence(parts, 1, 8, epoch=epoch)
    assert sorted(flat(whole)) == list(range(sum(part.num_rows for part in parts)))
    for world_size in (2, 4, 8):
        assert sequence(parts, world_size, 8, epoch=epoch) == whole


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 7), st.integers(1, 9))
def test_each_row_once_for_any_ranks_and_lanes(seed, num_windows, world_size, lanes):
    parts = shards(seed, num_windows)
    rows = flat(sequence(parts, world_size, lanes))
    assert sorted(rows) == list(range(sum(part.num_rows for part in parts)))


def test_batches_do_not_depend_on_the_order_of_equal_lengths_alone():
    parts = shards(0, 20)
    assert sequence(parts, 1, 4, epoch=0) != sequence(parts, 1, 4, epoch=1)
    assert sequence(parts, 1, 4, seed=0) != sequence(parts, 1, 4, seed=1)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_rank_loads_its_lanes_alone(world_size):
    of_ranks = []
    for rank in range(world_size):
        loads: list[int] = []
        steps(shards(3, 40, loads), rank, world_size, 8)
        of_ranks.append(loads)
    for rank, loads in enumerate(of_ranks):
        assert {number % 8 % world_size for number in loads} == {rank}
    assert sorted(flat(of_ranks)) == list(range(40))


def test_going_on_loads_what_is_left_alone():
    loads: list[int] = []
    parts = shards(4, 160, loads)
    whole = steps(parts, 0, 1, 8)
    start = whole[len(whole) * 9 // 10].position
    loads.clear()
    rest = steps(parts, 0, 1, 8, start=start)
    wanted = [batch.labels.tolist() for batch in whole if batch.position > start]
    assert [batch.labels.tolist() for batch in rest] == wanted
    assert len(loads) <= 24  # of 160: the windows of two rounds of twenty, and of the one begun


def test_batches_of_a_step_have_like_lengths():
    random = np.random.default_rng(0)
    length_rows = [np.bincount(random.integers(5, 60, 2_000)) for _ in range(16)]
    config = BatchingConfig(batch_rows=32)
    (windows,) = order_windows(16, 16, 0, 0)
    plan = plan_round(windows, length_rows, config, seed=0, epoch=0, number=0)
    longest = []
    for slot, batch in enumerate(plan.batches):
        of_lane = plan.plans[plan.lane(slot)]
        lengths = np.repeat(np.arange(60), length_rows[windows[plan.lane(slot)]])
        longest.append(lengths[of_lane.rows(batch)].max() if batch >= 0 else 0)
    longest = np.array(longest).reshape(-1, 16)
    waited = (
        1 - longest[longest > 0].sum() / (longest.max(axis=1) * (longest > 0).sum(axis=1)).sum()
    )
    assert waited < 0.05
    assert plan.padded_cells / plan.cells < 0.02
