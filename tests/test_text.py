from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TEXTS

from rnntune import text
from rnntune.errors import DataError


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
    assert text.clean(pa.array([broken]))[0].as_py() == repaired


@given(TEXTS)
def test_tokenize_gives_each_texts_tokens(texts):
    tokens, lengths = text.tokenize(texts)
    assert len(lengths) == len(texts)
    ends = np.cumsum(lengths)
    for body, end, length in zip(texts, ends, lengths, strict=True):
        assert tokens[end - length : end] == text.tokenize([body])[0]


def test_tokens_are_those_of_basic_english():
    tokens, _ = text.tokenize(["Don't PANIC, (really)... <br />OK; 3:1!"])
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
    words = text.build_vocab(counts, None, 2)
    assert words.get_itos() == ["<pad>", "<unk>", "c", "a", "b"]
    assert text.build_vocab(counts, 1, 1).get_itos()[2:] == ["c"]
    reversed_counts = dict(reversed(counts.items()))
    assert text.build_vocab(reversed_counts, None, 2).get_itos() == words.get_itos()


def test_vocabulary_survives_its_file():
    words = text.build_vocab({"naïve": 3, "'": 2, "x\u200by": 1}, None, 1)
    assert text.load_vocab(text.save_vocab(words)).get_itos() == words.get_itos()
    for broken in ("", "a\nb\n", "<pad>\n<unk>\na\na\n", "<pad>\n<unk>\ntruncat"):
        with pytest.raises(DataError):
            text.load_vocab(broken)


@given(TEXTS, st.integers(1, 5))
def test_encode_equals_a_loop(texts, max_length):
    words = text.build_vocab({"a": 3, "b": 2, ".": 1}, None, 1)
    ids, lengths = text.Lookup(words).encode(texts, max_length)
    expected = []
    for body in texts:
        row = [words[token] or text.UNKNOWN for token in text.tokenize([body])[0]][:max_length]
        expected.append(row or [text.UNKNOWN])
    assert lengths.tolist() == [len(row) for row in expected]
    assert ids.tolist() == [token for row in expected for token in row]


def test_the_word_pad_in_a_text_is_not_padding():
    lookup = text.Lookup(text.build_vocab({"a": 1}, None, 1))
    assert lookup.ids(["<pad>", "<unk>", "a", "zzz"]).tolist() == [1, 1, 2, 1]


def _glove(folder: Path, content: str) -> str:
    file = folder / "vectors.txt"
    file.write_text(content, encoding="utf-8")
    return str(file)


def test_word_vectors_of_a_file(tmp_path):
    name = _glove(tmp_path, "the 1 2\nnaïve 3 4\nother 5 6\n")
    words = ["<pad>", "<unk>", "naïve", "missing", "the"]
    matrix, found = text.load_word_vectors(name, words, str(tmp_path))
    assert matrix.tolist() == [[0, 0], [0, 0], [3, 4], [0, 0], [1, 2]]
    assert found == pytest.approx(2 / 3)


@pytest.mark.parametrize("content", ["the 1 x\n", "the 1 2\na 1\n", "nothing 1 2\n"])
def test_word_vectors_that_cannot_be_used(tmp_path, content):
    with pytest.raises(DataError, match=r"vectors\.txt"):
        text.load_word_vectors(
            _glove(tmp_path, content), ["<pad>", "<unk>", "the", "a"], str(tmp_path)
        )


def test_installed_glove_vectors_put_like_words_near():
    words = ["<pad>", "<unk>", "football", "soccer", "bank", "no-such-word"]
    matrix, found = text.load_word_vectors("glove.6B.50d", words, "")
    assert matrix.shape == (6, 50)
    assert found == pytest.approx(3 / 4)
    assert not matrix[5].any()
    unit = matrix[2:5] / np.linalg.norm(matrix[2:5], axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2]


def test_vectors_that_cannot_be_downloaded_are_one_line(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(text, "GloVe", refuse)
    with pytest.raises(DataError, match=r"glove\.6B\.300d: no route$"):
        text.load_word_vectors("glove.6B.300d", ["<pad>", "<unk>", "a"], str(tmp_path))
