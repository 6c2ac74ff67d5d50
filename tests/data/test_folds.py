import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnntune.data.batching import EncodedRows
from rnntune.data.folds import assign_folds, split_fold


def rows_of(texts: list[list[int]], labels: list[int]) -> EncodedRows:
    return EncodedRows(
        ids=np.array([token for text in texts for token in text], dtype=np.int32),
        lengths=np.array([len(text) for text in texts], dtype=np.int32),
        labels=np.array(labels, dtype=np.int64),
    )


def many_rows(num_rows: int, num_classes: int) -> tuple[list[list[int]], list[int]]:
    random = np.random.default_rng(0)
    texts = [random.integers(2, 50, random.integers(1, 9)).tolist() for _ in range(num_rows)]
    return texts, random.integers(0, num_classes, num_rows).tolist()


@given(st.integers(2, 6), st.integers(6, 80))
def test_each_row_validates_once_and_trains_else(num_folds, num_rows):
    rows = rows_of(*many_rows(num_rows, 2))
    folds = assign_folds(rows, num_folds, seed=0)
    validated = 0
    for fold in range(num_folds):
        train, validation = split_fold(rows, folds, fold)
        assert len(train) + len(validation) == num_rows
        validated += len(validation)
        kept = np.flatnonzero(folds == fold)
        for number, row in enumerate(kept):
            start, end = validation.starts[number], rows.starts[row]
            length = rows.lengths[row]
            assert (validation.ids[start : start + length] == rows.ids[end : end + length]).all()
            assert validation.labels[number] == rows.labels[row]
    assert validated == num_rows


def test_the_order_of_the_rows_changes_no_fold_but_the_seed_does():
    texts, labels = many_rows(200, 3)
    order = np.random.default_rng(1).permutation(200)
    folds = assign_folds(rows_of(texts, labels), 5, seed=0)
    turned = rows_of([texts[i] for i in order], [labels[i] for i in order])
    assert (assign_folds(turned, 5, seed=0) == folds[order]).all()
    assert (assign_folds(rows_of(texts, labels), 5, seed=1) != folds).any()


def test_each_class_is_spread_over_the_folds_and_rare_ones_over_different_ones():
    texts = [[number + 2, number % 7 + 2, number] for number in range(145)]
    labels = [0] * 100 + [1] * 40 + [2] * 3 + [3] * 2
    folds = assign_folds(rows_of(texts, labels), 5, seed=0)
    of_class = [np.bincount(folds[np.array(labels) == label], minlength=5) for label in range(4)]
    assert of_class[0].tolist() == [20] * 5
    assert of_class[1].tolist() == [8] * 5
    assert (of_class[2] + of_class[3]).tolist() == [1] * 5


@pytest.mark.parametrize("other", [0, 1])
def test_equal_texts_fall_together(other):
    texts, labels = many_rows(60, 2)
    texts += [[7, 7, 7]] * 5
    labels += [0, 0, 0, other, other]
    folds = assign_folds(rows_of(texts, labels), 4, seed=0)
    assert len(set(folds[60:].tolist())) == 1


def test_a_row_of_several_labels_counts_as_one_of_the_rarest():
    texts = [[number + 2, number] for number in range(100)]
    labels = np.zeros((100, 3), dtype=np.uint8)
    labels[:80, 0] = 1
    labels[70:90, 1] = 1
    labels[::20, 2] = 1  # each with one of the others, or alone
    rows = EncodedRows(
        ids=np.array(texts, dtype=np.int32).ravel(),
        lengths=np.full(100, 2, dtype=np.int32),
        labels=labels,
    )
    folds = assign_folds(rows, 5, seed=0)
    assert np.bincount(folds[::20]).tolist() == [1] * 5
    assert np.bincount(folds, minlength=5).tolist() == [20] * 5
    train, validation = split_fold(rows, folds, 0)
    assert train.labels.shape == (80, 3)
    assert (train.labels.sum(axis=0) + validation.labels.sum(axis=0)).tolist() == [80, 20, 5]
