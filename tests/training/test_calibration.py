import numpy as np
import pytest
import torch
from models import write_random_model
from torchmetrics.functional.classification import multiclass_calibration_error

from rnntune.data.batching import EncodedRows, collate
from rnntune.data.task import Task
from rnntune.errors import RunError
from rnntune.inference.classifier import load
from rnntune.training.calibration import (
    calibrate,
    calibration_error,
    fit_set_temperature,
    fit_temperature,
)
from rnntune.training.evaluation import predict_split
from rnntune.training.saved_model import read_model


def _rows(temperature: float, num_rows: int = 20_000):
    """Logits whose softmax at a temperature is how often each class is right."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3.0, size=(num_rows, 4))
    powers = np.exp(logits / temperature)
    chances = (powers / powers.sum(axis=1, keepdims=True)).cumsum(axis=1)
    labels = (rng.random((num_rows, 1)) > chances).sum(axis=1).clip(0, 3)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_the_rows_is_chosen(temperature):
    logits, labels = _rows(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)
    assert fit_temperature(logits + 7, labels) == pytest.approx(temperature, rel=0.05)


def test_a_model_that_is_always_right_is_not_made_certain():
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]])
    found = fit_temperature(logits, np.array([0, 1, 0, 0]))
    sure = 1 / (1 + np.exp(-2 / found))
    assert sure == pytest.approx(0.9, abs=0.01)  # 4.5 of 5 rows, one counted half for each class
    assert fit_temperature(np.empty((0, 2)), np.empty(0, dtype=int)) == 1.0


def test_the_calibration_error_is_that_of_torchmetrics():
    logits, labels = _rows(2.0, 3_000)
    probabilities = torch.from_numpy(logits).softmax(dim=1)
    expected = multiclass_calibration_error(
        probabilities, torch.from_numpy(labels), num_classes=4, n_bins=15
    )
    found = calibration_error(probabilities.numpy(), labels)
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 1.0


class _Given(torch.nn.Module):
    task = Task.SINGLE_LABEL

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.from_numpy(logits).float()

    def forward(self, ids, *_, **__):
        return self.logits[ids[:, 0]]


def test_scaling_lowers_the_error_on_the_rows_it_was_chosen_on():
    logits, labels = _rows(3.0, 2_000)
    rows = EncodedRows(
        ids=np.arange(2_000, dtype=np.int32), lengths=np.ones(2_000, dtype=np.int32), labels=labels
    )
    batches = [collate(rows, part) for part in np.split(np.arange(2_000), 5)]
    found = calibrate(_Given(logits), batches, torch.device("cpu"))
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.error is not None
    assert found.error_before is not None
    assert found.error < 0.05 < found.error_before
    assert calibrate(_Given(logits), [], torch.device("cpu")).temperature == 1.0


def _sets(temperature: float, num_rows: int = 5_000):
    """Logits whose sigmoid at a temperature is how often a row has each class."""
    rng = np.random.default_rng(1)
    logits = rng.normal(-1, 2.5, size=(num_rows, 3)).astype(np.float32)
    labels = rng.random(logits.shape) < 1 / (1 + np.exp(-logits / temperature))
    return logits, labels


class _GivenSets(_Given):
    task = Task.MULTI_LABEL
    num_classes = 3


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_sets_of_labels_have_a_temperature_that_changes_no_decision(temperature):
    logits, labels = _sets(temperature)
    num_rows = len(labels)
    rows = EncodedRows(
        ids=np.arange(num_rows, dtype=np.int32),
        lengths=np.ones(num_rows, dtype=np.int32),
        labels=labels.astype(np.uint8),
    )
    batches = [collate(rows, part) for part in np.split(np.arange(num_rows), 5)]
    model, cpu = _GivenSets(logits), torch.device("cpu")
    found = calibrate(model, batches, cpu)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.error is not None
    assert found.error_before is not None
    assert found.error < 0.02
    assert found.error <= found.error_before + 0.002
    assert found.thresholds is not None
    # At a temperature of 1 the thresholds are other numbers and decide the same.
    plain = np.array(found.thresholds)
    plain = 1 / (1 + np.exp(-found.temperature * np.log(plain / (1 - plain))))
    given = [
        predict_split(
            model, batches, cpu, "test", temperature=scale, most_rows=num_rows, thresholds=bounds
        )[1].predicted
        for scale, bounds in ((found.temperature, found.thresholds), (1.0, tuple(plain.tolist())))
    ]
    assert (given[0] != given[1]).mean() < 1e-4
    assert 0.1 < given[0].mean() < 0.9


def test_few_or_perfect_sets_of_labels_do_not_make_certain():
    logits = np.array([[3.0, -3.0], [-3.0, 3.0]])
    assert fit_set_temperature(logits, logits > 0) > 0.5
    assert fit_set_temperature(np.empty((0, 2)), np.empty((0, 2), dtype=bool)) == 1.0


def test_a_model_folder_keeps_the_temperature(tmp_path):
    cold = load(write_random_model(tmp_path / "cold"))
    warm = load(write_random_model(tmp_path / "warm", temperature=3.0))
    texts = ["the cup final", "chips rise fast", ""]
    assert warm.predict(texts) == cold.predict(texts)
    logits = torch.from_numpy(np.log(cold.predict_proba(texts)))
    expected = (logits / 3).softmax(dim=1).numpy()
    np.testing.assert_allclose(warm.predict_proba(texts), expected, atol=1e-6)
    assert read_model(str(tmp_path / "warm"))[2].temperature == 3.0


@pytest.mark.parametrize("value", ["0", "-1", ".inf", "hot"])
def test_a_temperature_that_cannot_be_is_refused(tmp_path, value):
    folder = write_random_model(tmp_path / "model")
    file = tmp_path / "model" / "config.yaml"
    file.write_text(file.read_text().replace("temperature: 1.0", f"temperature: {value}"))
    with pytest.raises(RunError, match=r"config\.yaml"):
        read_model(folder)
