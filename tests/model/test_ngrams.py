import itertools

import numpy as np
import pytest
import torch
from models import PLAIN
from sklearn.feature_extraction.text import TfidfVectorizer

from rnntune.config.schema import ModelConfig
from rnntune.model.network import Classifier
from rnntune.model.ngrams import NGramBranch, letter_ngrams

WORDS = ["<pad>", "<unk>", "the", "cat", "cats", "sat", "mat", "ünsaß"]
TEXTS = ["the cat sat the cat", "cats sat", "mat", "the mat the mat the mat sat"]


def _encoded(texts):
    ids = [[WORDS.index(word) if word in WORDS else 1 for word in text.split()] for text in texts]
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int64)
    for row, numbers in enumerate(ids):
        padded[row, : len(numbers)] = torch.tensor(numbers)
    return padded, lengths


def _branch(**settings) -> NGramBranch:
    config = ModelConfig(
        **{**PLAIN, "ngrams": 2, "ngram_buckets": 1 << 16, "letter_buckets": 0, **settings}
    )
    letters = letter_ngrams(WORDS) if config.letter_buckets else None
    return NGramBranch(config, len(WORDS), 3, letters)


def test_features_are_those_of_scikit_learns_tfidf():
    branch = _branch()
    batch = _encoded(TEXTS)
    branch.set_idf(branch.count_texts([batch]))
    text, number, count = branch.features(*batch)
    weight = (1 + count.float().log()) * branch.idf[number]
    ours = np.zeros((len(TEXTS), branch.num_features))
    ours[text, number] = weight
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(TEXTS).toarray()
    # Columns are in another order: what texts have in common is not.
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-6)


@pytest.mark.parametrize("letter_buckets", [0, 64])
def test_a_batch_equals_its_texts_one_by_one(letter_buckets):
    torch.manual_seed(0)
    branch = _branch(letter_buckets=letter_buckets)
    torch.nn.init.normal_(branch.table.weight)
    batch = _encoded([*TEXTS, "unknown", "the unknown cat"])
    branch.set_idf(branch.count_texts([batch]))
    together = branch(*batch)
    assert together.shape == (6, 3)
    for row, length in enumerate(batch[1].tolist()):
        alone = branch(batch[0][row : row + 1, :length], batch[1][row : row + 1])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-6)


def test_what_no_training_text_has_weighs_nothing():
    branch = _branch()
    torch.nn.init.normal_(branch.table.weight)
    branch.set_idf(branch.count_texts([_encoded(["the cat"])]))
    known, unknown = branch(*_encoded(["the cat", "mat sat"]))
    assert known.abs().sum() > 0
    torch.testing.assert_close(unknown, branch.bias)


def test_counts_of_parts_add_up():
    branch = _branch(letter_buckets=64)
    whole = branch.count_texts([_encoded(TEXTS)])
    parts = branch.count_texts([_encoded(TEXTS[:1])]) + branch.count_texts([_encoded(TEXTS[1:])])
    assert torch.equal(whole, parts)
    assert whole[-1] == len(TEXTS)


def test_letters_of_a_word():
    hashes, starts = letter_ngrams(WORDS)
    of_word = [set(hashes[a:b].tolist()) for a, b in itertools.pairwise(starts)]
    assert [len(found) for found in of_word] == [0, 0, 3 + 2 + 1, 6, 9, 6, 6, 12]
    cat, cats, mat = of_word[3], of_word[4], of_word[6]
    assert len(cat & cats) == 3  # <ca, cat, <cat
    assert len(cat & mat) == 1  # at>
    assert hashes.min() >= 0
    assert hashes.max() < 2**31


def test_both_branches_are_trained_and_their_sum_decides():
    torch.manual_seed(0)
    model = Classifier(
        ModelConfig(
            **{**PLAIN, "ngrams": 2, "dropout": 0.0},
            recurrent_weight=1.0,
            embedding_dim=6,
            ngram_buckets=64,
            letter_buckets=0,
        ),
        len(WORDS),
        3,
    )
    batch = _encoded(TEXTS)
    model.ngrams.set_idf(model.ngrams.count_texts([batch]))
    branches = model(*batch)
    assert branches.shape == (2, len(TEXTS), 3)
    branches.square().sum().backward()
    model.zero_grad()
    (branches := model(*batch))[1, :, 0].sum().backward()
    assert model.ngrams.table.weight.grad.abs().sum() > 0
    assert not branches[1].isnan().any()
    logits = model.eval()(*batch)
    recurrent = Classifier.forward(model, *batch)
    torch.testing.assert_close(logits, recurrent)
