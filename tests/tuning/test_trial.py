"""What runs inside a trial, without a cluster: rows, log, checkpoint, reports."""

import dataclasses
import itertools
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rnntune import storage
from rnntune.config.auto import DataFacts, resolve
from rnntune.config.load import Config
from rnntune.data.batching import EncodedRows
from rnntune.data.encoded_files import write_encoded
from rnntune.data.folds import assign_folds, split_fold
from rnntune.data.loader import Shard, scoring_batches
from rnntune.data.prepared import ShardRef
from rnntune.data.task import Task
from rnntune.errors import DataError, OverLimitError
from rnntune.training.loop import fit
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.worker import build_model, train_batches
from rnntune.tuning.constraints import ModelSize, build_within_limits
from rnntune.tuning.reports import EpochReport, TrialSpec
from rnntune.tuning.trial_folds import fit_folds, mean_of_folds
from rnntune.tuning.trial_log import TrialLog
from rnntune.tuning.trial_loop import Rank, TrialContext, fit_trial, trial_store

CPU = torch.device("cpu")
SIZE = ModelSize(num_parameters=1, latency_ms=1.0)


def write_rows(folder, split: str) -> ShardRef:
    random = np.random.default_rng(len(split))
    labels = random.integers(0, 2, 40)
    ids = [[2 + int(label)] * 3 for label in labels]
    uri = str(folder / f"{split}-0.parquet")
    pq.write_table(pa.table({"ids": pa.array(ids, pa.list_(pa.int32())), "label": labels}), uri)
    return ShardRef(num_rows=40, uri=uri)


@pytest.fixture
def context(tmp_path):
    given = {
        "model.hidden_size": 4, "model.embedding_dim": 4, "model.ngrams": 0, "train.epochs": 3,
        "model.word_vectors": None, "train.learning_rate": 0.05, "batching.batch_rows": 8,
    }  # fmt: skip
    facts = DataFacts(num_rows=40, class_rows=(20, 20), length_rows=(0, 0, 0, 40), num_words=4)
    config, _ = resolve(Config.load(None, given), facts)
    feed = SharedDataset(
        parts={name: [write_rows(tmp_path, name)] for name in ("train", "validation")},
        classes=("a", "b"),
        num_words=4,
        num_trained_words=4,
        fingerprint="f",
    )
    return TrialContext(
        config=config, feeds={"{}": feed}, uri=str(tmp_path / "search"), text_length=3, workers=1,
        resources={"CPU": 1.0}, use_gpu=False,
    )  # fmt: skip


@pytest.fixture
def spec():
    return TrialSpec(number=0, name="trial-0000", values={"train.seed": 1})


def run(context, spec, report=None) -> list[EpochReport]:
    reports: list[EpochReport] = []
    config = context.config.override(spec.values)
    torch.manual_seed(config.train.seed)
    model = build_model(config, next(iter(context.feeds.values())), CPU)
    fit_trial(context, spec, model, SIZE, Rank(device=CPU, num_cpus=1), report or reports.append)
    return reports


def test_each_epoch_is_reported_and_the_last_one_says_so(context, spec):
    reports = run(context, spec)
    assert [report.metrics["epoch"] for report in reports] == [1, 2, 3]
    assert [report.is_complete for report in reports] == [False, False, True]
    assert all(report.num_parameters == 1 for report in reports)
    assert reports[0].metrics["padding_fraction"] == 0
    assert reports[0].first_step_at is not None
    assert len(trial_store(context.uri, spec.name).names()) == 1


def test_a_trial_that_dies_goes_on_from_its_checkpoint(context, spec, tmp_path):
    whole = run(dataclasses.replace(context, uri=str(tmp_path / "other")), spec)

    def die(report: EpochReport) -> None:
        if report.metrics["epoch"] == 2:
            raise MemoryError

    with pytest.raises(MemoryError):
        run(context, spec, die)
    again = run(context, spec)
    assert [report.metrics["epoch"] for report in again] == [1, 2, 3]
    assert again[0].first_step_at is None  # an earlier attempt's
    for name in ("train_loss", "validation_accuracy"):
        assert [r.metrics[name] for r in again] == [r.metrics[name] for r in whole]
    finished = run(context, spec)  # all was done, and nobody heard of it
    assert [report.is_complete for report in finished] == [False, False, True]


