import dataclasses
import functools
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from models import PLAIN
from torch import distributed

from rnntune.config.schema import BatchingConfig, ModelConfig, TrainConfig
from rnntune.data.batching import EncodedRows
from rnntune.data.loader import Shard, TrainBatches, scoring_batches
from rnntune.errors import DivergedError
from rnntune.model.network import Classifier
from rnntune.training import loop
from rnntune.training.checkpoint import load_snapshot, save_snapshot
from rnntune.training.evaluation import evaluate_split
from rnntune.training.loop import Event, fit, uses_bf16

CPU = torch.device("cpu")
TRAIN = TrainConfig(
    epochs=2,
    patience=0,
    learning_rate=0.02,
    warmup_fraction=0.0,
    average_weights=False,
    label_smoothing=0.0,
    checkpoint_every_steps=5,
)
MODEL = ModelConfig(
    **{**PLAIN, "dropout": 0.3},
    embedding_dim=6,
    hidden_size=5,
)
STEADY = dataclasses.replace(MODEL, embedding_dropout=0.0, dropout=0.0, word_dropout=0.0)


def _rows(num_rows: int = 90, seed: int = 0) -> EncodedRows:
    """The label is whether the first word is small: learnable in two epochs."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 9, num_rows).astype(np.int32)
    rows = EncodedRows(
        ids=random.integers(2, 30, int(lengths.sum())).astype(np.int32),
        lengths=lengths,
        labels=np.zeros(num_rows, dtype=np.int64),
    )
    return dataclasses.replace(rows, labels=(rows.ids[rows.starts] < 16).astype(np.int64))


def _parts(rows: EncodedRows) -> list[Shard]:
    return [Shard(num_rows=len(rows), load=lambda: rows)]


def _fit(
    *, train=TRAIN, model=MODEL, resume=None, stop_at=None, batch_rows=8, rank=0, world_size=1,
    events=None, sparse=True, width=1,
):  # fmt: skip
    torch.manual_seed(0)
    net = Classifier(model, 30, 2, sparse=sparse)
    batches = TrainBatches(
        _parts(_rows()), BatchingConfig(batch_rows=batch_rows), seed=train.seed, rank=rank,
        world_size=world_size, default_width=width,
    )  # fmt: skip

    def report(event):
        if events is not None:
            events.append(event)
        if event.kind == stop_at:
            folder = Path(tempfile.mkdtemp())
            save_snapshot(folder, event.snapshot())
            raise _StoppedError(folder)

    validation = functools.partial(scoring_batches, _parts(_rows(40, 1)), rank, world_size)
    state = fit(net, batches, validation, train, device=CPU, report=report, resume=resume)
    return net, state


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop_at", ["checkpoint", "epoch"])
def test_a_resumed_run_ends_in_the_same_bits(stop_at):
    whole, state = _fit()
    with pytest.raises(_StoppedError) as stopped:
        _fit(stop_at=stop_at)
    snapshot = load_snapshot(stopped.value.args[0], {})
    position = snapshot.state.position
    assert (position > 0) == (stop_at == "checkpoint")
    resumed, resumed_state = _fit(resume=snapshot)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    same = ("train_loss", "train_accuracy", "validation_accuracy", "rows")
    for one, other in zip(state.history, resumed_state.history, strict=True):
        assert [one[key] for key in same] == pytest.approx([other[key] for key in same])


def test_checkpoints_by_the_clock_change_nothing(monkeypatch):
    seconds = iter(range(10_000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(seconds)))
    by_steps = dataclasses.replace(TRAIN, checkpoint_every_steps=0, checkpoint_every_s=0.0)
    by_clock = dataclasses.replace(by_steps, checkpoint_every_s=3.0)
    kept: dict[float, list[int]] = {}
    nets = []
    for train in (by_steps, by_clock):
        events: list[Event] = []
        net, _ = _fit(train=train, events=events)
        nets.append(net.state_dict())
        steps = [event.metrics["step"] for event in events if event.kind == "checkpoint"]
        kept[train.checkpoint_every_s] = steps
    assert kept[0.0] == []
    assert len(kept[3.0]) >= 4
    assert min(np.diff(kept[3.0])) >= 2  # each look at the clock is a second
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name]), name


@pytest.mark.parametrize(("width", "sparse"), [(8, False), (1, True)])
def test_a_run_goes_on_in_mid_epoch_on_a_device_of_the_other_kind(width, sparse):
    """As from a GPU, with wide buckets and dense gradients, to a CPU, or the other way round."""
    whole, _ = _fit(width=width, sparse=sparse)
    with pytest.raises(_StoppedError) as stopped:
        _fit(width=width, sparse=sparse, stop_at="checkpoint")
    folder = stopped.value.args[0]
    resumed, state = _fit(resume=load_snapshot(folder, {}), width=9 - width, sparse=not sparse)
    assert [epoch["rows"] for epoch in state.history] == [90, 90]
    same, _ = _fit(resume=load_snapshot(folder, {}), width=9 - width, sparse=sparse)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
        # A dense step moves rows that are not in the batch, too.
        torch.testing.assert_close(value, resumed.state_dict()[name], atol=0.2, rtol=0.2)


def test_another_seed_ends_elsewhere():
    first, _ = _fit()
    other, _ = _fit(train=dataclasses.replace(TRAIN, seed=1))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_it_learns_and_counts_every_row():
    _, state = _fit(train=dataclasses.replace(TRAIN, epochs=25), model=STEADY)
    assert state.history[-1]["train_accuracy"] > 0.9
    assert {epoch["rows"] for epoch in state.history} == {90}
    assert state.trained_rows == 25 * 90
    assert state.history[0]["validation_rows"] == 40


def test_the_best_epoch_is_kept():
    events: list[Event] = []
    train = dataclasses.replace(TRAIN, epochs=12, learning_rate=0.05)
    model, state = _fit(train=train, events=events)
    scores = [epoch["validation_accuracy"] for epoch in state.history]
    assert state.best_epoch == scores.index(max(scores)) + 1
    assert state.best_epoch < len(scores)  # else this shows nothing
    again = evaluate_split(model, scoring_batches(_parts(_rows(40, 1))), CPU, "x")
    assert again["x_accuracy"] == max(scores)


def test_patience_stops():
    train = dataclasses.replace(TRAIN, epochs=60, learning_rate=0.05, patience=2)
    _, state = _fit(train=train)
    assert state.epoch == state.best_epoch + 2 < 60


@pytest.mark.parametrize("read_every", [1, 50])
def test_divergence_is_told_of_its_step(monkeypatch, read_every):
    forward = Classifier.forward
    steps, events = [], []

    def broken(self, *args, **kwargs):
        steps.append(None)
        logits = forward(self, *args, **kwargs)
        return logits * float("nan") if len(steps) == 7 else logits

    monkeypatch.setattr(Classifier, "forward", broken)
    monkeypatch.setattr(loop, "_steps_between_reads", lambda _: read_every)
    with pytest.raises(DivergedError, match="step 7 "):
        _fit(events=events)
    # A checkpoint is due after 5 and 10 steps; that with weights that are no numbers is not kept.
    assert [event.metrics["step"] for event in events if event.kind == "checkpoint"] == [5]
    assert len(steps) == (7 if read_every == 1 else 10)


def test_smoothing_and_precision_run():
    train = dataclasses.replace(TRAIN, label_smoothing=0.1, precision="bf16", warmup_fraction=0.1)
    _, state = _fit(train=train)
    assert np.isfinite(state.history[-1]["train_loss"])


def _rank(rank: int, world_size: int, folder: str, batch_rows: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    train = dataclasses.replace(
        TRAIN, gradient_clip=0.0, checkpoint_every_steps=0, checkpoint_every_s=1e-9
    )
    loop._STEPS_BETWEEN_CLOCKS = 2
    events: list[Event] = []
    model, state = _fit(
        train=train, model=STEADY,
        batch_rows=batch_rows, rank=rank, world_size=world_size, events=events,
    )  # fmt: skip
    kept = [event.metrics["step"] for event in events if event.kind == "checkpoint"]
    torch.save([model.state_dict(), state.history, state.step, kept], f"{folder}/{rank}.pt")
    time.sleep(0.2)  # a gloo thread that still frees its last tensors would wait for the GIL
    distributed.destroy_process_group()


def _ranks(folder: Path, world_size: int, batch_rows: int):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_rank, args=(rank, world_size, str(folder), batch_rows))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs gloo")
def test_two_ranks_follow_the_gradient_of_all_their_rows(tmp_path, monkeypatch):
    """Two ranks equal one rank that is given both ranks' batches as one, step by step."""
    # A spawned process imports this module by its name, after the package that is installed.
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
    (first, history, steps, kept), (second, other_history, _, other) = _ranks(tmp_path, 2, 8)
    assert kept == other == [2, 4, 8, 10]  # the ranks keep checkpoints at the same steps
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert history[-1]["rows"] == 90
    assert other_history[-1]["validation_accuracy"] == history[-1]["validation_accuracy"]
    assert history[-1]["validation_rows"] == 40

    alone = _alone_over_pairs_of_batches()
    assert alone[1] == steps
    for name, value in first.items():
        torch.testing.assert_close(value, alone[0][name], rtol=1e-4, atol=1e-5, msg=name)


