"""Splits by hash: shares of each class, equal texts together, blocks without influence."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntune.data.stratification import (
    TEST,
    TRAIN,
    VALIDATION,
    ClassHashes,
    Fractions,
    assign_splits,
    hash_texts,
    lowest_hashes,
)


def _split(texts, labels, fractions, num_blocks=1, seed=0):
    """The split of each row when the rows come in so many blocks."""
    hashes = hash_texts(pa.array(texts, pa.string()), seed)
    summary = ClassHashes(fractions)
    for rows in np.array_split(np.arange(len(texts)), num_blocks):
        names, ids = np.unique(np.array(labels)[rows], return_inverse=True)
        kept = lowest_hashes(hashes[rows], ids.astype(np.int32), fractions)
        summary.add(names.tolist(), np.bincount(ids, minlength=len(names)), *kept)
    return assign_splits(hashes, fractions, summary.reassigned())


def _rows(class_rows, same=0):
    labels = [f"c{number}" for number, rows in enumerate(class_rows) for _ in range(rows)]
    return [f"text {i if i >= same else 0}" for i in range(len(labels))], labels


@pytest.mark.parametrize(
    ("num_rows", "fractions", "expected"),
    [
        (1, (0.1, 0.1), (1, 0, 0)),
        (2, (0.1, 0.1), (1, 1, 0)),
        (3, (0.1, 0.1), (1, 1, 1)),
        (6, (0.1, 0.1), (2, 2, 2)),
        (2, (0.1, 0.0), (1, 1, 0)),
        (7, (0.05, 0.0), (5, 2, 0)),
        (7, (0.0, 0.05), (5, 0, 2)),
        (7, (0.0, 0.0), (7, 0, 0)),
        (100, (0.1, 0.2), (72, 8, 20)),
        (1000, (0.2, 0.0), (800, 200, 0)),
        (3000, (0.05, 0.1), (2565, 135, 300)),
    ],
)
def test_each_class_has_its_share(num_rows, fractions, expected):
    texts, labels = _rows([num_rows, 5000, num_rows])
    parts = _split(texts, labels, Fractions(validation=fractions[0], test=fractions[1]))
    for name in ("c0", "c2"):
        assert tuple(np.bincount(parts[np.array(labels) == name], minlength=3)) == expected


def test_many_rows_keep_the_split_of_their_hash():
    texts, labels = _rows([20_000, 20_000])
    fractions = Fractions(validation=0.05, test=0.1)
    parts = _split(texts, labels, fractions)
    hashes = hash_texts(pa.array(texts), 0)
    assert (parts == assign_splits(hashes, fractions)).all()
    shares = np.bincount(parts) / len(parts)
    np.testing.assert_allclose(shares, [0.855, 0.045, 0.1], atol=0.005)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 400), min_size=2, max_size=6),
    st.integers(0, 50),
    st.sampled_from([0.0, 0.05, 0.3, 0.5]),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.integers(2, 40),
    st.integers(0, 3),
)
def test_blocks_change_nothing_and_equal_texts_stay_together(
    class_rows, same, validation, test, num_blocks, seed
):
    texts, labels = _rows(class_rows, same)
    fractions = Fractions(validation=validation, test=test)
    parts = _split(texts, labels, fractions, seed=seed)
    assert (parts == _split(texts, labels, fractions, num_blocks, seed)).all()
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = _split(
        [texts[i] for i in order], [labels[i] for i in order], fractions, num_blocks, seed
    )
    assert (shuffled == parts[order]).all()
    assert len(set(parts[:same].tolist())) <= 1
    if not validation:
        assert not (parts == VALIDATION).any()
    if not test:
        assert not (parts == TEST).any()
    for name in set(labels):
        of_class = np.array(labels) == name
        if not any(of_class[:same]):  # no text of another class
            assert (parts[of_class] == TRAIN).any()


def test_a_class_of_one_text_stays_in_training():
    """Whatever its hash: with every seed, so that some would be held out."""
    for seed in range(30):
        texts = ["only"] * 9 + [f"t{n}" for n in range(50)]
        labels = ["rare"] * 9 + ["other"] * 50
        parts = _split(texts, labels, Fractions(validation=0.3, test=0.3), seed=seed)
        assert (parts[:9] == TRAIN).all()


def test_the_rarer_class_keeps_a_shared_text_for_training():
    for seed in range(60):
        texts = ["shared", "own", *(f"t{n}" for n in range(40)), "shared"]
        labels = ["rare", "rare", *["other"] * 41]
        parts = _split(texts, labels, Fractions(validation=0.3, test=0.0), seed=seed)
        assert sorted(parts[:2].tolist()) == [TRAIN, VALIDATION]
        assert parts[0] == parts[-1]
