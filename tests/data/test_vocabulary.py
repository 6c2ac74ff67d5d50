import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TEXTS

from rnntune.data.tokenize import clean_texts, tokenize
from rnntune.data.vocabulary import (
    UNKNOWN,
    HashedVocabulary,
    Lookup,
    build_vocab,
    load_vocab,
    save_vocab,
)
from rnntune.data.word_counts import WordCounts
from rnntune.errors import DataError


def counted(counts: dict[str, int]) -> pa.Table:
    words = pa.array(counts, pa.string())
    return pa.table({"words": words, "counts": pa.array(counts.values(), pa.int64())})


@pytest.mark.parametrize(
    ("broken", "repaired"),
    [
        ("Sri Lanka #39;s donors", "Sri Lanka 's donors"),
        ("Russian\\companies", "Russian companies"),
        ("say &lt;b&gt;no&lt;/b&gt; more", "say no more"),
        ("quot;Yes,quot; he said", '"Yes," he said'),
        ("AT amp;T", "AT &T"),
        ("costs #36;5", "costs $5"),
        ("quote 1 lt 2", "quote 1 lt 2"),
    ],
)
def test_clean(broken, repaired):
    assert clean_texts(pa.array([broken]))[0].as_py() == repaired


@given(TEXTS)
def test_tokenize_gives_each_texts_tokens(texts):
    tokens, lengths = tokenize(texts)
    assert len(lengths) == len(texts)
    ends = np.cumsum(lengths)
    for body, end, length in zip(texts, ends, lengths, strict=True):
        assert tokens[end - length : end] == tokenize([body])[0]


def test_tokens_are_those_of_basic_english():
    tokens, _ = tokenize(["Don't PANIC, (really)... <br />OK; 3:1!"])
    assert tokens == [
        "don",
        "'",
        "t",
        "panic",
        ",",
        "(",
        "really",
        ")",
        ".",
        ".",
        ".",
        "ok",
        "3",
        "1",
        "!",
    ]


def test_vocabulary_is_ordered_by_frequency_and_then_by_word():
    counts = {"b": 2, "a": 2, "c": 5, "rare": 1, "<unk>": 9}
    words = build_vocab(counted(counts), None, 2)
    assert words.to_pylist() == ["<pad>", "<unk>", "c", "a", "b"]
    assert build_vocab(counted(counts), 1, 1)[2:].to_pylist() == ["c"]
    reversed_counts = dict(reversed(counts.items()))
    assert build_vocab(counted(reversed_counts), None, 2) == words


def test_vocabulary_survives_its_file():
    words = build_vocab(counted({"naïve": 3, "'": 2, "x\u200by": 1}), None, 1)
    assert load_vocab(save_vocab(words)) == words.to_pylist()
    for broken in ("", "a\nb\n", "<pad>\n<unk>\na\na\n", "<pad>\n<unk>\ntruncat"):
        with pytest.raises(DataError):
            load_vocab(broken)


@given(TEXTS, st.integers(1, 5))
def test_encode_equals_a_loop(texts, max_length):
    words = build_vocab(counted({"a": 3, "b": 2, ".": 1}), None, 1)
    known = {word: number for number, word in enumerate(words.to_pylist())}
    ids, lengths = Lookup(words).encode(texts, max_length)
    expected = []
    for body in texts:
        row = [known.get(token) or UNKNOWN for token in tokenize([body])[0]][:max_length]
        expected.append(row or [UNKNOWN])
    assert lengths.tolist() == [len(row) for row in expected]
    assert ids.tolist() == [token for row in expected for token in row]


def test_the_word_pad_in_a_text_is_not_padding():
    lookup = Lookup(build_vocab(counted({"a": 1}), None, 1))
    assert lookup.ids(["<pad>", "<unk>", "a", "zzz"]).tolist() == [1, 1, 2, 1]


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@given(st.dictionaries(WORDS, st.integers(1, 3)), st.none() | st.integers(0, 5), st.integers(1, 2))
def test_the_vocabulary_is_that_of_a_plain_sort(counts, max_size, min_frequency):
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [w for w, n in ranked if w not in ("<pad>", "<unk>") and n >= min_frequency]
    words = build_vocab(counted(counts), max_size, min_frequency)
    assert words.to_pylist() == ["<pad>", "<unk>", *kept[:max_size]]
    letters = [(len(w), n) for w, n in counts.items() if w[:1].isalnum()]
    mean = sum(length * n for length, n in letters) / max(sum(n for _, n in letters), 1)
    whole = WordCounts()
    whole.add(counted(counts))
    assert whole.totals().mean_letters == mean
    assert whole.totals().num_tokens == sum(counts.values())


@given(st.lists(st.dictionaries(WORDS, st.integers(0, 3)), max_size=9), st.randoms())
def test_counts_of_blocks_are_added_up(blocks, random):
    merged = WordCounts()
    wanted: dict[str, int] = {}
    for block in blocks:
        for word, number in block.items():
            wanted[word] = wanted.get(word, 0) + number
    taken = {word: -1 for word, number in wanted.items() if number and random.random() < 0.5}
    for block in [*blocks, taken]:
        merged.add(counted(block))
    found = merged.table().to_pydict()
    wanted = {word: number + taken.get(word, 0) for word, number in wanted.items()}
    given_counts = dict(zip(found["words"], found["counts"], strict=True))
    assert {w: n for w, n in given_counts.items() if n} == {w: n for w, n in wanted.items() if n}
    assert len(given_counts) == len(found["words"])


@given(st.lists(WORDS, unique=True), st.lists(WORDS))
def test_hashed_words_have_the_ids_of_a_lookup(words, asked):
    vocabulary = pa.array(["<pad>", "<unk>", *(w for w in words if len(w) < 5)], pa.string())
    tokens = pa.array([*asked, *words, "<pad>", "<unk>"], pa.string())
    found = HashedVocabulary(vocabulary).ids(tokens)
    assert found.tolist() == Lookup(vocabulary).ids(tokens).tolist()
    assert found.dtype == np.int32


def test_words_of_one_hash_are_told_apart(monkeypatch):
    whole = HashedVocabulary._hash
    monkeypatch.setattr(HashedVocabulary, "_hash", lambda self, words: whole(self, words) % 7)
    vocabulary = HashedVocabulary(pa.array(["<pad>", "<unk>", "a", "b"]))
    words = [*"abcdefghijklmnopqrstuvwxyz"]
    assert vocabulary.ids(pa.array(words)).tolist() == [2, 3, *[UNKNOWN] * 24]
