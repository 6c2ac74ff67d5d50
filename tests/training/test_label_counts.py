"""The loop, scores and thresholds where rows have several labels."""

import copy
import dataclasses
import functools
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from models import PLAIN
from torch import distributed

from rnntune.config.schema import BatchingConfig, ModelConfig, TrainConfig
from rnntune.data.batching import EncodedRows
from rnntune.data.loader import Shard, TrainBatches, scoring_batches
from rnntune.data.task import Task
from rnntune.model.network import Classifier
from rnntune.training.calibration import calibrate
from rnntune.training.evaluation import evaluate_split, predict_split
from rnntune.training.loop import fit
from rnntune.training.targets import targets_of

CPU = torch.device("cpu")


def _encoded(num_rows: int, seed: int) -> EncodedRows:
    """Rows whose class c is there where the word 2 + c occurs."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 8, num_rows).astype(np.int32)
    ids = random.integers(2, 14, int(lengths.sum())).astype(np.int32)
    row = np.repeat(np.arange(num_rows), lengths)
    labels = np.zeros((num_rows, 3), dtype=np.uint8)
    for number in range(3):
        labels[row[ids == 2 + number], number] = 1
    return EncodedRows(ids=ids, lengths=lengths, labels=labels)


def _shard(encoded: EncodedRows) -> list[Shard]:
    return [Shard(num_rows=len(encoded), load=lambda: encoded)]


TRAIN = TrainConfig(
    epochs=2, learning_rate=0.02, ngram_learning_rate=1.0, warmup_fraction=0.0,
    label_smoothing=0.05, patience=0, average_weights=False, num_threads=1,
)  # fmt: skip


def _fit(rank=0, world_size=1, batch_rows=16, **options):
    torch.manual_seed(0)
    settings = {**PLAIN, "dropout": 0.0, "embedding_dropout": 0.0, "word_dropout": 0.0}
    settings |= {"ngrams": 2, "ngram_buckets": 64, "letter_buckets": 0, "recurrent_weight": 1.0}
    config = ModelConfig(**settings, embedding_dim=8, hidden_size=8)
    model = Classifier(config, 14, 3, task=Task.MULTI_LABEL, sparse=True)
    model.start_from_rates(torch.tensor([0.5, 0.5, 0.5]))
    held_out = _shard(_encoded(70, 7))
    batches = TrainBatches(
        _shard(_encoded(96, 0)), BatchingConfig(batch_rows=batch_rows), seed=0, rank=rank,
        world_size=world_size,
    )  # fmt: skip
    validation = functools.partial(scoring_batches, held_out, rank, world_size, 8)
    state = fit(
        model, batches, validation, options.pop("config", TRAIN), device=CPU,
        report=options.pop("report", lambda _: None), metric="validation_micro_f1",
        class_weights=(1.0, 2.0, 1.0), **options,
    )  # fmt: skip
    calibration = calibrate(model, validation(), CPU)
    scores, predictions = predict_split(
        model, validation(), CPU, "test", temperature=calibration.temperature, most_rows=60,
        thresholds=calibration.thresholds,
    )  # fmt: skip
    return model, state, calibration, scores, predictions


def test_it_goes_on_to_the_same_weights():
    snapshots = []

    def keep(event):
        if event.kind == "epoch":
            taken = event.snapshot()
            copied = {name: value.clone() for name, value in taken.model.items()}
            optimizer = {name: value.clone() for name, value in taken.optimizer.items()}
            snapshots.append((taken, copied, optimizer))

    whole, *_ = _fit(report=keep)
    taken, weights, optimizer = snapshots[0]
    state = dataclasses.replace(copy.deepcopy(taken.state), history=[*taken.state.history[:1]])
    state = dataclasses.replace(state, epoch=1, best_epoch=1)
    first = dataclasses.replace(taken, model=weights, optimizer=optimizer, state=state)
    assert first.state.epoch == 1
    again, *_ = _fit(resume=first)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_predictions_of_a_split_are_sets(monkeypatch):
    model, state, _, scores, predictions = _fit()
    assert predictions.rows.tolist() == list(range(60))
    expected = _encoded(70, 7).labels[:60]
    assert np.array_equal(predictions.labels, expected > 0)
    assert predictions.predicted.shape == (60, 3)
    assert scores["test_rows"] == 70
    # The thresholds decide what those decided that the last evaluation chose on the same rows.
    last = state.history[state.best_epoch - 1]
    assert scores["test_micro_f1"] == pytest.approx(last["validation_micro_f1"])
    assert scores["test_loss"] < last["validation_loss"]
    monkeypatch.setattr("rnntune.training.evaluation._MOST_CELLS", 30)
    batches = scoring_batches(_shard(_encoded(70, 7)))
    _, few = predict_split(
        model, batches, CPU, "test", temperature=1.0, most_rows=60, thresholds=(0.5,) * 3
    )
    assert few.rows.tolist() == list(range(10))


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    model, state, calibration, scores, predictions = _fit(rank, 2, 8)
    torch.save(
        [model.state_dict(), state.history, calibration.thresholds, scores, predictions.predicted],
        f"{folder}/{rank}.pt",
    )
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_count_what_one_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
    processes = [
        get_context("spawn").Process(target=_rank, args=(rank, str(tmp_path))) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    assert first[2] == second[2]
    assert first[3] == second[3]
    model = _fit()[0]
    model.load_state_dict(first[0])
    held_out = _shard(_encoded(70, 7))
    alone = evaluate_split(model, scoring_batches(held_out), CPU, "validation")
    calibration = calibrate(model, scoring_batches(held_out), CPU)
    assert calibration.thresholds == first[2]
    for name, value in alone.items():
        if name != "validation_loss":  # that of the test is with the temperature
            found = first[3][name.replace("validation", "test")]
            assert found == pytest.approx(value, rel=1e-6), name
    assert np.array_equal(first[4], second[4])
    assert len(first[4]) == 60


def test_the_loss_of_sets_is_that_of_each_class():
    targets = targets_of(Task.MULTI_LABEL)
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    each = -torch.where(labels > 0, logits.sigmoid(), 1 - logits.sigmoid()).log()
    assert float(targets.loss(logits, labels)) == pytest.approx(float(each.sum()))
    weighted = each.sum() + 2 * each[0, 0]
    found = targets.loss(logits, labels, weight=torch.tensor([3.0, 1.0]))
    assert float(found) == pytest.approx(float(weighted))
    smooth = targets.loss(logits, labels, label_smoothing=0.2)
    flipped = -torch.where(labels > 0, 1 - logits.sigmoid(), logits.sigmoid()).log()
    assert float(smooth) == pytest.approx(float((0.9 * each + 0.1 * flipped).sum()))
    assert int(targets.num_right(logits, labels)) == 1
    assert torch.equal(targets.probabilities(logits), logits.sigmoid())


def test_a_network_begins_with_the_rates_of_its_classes():
    still = dataclasses.replace(TRAIN, learning_rate=1e-9, ngram_learning_rate=1e-9)
    model, state, *_ = _fit(config=still)
    assert model.classifier.bias.sigmoid().tolist() == pytest.approx([1 / 3] * 3, abs=1e-4)
    # It gives no row a label yet, which is right for those that have none.
    without = (_encoded(96, 0).labels.sum(axis=1) == 0).mean()
    assert state.history[-1]["train_accuracy"] == pytest.approx(without, abs=0.08)
