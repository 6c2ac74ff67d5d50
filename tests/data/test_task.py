import numpy as np
import pytest

from rnntune.data.task import (
    confidence,
    decide,
    label_column,
    label_names,
    rows_equal,
    rows_of_classes,
)

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.6], [0.05, 0.1, 0.04]], dtype=np.float32)


def test_one_class_a_row():
    given = decide(SCORES, None)
    assert label_names(given, "abc") == ["a", "c", "b"]
    assert rows_equal(given, np.array([0, 1, 1])).tolist() == [True, False, True]
    assert rows_of_classes(given, 4).tolist() == [1, 1, 1, 0]
    assert confidence(SCORES, given).tolist() == pytest.approx([0.7, 0.6, 0.1])
    assert label_column(given).to_pylist() == [0, 2, 1]


def test_a_set_of_classes_a_row():
    given = decide(SCORES, (0.5, 0.2, 0.61))  # a threshold that is reached counts
    assert label_names(given, "abc") == [["a", "b"], ["b"], []]
    labels = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=np.uint8)
    assert rows_equal(given, labels).tolist() == [True, False, True]
    assert rows_of_classes(given, 3).tolist() == [1, 2, 0]
    expected = [0.7 * 0.2 * 0.9, 0.9 * 0.5 * 0.4, 0.95 * 0.9 * 0.96]
    assert confidence(SCORES, given).tolist() == pytest.approx(expected)
    assert label_column(labels).to_pylist() == [[0, 1], [0, 1], []]
