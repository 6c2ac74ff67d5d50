import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntune.data.tokenize import clean_texts
from rnntune.data.vocabulary import Lookup

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from rnntune.inference.tokenizer_file import build_tokenizer  # noqa: E402

TOKENIZERS = ("basic_english", "words", "characters")
WORDS = [
    "<pad>",
    "<unk>",
    "the",
    "cat",
    "a",
    ".",
    "'",
    "ς",
    "σ",
    "ας",
    "ßu",
    "汉",
    "字",
    "कि",
    "👍🏽",
]
PIECES = [
    *("&quot;", "quot;", "ünquot;", "#39;", "&#36;", "<b>", "</a href=x\n>", "<br />", "x&gt;"),
    *("\\", "\v", "\x1c", "\x85", "&#8212;", "#150;", "\u200b", "\u200d", "ß", "İ", "ΑΣ", "Σ", "'"),
    *(
        "the",
        "cat",
        "汉字",
        "कि",
        "สวัสดี",
        "می\u200cخ",
        "e\u0301",
        "👍🏽",
        "🇩🇪",
        "<pad>",
        "<unk>",
        " ",
        ".",
    ),
]
ASSIGNED = st.characters(exclude_categories=("Cn", "Cs"))
TEXTS = st.lists(st.sampled_from(PIECES) | ASSIGNED, max_size=12).map("".join)


def _own(texts, words, tokenizer, clean, max_length=50):
    if clean:
        texts = clean_texts(pa.array(texts, pa.string())).to_pylist()
    ids, lengths = Lookup(words).encode(texts, max_length, tokenizer)
    ends = lengths.cumsum()
    return [ids[end - n : end].tolist() for end, n in zip(ends, lengths, strict=True)]


def _theirs(texts, words, tokenizer, clean, max_length=50):
    found = build_tokenizer(words, tokenizer, clean=clean, max_length=max_length)
    again = tokenizers.Tokenizer.from_str(found.to_str())
    again.no_padding()
    return [encoding.ids or [1] for encoding in again.encode_batch(texts)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("clean", [False, True])
@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=20))
def test_tokens_are_those_of_the_model(tokenizer, clean, texts):
    words = _vocabulary(texts, tokenizer, clean)
    assert _theirs(texts, words, tokenizer, clean) == _own(texts, words, tokenizer, clean)


def _vocabulary(texts, tokenizer, clean):
    """Every token of the texts, so that one that is split elsewhere has another id."""
    from rnntune.data.tokenize import tokenize

    cleaned = clean_texts(pa.array(texts, pa.string())).to_pylist() if clean else texts
    return list(dict.fromkeys([*WORDS, *tokenize(cleaned, tokenizer)[0]]))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_character(tokenizer):
    points = [
        *range(0x3400),
        *range(0xA000, 0xAC10),
        *range(0xF900, 0x1FB00, 3),
        0x20001,
        0x30001,
        0xE0041,
        0xF0000,
    ]
    known = [chr(point) for point in points if unicodedata.category(chr(point)) != "Cn"]
    # Alone: `tokenizers` does not know the order of marks that came to Unicode after 2018.
    framed = [f"x{character}y Σ{character}Σ" for character in known]
    texts = [" ".join(framed[i : i + 5]) for i in range(0, len(framed), 5)]
    words = _vocabulary(texts, tokenizer, False)
    assert _theirs(texts, words, tokenizer, False) == _own(texts, words, tokenizer, False)


def test_texts_are_cut_and_padded():
    found = build_tokenizer(WORDS, "basic_english", clean=False, max_length=3)
    first, second = found.encode_batch(["the cat . the cat", "zebra"])
    assert first.ids == [2, 3, 5]
    assert second.ids == [1, 0, 0]
    assert second.attention_mask == [1, 0, 0]
