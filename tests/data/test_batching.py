import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import batching_configs, coded_rows, lengths

from rnntune.config.schema import BatchingConfig
from rnntune.data.batching import EncodedRows, collate, plan_batches, plan_scoring
from rnntune.data.loader import Shard, TrainBatches, scoring_batches


@given(lengths(), batching_configs(), st.integers(0, 3), st.integers(1, 4))
def test_plan_has_every_row_once(row_lengths, config, epoch, ranks):
    plan = plan_batches(row_lengths, config, seed=1, epoch=epoch, ranks=ranks)
    assert sorted(plan.order.tolist()) == list(range(len(row_lengths)))
    assert plan.starts[0] == 0
    assert plan.starts[-1] == len(row_lengths)
    assert (np.diff(plan.starts) > 0).all()


@given(lengths(), batching_configs())
def test_batches_keep_within_rows_and_tokens(row_lengths, config):
    plan = plan_batches(row_lengths, config, seed=1, epoch=0)
    for number in range(len(plan)):
        rows = plan.rows(number)
        assert len(rows) <= config.batch_rows
        if config.max_tokens is not None and len(rows) > 1:
            assert len(rows) * row_lengths[rows].max() <= config.max_tokens


@given(lengths(), batching_configs(), st.integers(1, 5))
def test_ranks_make_equal_steps_and_share_the_rows(row_lengths, config, world_size):
    encoded = coded_rows(row_lengths)
    plan = plan_batches(row_lengths, config, seed=0, epoch=0, ranks=world_size)
    ranks = [list(plan.steps(encoded, rank, world_size)) for rank in range(world_size)]
    assert len({len(steps) for steps in ranks}) == 1
    seen = [
        row for steps in ranks for batch in steps if batch.weight for row in batch.rows.tolist()
    ]
    assert sorted(seen) == list(range(len(row_lengths)))
    for step in zip(*ranks, strict=True):
        rows = sum(len(batch.rows) for batch in step if batch.weight)
        assert {batch.global_rows for batch in step} == {rows}
        assert len({batch.position for batch in step}) == 1


@given(lengths(max_rows=60), st.data())
def test_collate_puts_each_token_in_its_place(row_lengths, data):
    encoded = coded_rows(row_lengths)
    chosen = st.lists(st.integers(0, len(row_lengths) - 1), min_size=1, max_size=9, unique=True)
    rows = np.array(data.draw(chosen))
    batch = collate(encoded, rows)
    for uri, row in enumerate(rows):
        length = int(row_lengths[row])
        assert batch.ids[uri, :length].tolist() == [1000 * (row + 1) + i for i in range(length)]
        assert not batch.ids[uri, length:].any()
    assert batch.labels.tolist() == rows.tolist()
    assert batch.same_length == (len({int(n) for n in row_lengths[rows]}) == 1)


def test_order_differs_between_epochs_and_seeds_and_repeats():
    row_lengths = np.full(256, 7, dtype=np.int32)

    def order(seed, epoch):
        plan = plan_batches(row_lengths, BatchingConfig(batch_rows=64), seed=seed, epoch=epoch)
        return plan.order.tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    first = {frozenset(order(0, 0)[start : start + 64]) for start in range(0, 256, 64)}
    second = {frozenset(order(0, 1)[start : start + 64]) for start in range(0, 256, 64)}
    assert not first & second  # the company of a row changes too


def test_buckets_pad_far_less_than_random_batches():
    row_lengths = np.random.default_rng(0).integers(5, 80, 5000).astype(np.int32)

    def fraction(config):
        padded, cells = plan_batches(row_lengths, config, seed=0, epoch=0).padding(row_lengths)
        assert cells - padded == row_lengths.sum()
        return padded / cells

    assert fraction(BatchingConfig(batch_rows=32)) < 0.02
    assert fraction(BatchingConfig(batch_rows=32, bucketing=False)) > 0.3


