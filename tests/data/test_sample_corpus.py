import json
import subprocess
import sys
from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from rnntune.data.sample_corpus import _MATTERS, _PEOPLE, TOPICS, generate


@pytest.fixture(scope="module")
def train() -> list[tuple[str, str]]:
    return generate("train")


@pytest.fixture(scope="module")
def test_rows() -> list[tuple[str, str]]:
    return generate("test")


def test_sizes_and_balance(train, test_rows):
    assert (len(train), len(test_rows)) == (8000, 1000)
    for rows in (train, test_rows):
        counts = Counter(label for label, _ in rows)
        assert set(counts) == set(TOPICS)
        assert min(counts.values()) > 0.8 * len(rows) / 4


def test_no_text_occurs_twice():
    train = generate("train", 9_000)
    test = generate("test", 1_200, seed=1)
    assert len({text for _, text in [*train, *test]}) == 10_200


def test_lengths_and_rare_words(train):
    lengths = sorted(len(text.split()) for _, text in train)
    assert lengths[0] >= 7
    assert lengths[len(lengths) * 98 // 100] <= 50
    assert lengths[len(lengths) * 9 // 10] - lengths[len(lengths) // 10] > 15
    words = Counter(word for _, text in train for word in text.lower().split())
    assert sum(count == 1 for count in words.values()) > 1_000


def test_more_rows_begin_with_the_same():
    assert generate("train", 500)[:100] == generate("train", 100)
    assert generate("train", 100, seed=1) != generate("train", 100)


def test_same_in_another_process():
    code = (
        "import json; from rnntune.data.sample_corpus import generate;"
        "print(json.dumps(generate('test', 200)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(found) == [list(row) for row in generate("test", 200)]


def test_first_row_is_known():
    """A change of the corpus is meant, and then this line changes with it."""
    (label, text), *_ = generate("train", 1)
    assert label == "Sports"
    assert text == (
        "late on sunday , the young sprinter remembered the semifinal "
        "and the medal . more is expected on friday ."
    )


@pytest.mark.parametrize("longest", [1, 2])
def test_word_counts_do_not_decide(train, test_rows, longest):
    counter = CountVectorizer(ngram_range=(1, longest), token_pattern=r"\S+")
    model = LogisticRegression(max_iter=300)
    counts = counter.fit_transform([text for _, text in train])
    with threadpool_limits(1):  # many threads wait for each other on a busy machine
        model.fit(counts, [label for label, _ in train])
    texts = counter.transform([text for _, text in test_rows])
    accuracy = model.score(texts, [label for label, _ in test_rows])
    assert 0.6 < accuracy < 0.87


def test_whoever_is_named_first_decides(train, test_rows):
    topic_of = {
        word: topic
        for words in (_PEOPLE, _MATTERS)
        for topic, known in words.items()
        for word in known
    }
    for label, text in [*train, *test_rows]:
        assert next(topic_of[word] for word in text.split() if word in topic_of) == label
