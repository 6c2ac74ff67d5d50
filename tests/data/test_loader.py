"""What is loaded, and when: a window at a time, once where all of it fits one."""

import time

import numpy as np
import pytest
from strategies import coded_rows

from rnntune.config.schema import BatchingConfig
from rnntune.data.loader import Shard, TrainBatches, scoring_batches

PART_ROWS, NUM_PARTS = 10, 6


@pytest.fixture
def loads():
    """Numbers of the parts that were loaded, in order."""
    return []


@pytest.fixture
def parts(loads):
    def load(number: int):
        loads.append(number)
        rows = coded_rows(np.full(PART_ROWS, 3, dtype=np.int32))
        rows.labels[:] = np.arange(PART_ROWS) + PART_ROWS * number
        return rows

    return [
        Shard(
            num_rows=PART_ROWS,
            load=lambda number=number: load(number),
            length_rows=np.array([0, 0, 0, PART_ROWS]),
        )
        for number in range(NUM_PARTS)
    ]


def batches(parts, window_rows, lanes=2):
    return TrainBatches(
        parts, BatchingConfig(batch_rows=5), seed=0, window_rows=window_rows, lanes=lanes
    )


def labels(epoch):
    return [label for batch in epoch for label in batch.labels.tolist()]


def test_what_fits_one_window_is_loaded_once(parts, loads):
    loader = batches(parts, window_rows=60)
    first, second = labels(loader.epoch(0)), labels(loader.epoch(1))
    assert sorted(loads) == list(range(NUM_PARTS))
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second


def test_windows_are_loaded_when_they_are_due(parts, loads):
    loader = batches(parts, window_rows=20, lanes=2)
    epoch = loader.epoch(0)
    first = next(epoch)
    while len(loads) < 4:  # of the first round and, read ahead, of the second
        time.sleep(0.01)
    assert len(labels([first])) == 5
    assert len(loads) == 4
    assert len(labels(epoch)) == 55
    assert sorted(loads) == list(range(NUM_PARTS))


def test_parts_take_turns_in_another_order_each_epoch(parts, loads):
    loader = batches(parts, window_rows=10, lanes=1)
    orders = []
    for number in range(3):
        loads.clear()
        assert sorted(labels(loader.epoch(number))) == list(range(60))
        orders.append(tuple(loads))
    assert len(set(orders)) > 1


def test_an_epoch_that_goes_on_gives_what_was_left(parts):
    whole = labels(batches(parts, window_rows=20).epoch(2))
    rest = labels(batches(parts, window_rows=20).epoch(2, start=7))
    assert rest == whole[7 * 5 :]


def test_empty_parts_are_nothing(parts):
    empty = Shard(num_rows=0, load=lambda: pytest.fail("loaded"))
    assert batches([empty, *parts], window_rows=60).num_rows == 60


def test_rows_of_a_score_are_numbered_over_all_parts(parts):
    found = list(scoring_batches(parts, batch_rows=4))
    assert sorted(row for batch in found for row in batch.rows.tolist()) == list(range(60))
    assert all(batch.rows.tolist() == batch.labels.tolist() for batch in found)
