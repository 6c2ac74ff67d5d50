"""From checkpoints of trials to an ensemble, and to a model that learns from it; no cluster."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rnntune.config.auto import DataFacts, resolve
from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.data.label_bytes import label_bytes
from rnntune.data.prepared import ShardRef
from rnntune.data.task import Task
from rnntune.errors import DataError, RunError
from rnntune.training.loop import fit
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.worker import build_model, train_batches
from rnntune.tuning.constraints import ModelSize
from rnntune.tuning.distillation import teach
from rnntune.tuning.ensemble import build_ensemble, score_model
from rnntune.tuning.journal import Trial, TrialState, best_epoch
from rnntune.tuning.reports import TrialSpec
from rnntune.tuning.trial_loop import Rank, TrialContext, fit_trial, trial_store

CPU = torch.device("cpu")
METRIC = Metric("validation_accuracy")
SETTINGS = {
    "model.hidden_size": 4, "model.embedding_dim": 4, "model.ngrams": 0, "train.epochs": 2,
    "model.word_vectors": None, "train.learning_rate": 0.03, "batching.batch_rows": 8,
    "model.embedding_dropout": 0.0, "model.dropout": 0.0, "tune.ensemble": 2,
}  # fmt: skip


def write_rows(folder: Path, split: str, task: Task) -> ShardRef:
    random = np.random.default_rng(len(split))
    ids = random.integers(2, 12, (60, 4)).astype(np.int32)
    labels = (ids > 8).sum(axis=1) > 1
    column = pa.array(labels.astype(np.int64))
    if task.is_multi_label:
        column = label_bytes(np.stack([labels, ids[:, 0] > 6], axis=1).astype(np.uint8))
    uri = str(folder / f"{split}-0.parquet")
    table = {"ids": pa.array(ids.tolist(), pa.list_(pa.int32())), "label": column}
    pq.write_table(pa.table(table), uri)
    return ShardRef(num_rows=60, uri=uri)


@pytest.fixture(params=list(Task))
def searched(request, tmp_path):
    """What a search of four trials left: its context, its trials."""
    task = request.param
    facts = DataFacts(num_rows=60, class_rows=(30, 30), length_rows=(0,) * 4 + (60,), num_words=12)
    config, _ = resolve(Config.load(None, SETTINGS), facts)
    feed = SharedDataset(
        parts={name: [write_rows(tmp_path, name, task)] for name in ("train", "validation")},
        classes=("a", "b"), num_words=12, num_trained_words=12, fingerprint="f", task=task,
        label_odds=(1.0, 1.0) if task.is_multi_label else None,
    )  # fmt: skip
    context = TrialContext(
        config=config, feeds={"{}": feed}, uri=str(tmp_path / "search"), text_length=3, workers=1,
        resources={"CPU": 1.0}, use_gpu=False,
    )  # fmt: skip
    trials = [run_trial(context, number) for number in range(4)]
    return context, trials


def run_trial(context: TrialContext, number: int) -> Trial:
    values = {"train.seed": number, "model.cell": ["lstm", "gru"][number % 2]}
    trial = Trial(number=number, values=values)
    config = context.config.override(values)
    torch.manual_seed(number)
    model = build_model(config, context.feeds["{}"], CPU)
    spec = TrialSpec(number=number, name=trial.name, values=values)
    fit_trial(
        context, spec, model, ModelSize(num_parameters=1, latency_ms=1.0),
        Rank(device=CPU, num_cpus=1), lambda report: trial.history.append(dict(report.metrics)),
    )  # fmt: skip
    trial.state = TrialState.FINISHED
    return trial


def ensemble_of(context, trials):
    return build_ensemble(context.config, context.uri, context.feeds, trials, METRIC)


def test_the_ensemble_has_the_lowest_loss_and_is_always_the_same(searched):
    context, trials = searched
    found = ensemble_of(context, trials)
    for trial in trials:
        kept = best_epoch(trial, METRIC)["validation_loss"]
        assert found.validation["validation_loss"] <= kept + 1e-6
    assert 1 <= len(found.members) <= 2
    again = ensemble_of(context, trials)
    assert again.fingerprint == found.fingerprint
    assert again.validation == found.validation
    assert again.calibration == found.calibration
    is_multi_label = context.feeds["{}"].task.is_multi_label
    assert (found.calibration.thresholds is not None) == is_multi_label
    parts = context.feeds["{}"].parts["validation"]
    scores, predictions = score_model(found.network, parts, found.calibration, packed=True)
    assert scores["test_accuracy"] == pytest.approx(found.validation["validation_accuracy"])
    assert len(predictions.rows) == 60


def test_a_checkpoint_that_is_gone_is_said(searched):
    context, trials = searched
    trial_store(context.uri, trials[2].name).clear()
    with pytest.raises(RunError, match="the checkpoint of trial-0002 is gone"):
        ensemble_of(context, trials)


def test_soft_labels_are_those_of_the_rows(searched, tmp_path):
    context, trials = searched
    ensemble, feed = ensemble_of(context, trials), context.feeds["{}"]
    folder = tmp_path / "soft"
    (folder / "of-another").mkdir(parents=True)
    taught = teach(ensemble, feed, str(folder))
    assert [path.name for path in folder.iterdir()] == [ensemble.fingerprint]
    rows = taught.parts["train"][0].load()
    assert taught.teacher == ensemble.fingerprint
    ids = torch.from_numpy(rows.ids.reshape(60, 4).astype(np.int64))
    with torch.inference_mode():
        logits = ensemble.network(ids, torch.full((60,), 4))
    expected = logits.sigmoid() if feed.task.is_multi_label else logits.softmax(dim=1)
    np.testing.assert_allclose(rows.soft, expected.numpy(), rtol=0, atol=1e-3)
    written = next(folder.rglob("train-*"))
    before = written.stat().st_mtime_ns
    teach(ensemble, feed, str(folder))  # a search that goes on
    assert written.stat().st_mtime_ns == before
    written.write_bytes(written.read_bytes()[:-3])
    with pytest.raises(DataError, match="damaged"):
        taught.parts["train"][0].load()


def test_a_model_learns_what_the_ensemble_says(searched, tmp_path):
    """With labels that say nothing it still comes near to its teacher."""
    context, trials = searched
    ensemble, feed = ensemble_of(context, trials), context.feeds["{}"]
    taught = teach(ensemble, feed, str(tmp_path / "soft"))

    def distance(feed: SharedDataset) -> float:
        config = context.config.override({"train.epochs": 20})
        torch.manual_seed(0)
        model = build_model(config, feed, CPU)
        rows = feed.parts["train"][0].load()
        labels = np.random.default_rng(0).permutation(rows.labels)
        part = ShardRef(num_rows=60, uri="", ref=dataclasses.replace(rows, labels=labels))
        batches = train_batches(config, [part], CPU, 0, 1)
        fit(model, batches, None, config.train, device=CPU, report=lambda _: None)
        model.eval()
        ids = torch.from_numpy(rows.ids.reshape(60, 4).astype(np.int64))
        lengths = torch.full((60,), 4)
        with torch.inference_mode():
            logits = [network(ids, lengths) for network in (model, ensemble.network)]
        one, other = (each.softmax(dim=1) for each in logits)
        return float((one - other).abs().mean())

    assert distance(taught) < 0.7 * distance(feed)
