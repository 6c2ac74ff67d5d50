import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multilabel_f1_score

from rnntune.data.task import Task
from rnntune.training.label_counts import label_counts
from rnntune.training.thresholds import NUM_BINS, choose_thresholds


def _histogram(*classes):
    """Of classes, pairs of the probabilities of rows without and with them."""
    found = np.zeros((2, len(classes), NUM_BINS), dtype=np.int64)
    for number, pair in enumerate(classes):
        for own, probabilities in enumerate(pair):
            np.add.at(found[own, number], (np.array(probabilities) * NUM_BINS).astype(int), 1)
    return found


def test_each_class_has_the_threshold_with_its_best_f1():
    low = ([0.02] * 90, [0.1005] * 9 + [0.3005])
    high = ([0.6005] * 90, [0.9505] * 10)
    thresholds = choose_thresholds(_histogram(low, high))
    assert 0.02 < thresholds[0] <= 0.1
    assert 0.6 < thresholds[1] <= 0.95


def test_a_class_of_few_rows_takes_the_threshold_of_all():
    frequent = ([0.1] * 50, [0.4005] * 50)
    rare = ([0.7] * 50, [0.8005] * 3)
    first, second = choose_thresholds(_histogram(frequent, rare))
    assert first == second
    assert 0.1 < first <= 0.4


def test_without_rows_or_hope_it_is_a_half():
    assert choose_thresholds(np.zeros((2, 3, NUM_BINS), dtype=np.int64)) == (0.5,) * 3
    assert choose_thresholds(_histogram(([0.9] * 9, []))) == (0.5,)


def test_a_clear_gap_is_cut_near_the_threshold_of_all():
    clear = ([0.01] * 50, [0.99] * 50)
    assert choose_thresholds(_histogram(clear, clear)) == (0.5, 0.5)
    early = ([0.0005] * 50, [0.2] * 50)  # any threshold from 0.001 to 0.2 is as good
    assert choose_thresholds(_histogram(early)) == (pytest.approx(0.101),)


def test_figures_are_those_of_torchmetrics_and_thresholds_are_better_than_a_half():
    random = torch.Generator().manual_seed(0)
    labels = (torch.rand(300, 4, generator=random) < torch.tensor([0.5, 0.2, 0.1, 0.0])).float()
    logits = labels * 2 - 2.5 + torch.randn(300, 4, generator=random)
    scores = logits.sigmoid()
    found = {}
    for thresholds in (None, (0.5,) * 4):
        counts = label_counts(Task.MULTI_LABEL, 4, thresholds)
        for part in range(0, 300, 70):
            counts.add(labels[part : part + 70], scores[part : part + 70])
        figures = counts.figures("validation")
        given = scores >= torch.tensor(counts.thresholds)
        for average in ("micro", "macro"):
            occurs = (labels + given).sum(0) > 0
            kept = (given[:, occurs].int(), labels[:, occurs].int())
            expected = multilabel_f1_score(*kept, int(occurs.sum()), average=average)
            assert figures[f"validation_{average}_f1"] == pytest.approx(float(expected), abs=1e-6)
        right = (given == labels.bool()).all(dim=1).float().mean()
        assert figures["validation_accuracy"] == pytest.approx(float(right))
        expected_loss = torch.nn.functional.binary_cross_entropy(scores, labels, reduction="sum")
        assert figures["validation_loss"] == pytest.approx(float(expected_loss) / 300, rel=1e-5)
        assert figures["validation_rows"] == 300
        found[thresholds] = figures["validation_micro_f1"]
    assert found[None] > found[(0.5,) * 4] + 0.05