def _alone_over_pairs_of_batches():
    """One rank, whose every step sees what two ranks would have seen in it."""
    torch.manual_seed(0)
    model = Classifier(STEADY, 30, 2, sparse=True)
    rows = _rows()
    from rnntune.data.batching import collate
    from rnntune.training.optim import Optimizer

    train = dataclasses.replace(TRAIN, gradient_clip=0.0)
    optimizer = Optimizer(model, train)
    ranks = [
        TrainBatches(_parts(rows), BatchingConfig(batch_rows=8), seed=0, rank=r, world_size=2)
        for r in range(2)
    ]
    steps = 0
    best, best_score = None, -1.0
    for epoch in range(train.epochs):
        done = 0
        for pair in zip(*(rank.epoch(epoch) for rank in ranks), strict=True):
            both = torch.cat([batch.rows for batch in pair if batch.weight]).numpy()
            batch = collate(rows, both)
            optimizer.zero_grad()
            (logits,) = model(batch.ids, batch.lengths, same_length=batch.same_length)
            torch.nn.functional.cross_entropy(logits, batch.labels).backward()
            optimizer.step((epoch + done / len(rows)) / train.epochs)
            done += len(both)
            steps += 1
        score = evaluate_split(model, scoring_batches(_parts(_rows(40, 1))), CPU, "x")["x_accuracy"]
        model.train()
        if score > best_score:
            best, best_score = {k: v.clone() for k, v in model.state_dict().items()}, score
    return best, steps


@pytest.mark.parametrize(
    ("precision", "cell", "hidden_size", "native", "expected"),
    [
        ("bf16", "gru", 8, False, True),
        ("fp32", "lstm", 256, True, False),
        ("auto", "lstm", 96, True, True),
        ("auto", "lstm", 64, True, False),
        ("auto", "gru", 128, True, False),
        ("auto", "lstm", 128, False, False),
    ],
)
def test_bf16_where_it_was_seen_to_pay(monkeypatch, precision, cell, hidden_size, native, expected):
    monkeypatch.setattr(loop, "_multiplies_bf16", lambda: native)
    model = ModelConfig(cell=cell, hidden_size=hidden_size)
    device = torch.device("cpu")
    assert uses_bf16(TrainConfig(precision=precision), model, device) == expected


@pytest.mark.parametrize(("hidden_size", "expected"), [(64, False), (96, True)])
def test_bf16_pays_for_wide_windows_of_any_cell(monkeypatch, hidden_size, expected):
    monkeypatch.setattr(loop, "_multiplies_bf16", lambda: True)
    model = ModelConfig(cell="gru", hidden_size=hidden_size, window=9)
    assert uses_bf16(TrainConfig(), model, torch.device("cpu")) == expected