def test_what_a_killed_trial_half_wrote_goes(context, spec, tmp_path):
    folder = tmp_path / "search" / spec.name
    folder.mkdir(parents=True)
    for name in ("log.txt.0123abcd.part", ".checkpoint_000000001.0123abcd.part", "log.txt"):
        (folder / name).write_text("x")
    run(context, spec)
    assert {path.name for path in folder.iterdir()} == {"log.txt", "checkpoint_000000015"}


def test_limits_are_checked_before_training(context):
    feed = next(iter(context.feeds.values()))
    model, size = build_within_limits(context.config, feed, 3, CPU)
    assert size.num_parameters == sum(p.numel() for p in model.parameters())
    assert size.latency_ms > 0


def test_latency_is_the_best_of_several_passes(context, monkeypatch):
    """Other trials on the machine make most passes slow, but not all."""
    clock = iter(0.001 * tick for tick in itertools.accumulate(itertools.cycle([1, 5, 1, 4, 1, 9])))
    monkeypatch.setattr("rnntune.tuning.constraints.time.perf_counter", lambda: next(clock))
    feed = next(iter(context.feeds.values()))
    _, size = build_within_limits(context.config, feed, 3, CPU)
    assert size.latency_ms == pytest.approx(1.0, abs=0.01)


def test_a_latency_that_is_known_is_not_measured_and_counts(context, monkeypatch):
    monkeypatch.setattr("rnntune.tuning.constraints._latency_ms", None)
    feed = next(iter(context.feeds.values()))
    _, size = build_within_limits(context.config, feed, 3, CPU, 0.5)
    assert size.latency_ms == 0.5
    slow = context.config.override({"tune.max_latency_ms": 0.4})
    with pytest.raises(OverLimitError, match=r"0\.50 ms for one text, over 0\.4 ms"):
        build_within_limits(slow, feed, 3, CPU, 0.5)


def test_a_log_grows(tmp_path):
    log = TrialLog(str(tmp_path / "log.txt"))
    with log.capture():
        print("one")
        log.write()
        print("two", file=sys.stderr)
    log.write()
    log.write()
    assert storage.read_text(str(tmp_path / "log.txt")) == "one\ntwo\n"


def folded(context, **overrides):
    given = {"tune.folds": 4, **{name.replace("__", "."): v for name, v in overrides.items()}}
    return dataclasses.replace(context, config=context.config.override(given))


@pytest.fixture
def many_texts(context, tmp_path):
    """The same with texts that differ."""
    feed = next(iter(context.feeds.values()))
    parts = {}
    for split in ("train", "validation"):
        random = np.random.default_rng(len(split))
        ids = random.integers(2, 12, (40, 3)).astype(np.int32)
        labels = (ids > 7).any(axis=1).astype(np.int64)
        uri = str(tmp_path / f"{split}-1.parquet")
        table = {"ids": pa.array(ids.tolist(), pa.list_(pa.int32())), "label": labels}
        pq.write_table(pa.table(table), uri)
        parts[split] = [ShardRef(num_rows=40, uri=uri)]
    feed = dataclasses.replace(feed, parts=parts, num_words=12, num_trained_words=12)
    return folded(dataclasses.replace(context, feeds={"{}": feed}))


def run_folds(context, spec) -> list[EpochReport]:
    reports: list[EpochReport] = []
    fit_folds(context, spec, SIZE, Rank(device=CPU, num_cpus=1), reports.append)
    return reports


def test_an_epoch_of_folds_is_reported_once_with_every_row_validated(many_texts, spec):
    reports = run_folds(many_texts, spec)
    assert [report.metrics["epoch"] for report in reports] == [1, 2, 3]
    assert [report.is_complete for report in reports] == [False, False, True]
    for report in reports:
        assert report.metrics["validation_rows"] == 80  # of training and validation
        assert report.metrics["epoch_rows"] == 3 * 80
        assert report.metrics["standard_error"] >= 0
    again = run_folds(many_texts, spec)  # a killed one starts anew
    for name in ("train_loss", "validation_loss", "standard_error"):
        assert [r.metrics[name] for r in again] == [r.metrics[name] for r in reports]