def _parts(row_lengths: np.ndarray, size: int) -> list[Shard]:
    whole = coded_rows(row_lengths)
    parts = []
    for start in range(0, len(row_lengths), size):
        rows = np.arange(start, min(start + size, len(row_lengths)))
        ends = whole.starts + row_lengths
        part = EncodedRows(
            ids=np.concatenate([whole.ids[whole.starts[r] : ends[r]] for r in rows]),
            lengths=row_lengths[rows],
            labels=rows.astype(np.int64),
        )  # fmt: skip
        parts.append(Shard(num_rows=len(rows), load=lambda part=part: part))
    return parts


@given(lengths(), st.integers(1, 60), st.integers(10, 100))
def test_windows_give_every_row_once(row_lengths, part_rows, window_rows):
    batches = TrainBatches(
        _parts(row_lengths, part_rows),
        BatchingConfig(batch_rows=8),
        seed=0,
        window_rows=window_rows,
    )
    labels = [label for batch in batches.epoch(0) for label in batch.labels.tolist()]
    assert sorted(labels) == list(range(len(row_lengths)))


@given(lengths(), st.integers(1, 60), st.integers(10, 300), st.data())
def test_an_epoch_goes_on_with_another_number_of_ranks(row_lengths, part_rows, window, data):
    """No row is lost or seen twice when the ranks change in mid-epoch."""
    parts = _parts(row_lengths, part_rows)
    lanes = data.draw(st.integers(1, 7))

    def ranks(world_size, start, stop=None):
        found = []
        steps = position = None
        for rank in range(world_size):
            batches = TrainBatches(
                parts, BatchingConfig(batch_rows=4), seed=0, rank=rank,
                world_size=world_size, max_ranks=3, window_rows=window, lanes=lanes,
            )  # fmt: skip
            taken = list(batches.epoch(1, start))[:stop]
            assert steps in (None, len(taken))
            steps = len(taken)
            position = taken[-1].position if taken else start
            found += [n for batch in taken if batch.weight for n in batch.labels.tolist()]
        return found, position

    before = data.draw(st.integers(1, 3))
    first, position = ranks(before, 0, stop=data.draw(st.integers(0, 6)))
    rest, _ = ranks(data.draw(st.integers(1, 3)), position)
    assert sorted(first + rest) == list(range(len(row_lengths)))


@given(lengths(), st.integers(1, 60), st.integers(1, 4))
def test_scoring_gives_every_row_to_one_rank(row_lengths, part_rows, world_size):
    parts = _parts(row_lengths, part_rows)
    pairs = []
    for rank in range(world_size):
        for batch in scoring_batches(parts, rank, world_size, batch_rows=16):
            pairs += zip(batch.rows.tolist(), batch.labels.tolist(), strict=True)
    assert sorted(pairs) == [(row, row) for row in range(len(row_lengths))]


@pytest.mark.parametrize("plan", [plan_scoring(np.empty(0, dtype=np.int32))])
def test_no_rows_make_no_batches(plan):
    assert len(plan) == 0
    assert plan.padding(np.empty(0, dtype=np.int32)) == (0, 0)


def test_batch_stays_where_it_is_on_a_cpu():
    batch = collate(coded_rows(np.array([2, 3], dtype=np.int32)), np.array([0, 1]))
    assert batch.to(torch.device("cpu")) is batch


@given(lengths(), st.booleans())
def test_scoring_plans_have_every_row_once_and_pad_only_if_they_may(row_lengths, padding):
    plan = plan_scoring(row_lengths, 16, padding=padding)
    assert sorted(plan.order.tolist()) == list(range(len(row_lengths)))
    if not padding:
        assert plan.padding(row_lengths)[0] == 0


@pytest.mark.parametrize("step", [0, 7])  # of one length, of several
def test_long_texts_are_scored_few_at_a_time(step):
    row_lengths = (60_000 + step * np.arange(50)).astype(np.int32)
    plan = plan_scoring(row_lengths)
    assert sorted(plan.order.tolist()) == list(range(50))
    assert {len(plan.rows(number)) for number in range(len(plan))} <= {2, 4}
