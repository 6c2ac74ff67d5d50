import dataclasses
import functools
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from rnntune import loop
from rnntune.batching import EncodedRows
from rnntune.checkpoint import load_snapshot, save_snapshot
from rnntune.config import BatchingConfig, ModelConfig, TrainConfig
from rnntune.epochs import Part, TrainBatches, scoring_batches
from rnntune.model import Classifier

CPU = torch.device("cpu")
TRAIN = TrainConfig(epochs=2, learning_rate=0.02, label_smoothing=0.0, checkpoint_every_steps=5)
MODEL = ModelConfig(
    embedding_dim=6, hidden_size=5, embedding_dropout=0.3, dropout=0.3, word_dropout=0.1
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


def _parts(rows: EncodedRows) -> list[Part]:
    return [Part(num_rows=len(rows), load=lambda: rows)]


def _fit(
    *, train=TRAIN, model=MODEL, resume=None, stop_at=None, batch_rows=8, rank=0, world_size=1,
    events=None,
):  # fmt: skip
    torch.manual_seed(0)
    net = Classifier(model, 30, 2, sparse=True)
    batches = TrainBatches(
        _parts(_rows()), BatchingConfig(batch_rows=batch_rows), seed=train.seed, rank=rank,
        world_size=world_size,
    )  # fmt: skip

    def report(event):
        if events is not None:
            events.append(event)
        if event.kind == stop_at:
            folder = Path(tempfile.mkdtemp())
            save_snapshot(folder, event.snapshot())
            raise _StoppedError(folder)

    validation = functools.partial(scoring_batches, _parts(_rows(40, 1)), rank, world_size)
    state = loop.fit(net, batches, validation, train, device=CPU, report=report, resume=resume)
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
    events: list[loop.Event] = []
    train = dataclasses.replace(TRAIN, epochs=12, learning_rate=0.05)
    model, state = _fit(train=train, events=events)
    scores = [epoch["validation_accuracy"] for epoch in state.history]
    assert state.best_epoch == scores.index(max(scores)) + 1
    assert state.best_epoch < len(scores)  # else this shows nothing
    again = loop.evaluate(model, scoring_batches(_parts(_rows(40, 1))), CPU, "x")
    assert again["x_accuracy"] == max(scores)


def test_patience_stops():
    train = dataclasses.replace(TRAIN, epochs=60, learning_rate=0.05, patience=2)
    _, state = _fit(train=train)
    assert state.epoch == state.best_epoch + 2 < 60


def test_divergence_is_caught_at_its_step(monkeypatch):
    forward = Classifier.forward
    steps = []

    def broken(self, *args, **kwargs):
        steps.append(None)
        logits = forward(self, *args, **kwargs)
        return logits * float("nan") if len(steps) == 7 else logits

    monkeypatch.setattr(Classifier, "forward", broken)
    with pytest.raises(loop.DivergedError, match="step 7 "):
        _fit()


def test_smoothing_and_precision_run():
    train = dataclasses.replace(TRAIN, label_smoothing=0.1, precision="bf16", warmup_fraction=0.1)
    _, state = _fit(train=train)
    assert np.isfinite(state.history[-1]["train_loss"])


def _rank(rank: int, world_size: int, folder: str, batch_rows: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    model, state = _fit(
        train=dataclasses.replace(TRAIN, gradient_clip=0.0),
        model=STEADY,
        batch_rows=batch_rows, rank=rank, world_size=world_size,
    )  # fmt: skip
    torch.save([model.state_dict(), state.history, state.step], f"{folder}/{rank}.pt")
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
    (first, history, steps), (second, other_history, _) = _ranks(tmp_path, 2, 8)
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
    from rnntune.batching import collate
    from rnntune.optim import Optimizer

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
            logits = model(batch.ids, batch.lengths, uniform=batch.uniform)
            torch.nn.functional.cross_entropy(logits, batch.labels).backward()
            optimizer.step((epoch + done / len(rows)) / train.epochs)
            done += len(both)
            steps += 1
        score = loop.evaluate(model, scoring_batches(_parts(_rows(40, 1))), CPU, "x")["x_accuracy"]
        model.train()
        if score > best_score:
            best, best_score = {k: v.clone() for k, v in model.state_dict().items()}, score
    return best, steps


@pytest.mark.parametrize(
    ("precision", "cell", "hidden_size", "native", "expected"),
    [
        ("bf16", "gru", 8, False, True),
        ("fp32", "lstm", 256, True, False),
        ("auto", "lstm", 128, True, True),
        ("auto", "lstm", 64, True, False),
        ("auto", "gru", 128, True, False),
        ("auto", "lstm", 128, False, False),
    ],
)
def test_bf16_where_it_was_seen_to_pay(monkeypatch, precision, cell, hidden_size, native, expected):
    monkeypatch.setattr(loop, "_multiplies_bf16", lambda: native)
    model = ModelConfig(cell=cell, hidden_size=hidden_size)
    device = torch.device("cpu")
    assert loop.uses_bf16(TrainConfig(precision=precision), model, device) == expected