def test_folds_are_trained_as_each_would_be_alone(many_texts, spec):
    reports = run_folds(many_texts, spec)
    feed = next(iter(many_texts.feeds.values()))
    rows = EncodedRows.concatenate(
        [part.load() for name in ("train", "validation") for part in feed.parts[name]]
    )
    config = many_texts.config.override(spec.values)
    alone = []
    for fold in range(4):
        train, validation = split_fold(rows, assign_folds(rows, 4, config.data.seed), fold)
        torch.manual_seed(config.train.seed)
        model = build_model(config, feed, CPU)
        batches = train_batches(
            config, [ShardRef(num_rows=len(train), uri="", ref=train)], CPU, 0, 1
        )
        held_out = [Shard(num_rows=len(validation), load=lambda held=validation: held)]
        state = fit(
            model, batches, lambda held=held_out: scoring_batches(held), config.train,
            device=CPU, report=lambda _: None,
        )  # fmt: skip
        alone.append([epoch["validation_loss"] for epoch in state.history])
    means = [report.metrics["validation_loss"] for report in reports]
    assert means == pytest.approx(np.mean(alone, axis=0).tolist(), abs=1e-9)


def test_patience_counts_for_the_mean_of_the_folds(many_texts, spec):
    context = folded(many_texts, train__epochs=50, train__patience=2, train__learning_rate=1e-12)
    reports = run_folds(context, spec)
    assert len(reports) == 3
    assert reports[-1].is_complete


def test_fewer_texts_than_folds_are_refused(context, spec):
    with pytest.raises(DataError, match="4 folds need as many different texts; there are 2"):
        run_folds(folded(context), spec)


def test_means_of_folds():
    folds = [
        {"epoch": 2, "validation_accuracy": 0.5, "train_s": 1.0, "validation_rows": 3},
        {"epoch": 2, "validation_accuracy": 0.7, "train_s": 2.0, "validation_rows": 4},
    ]
    assert mean_of_folds(folds, "validation_accuracy") == {
        "epoch": 2, "validation_accuracy": pytest.approx(0.6), "train_s": 3.0,
        "validation_rows": 7, "standard_error": pytest.approx(0.1),
    }  # fmt: skip
    folds[0]["validation_accuracy"] = float("nan")
    assert mean_of_folds(folds, "validation_accuracy")["standard_error"] is None


def test_a_trial_of_sets_of_labels_is_scored_by_micro_f1(context, spec, tmp_path):
    parts = {}
    for split in ("train", "validation"):
        labels = np.random.default_rng(len(split)).integers(0, 2, (40, 2)).astype(np.uint8)
        ids = np.stack([2 + labels[:, 0], 4 + labels[:, 1]], axis=1).astype(np.int32)
        uri = str(tmp_path / f"{split}-sets.parquet")
        write_encoded(
            uri, EncodedRows(ids=ids.ravel(), lengths=np.full(40, 2, np.int32), labels=labels)
        )
        parts[split] = [ShardRef(num_rows=40, uri=uri)]
    feed = SharedDataset(
        parts=parts, classes=("a", "b"), num_words=6, num_trained_words=6, fingerprint="f",
        task=Task.MULTI_LABEL, label_odds=(1.0, 1.0),
    )  # fmt: skip
    facts = DataFacts(
        num_rows=40, class_rows=(20, 20), length_rows=(0, 0, 40), num_words=6, multi_label=True
    )
    open_ones = {"train.metric": "auto", "tune.metric": "auto", "train.epochs": 20}
    config, _ = resolve(context.config.override(open_ones), facts)
    assert config.tune.metric == "validation_micro_f1"
    sets = dataclasses.replace(context, config=config, feeds={"{}": feed})
    reports = run(sets, spec)
    assert reports[-1].metrics["validation_micro_f1"] > 0.95
    folds = dataclasses.replace(sets, config=config.override({"tune.folds": 2}))
    reports = []
    fit_folds(folds, spec, SIZE, Rank(device=CPU, num_cpus=1), reports.append)
    assert reports[-1].metrics["validation_micro_f1"] > 0.6
    assert reports[-1].metrics["validation_rows"] == 80
    assert reports[-1].metrics["standard_error"] is not None
