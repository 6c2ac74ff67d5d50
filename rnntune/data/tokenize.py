"""Text to tokens: cleaning and the tokenizers.

`basic_english` is torchtext's where torchtext can be imported, else the same normalization by
Hugging Face's `tokenizers`; nothing outside this module knows which.
"""

import itertools
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rnntune.config.schema import Tokenizer
from rnntune.data.unicode_words import split_characters, split_words

__all__ = ["BASIC_ENGLISH", "CLEANING", "clean_texts", "resolve_tokenizer", "tokenize"]

# What is left of HTML in AG News: entities that lost their ampersand, tags, and a backslash
# where a line ended.
CLEANING = (
    (r"\\", " "),
    (r"&?#39;", "'"),
    (r"&?#36;", "$"),
    (r"&?#(145|146|8216|8217);", "'"),
    (r"&?#(147|148|8220|8221|34);|&?\bquot;", '"'),
    (r"&?#(150|151|8211|8212);", " - "),
    (r"&?\bamp;", "&"),
    (r"&?\blt;", "<"),
    (r"&?\bgt;", ">"),
    (r"&?\bnbsp;|&?#160;", " "),
    (r"&?#[0-9]{2,5};", " "),
    (r"</?[a-zA-Z][^<>]*>", " "),
    (r"\s+", " "),
)


_LETTERS = 8  # more than a token has in most languages, with the space


def clean_texts(texts: pa.StringArray) -> pa.StringArray:
    """Repair broken entities, tags and the backslashes that stand for line breaks.

    Args:
        texts: strings, (rows,).

    Returns:
        strings, (rows,).
    """
    for pattern, replacement in CLEANING:
        texts = pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)
    return texts


def resolve_tokenizer(name: Literal["auto"] | Tokenizer, form: str) -> Tokenizer:
    """The tokenizer of a configuration.

    `auto` is `basic_english` for AG News and the built-in sample, which are known to be English,
    and `words` for any other data: the two differ little on English, and `words` alone separates
    Chinese, keeps quotation marks, and tells a word from the dash or bracket beside it.

    Args:
        name: the setting `data.tokenizer`.
        form: form of the data's files.
    """
    if name != "auto":
        return name
    return "basic_english" if form in ("ag_news", "sample") else "words"


def tokenize(
    texts: Iterable[str], tokenizer: Tokenizer = "basic_english", max_tokens: int | None = None
) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Split texts into tokens.

    Args:
        texts: strings without lone surrogates.
        tokenizer: how.
        max_tokens: tokens of a text that are wanted; one more is given of a longer text. None:
            all. What stands far behind them is not even looked at.

    Returns:
        All tokens one after the other, and the number of tokens of each text, int32 (rows,).
    """
    split = _SPLIT[tokenizer]
    rows = split(texts) if max_tokens is None else _first_tokens(list(texts), split, max_tokens)
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    return list(itertools.chain.from_iterable(rows)), lengths


def _first_tokens(
    texts: list[str], split: Callable[[Iterable[str]], list[list[str]]], max_tokens: int
) -> list[list[str]]:
    """The first tokens of each text, one more than `max_tokens` of a longer one.

    No token and nothing that changes one reaches across white space, but for one tag (`_head`):
    the tokens of a text up to there are the first ones of the whole text.
    """
    num_letters = max_tokens * _LETTERS
    heads = [_head(text, num_letters) for text in texts]
    rows = split(heads)
    for number, (text, head) in enumerate(zip(texts, heads, strict=True)):
        longer = num_letters
        while len(rows[number]) <= max_tokens and len(head) < len(text):
            longer *= 4
            head = _head(text, longer)
            rows[number] = split([head])[0]
    return [row[: max_tokens + 1] for row in rows]


def _head(text: str, num_letters: int) -> str:
    """A text up to white space before so many letters; the whole text where there is none."""
    if len(text) <= num_letters:
        return text
    head = text[:num_letters]
    while True:
        parts = head.rsplit(None, 1)
        if len(parts) < 2:
            return text
        head = parts[0]
        # `basic_english` leaves out "<br />", a tag with a space in it, quotes or not.
        if not head.rsplit(None, 1)[-1].replace('"', "").lower().endswith("<br"):
            return head


def _torchtext_split() -> Callable[[str], list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchtext

        torchtext.disable_torchtext_deprecation_warning()
        from torchtext.data.utils import get_tokenizer
    split: Callable[[str], list[str]] = get_tokenizer("basic_english")
    return split


# The patterns of torchtext's `basic_english` in their order.
# Source: https://github.com/pytorch/text/blob/v0.18.0/torchtext/data/utils.py
BASIC_ENGLISH = (
    ("'", " '  "),
    ('"', ""),
    (".", " . "),
    ("<br />", " "),
    (",", " , "),
    ("(", " ( "),
    (")", " ) "),
    ("!", " ! "),
    ("?", " ? "),
    (";", " "),
    (":", " "),
)


def _hugging_face_split() -> Callable[[str], list[str]]:
    from tokenizers import normalizers

    replaced = normalizers.Sequence([normalizers.Replace(*pair) for pair in BASIC_ENGLISH])

    # Python's lower case and white space, not those of `tokenizers`: a sigma at the end of a
    # word has a form of its own, and U+001C to U+001F are white space in Python alone.
    def split(text: str) -> list[str]:
        replaced_text: str = replaced.normalize_str(text.lower())
        return replaced_text.split()

    return split


@cache
def _basic_english_split() -> Callable[[str], list[str]]:
    try:
        return _torchtext_split()
    except ImportError:
        return _hugging_face_split()


def _basic_english(texts: Iterable[str]) -> list[list[str]]:
    split = _basic_english_split()
    return [split(text) for text in texts]


_SPLIT: dict[Tokenizer, Callable[[Iterable[str]], list[list[str]]]] = {
    "basic_english": _basic_english,
    "words": split_words,
    "characters": split_characters,
}
