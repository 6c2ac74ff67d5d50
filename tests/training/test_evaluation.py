import numpy as np
import pytest
import torch
from models import PLAIN
from torchmetrics.functional.classification import multiclass_f1_score

from rnntune.config.schema import ModelConfig
from rnntune.data.batching import EncodedRows
from rnntune.data.f1 import macro_f1
from rnntune.data.loader import Shard, scoring_batches
from rnntune.model.network import Classifier
from rnntune.training.evaluation import evaluate_split, predict_split, score_batches

DEVICE = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Classifier(ModelConfig(embedding_dim=4, hidden_size=4, **PLAIN), 20, 3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made.eval()


@pytest.fixture
def parts():
    """Two files of 30 and 20 rows of 1 to 9 tokens."""
    random = np.random.default_rng(0)

    def part(num_rows):
        lengths = random.integers(1, 10, num_rows).astype(np.int32)
        ids = random.integers(1, 20, int(lengths.sum())).astype(np.int32)
        rows = EncodedRows(ids=ids, lengths=lengths, labels=random.integers(0, 3, num_rows))
        return Shard(num_rows=num_rows, load=lambda: rows)

    return [part(30), part(20)]


def probabilities(model, parts):
    scores = list(score_batches(model, scoring_batches(parts, batch_rows=8), DEVICE))
    order = torch.cat([s.rows for s in scores]).argsort()
    return torch.cat([s.probabilities for s in scores])[order].numpy()


def test_predictions_are_in_the_order_of_the_rows(model, parts):
    figures, found = predict_split(
        model, scoring_batches(parts, batch_rows=8), DEVICE, "test", temperature=2.0, most_rows=99
    )
    expected = probabilities(model, parts)
    labels = np.concatenate([part.load().labels for part in parts])
    assert found.rows.tolist() == list(range(50))
    assert found.labels.tolist() == labels.tolist()
    assert found.predicted.tolist() == expected.argmax(axis=1).tolist()
    assert found.probability == pytest.approx(expected.max(axis=1), rel=1e-5)
    softer = expected**0.5
    assert found.calibrated == pytest.approx((softer.T / softer.sum(axis=1)).max(axis=0), rel=1e-5)
    assert figures == evaluate_split(model, scoring_batches(parts), DEVICE, "test")
    assert figures["test_accuracy"] == pytest.approx((found.predicted == labels).mean())


def test_no_more_predictions_are_kept_than_asked_for(model, parts):
    figures, found = predict_split(
        model, scoring_batches(parts, batch_rows=8), DEVICE, "test", temperature=1.0, most_rows=35
    )
    assert found.rows.tolist() == list(range(35))
    assert found.calibrated == pytest.approx(found.probability, rel=1e-5)
    assert figures["test_rows"] == 50


@pytest.mark.parametrize("num_classes", [2, 5, 40])  # of 40, some occur nowhere
def test_macro_f1_is_that_of_torchmetrics(num_classes):
    random = np.random.default_rng(num_classes)
    labels, given = random.integers(0, num_classes, (2, 50))
    counts = [
        np.bincount(classes, minlength=num_classes)
        for classes in (labels[labels == given], given, labels)
    ]
    expected = multiclass_f1_score(
        torch.from_numpy(given), torch.from_numpy(labels), num_classes, average="macro"
    )
    assert macro_f1(*counts) == pytest.approx(float(expected), abs=1e-6)
    assert macro_f1(*np.zeros((3, num_classes), dtype=np.int64)) == 0
