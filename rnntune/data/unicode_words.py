"""Tokens of any script: words where a script has spaces, characters where it has none.

Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces, so each of their
characters is a token, as in BERT's tokenizer for Chinese; a word of another script between them
stays whole. A base character keeps its combining marks: the class of word characters
of Python's `re` lacks the vowel signs of Hindi, Tamil and Thai and would end a word at each.

*Source:* https://www.unicode.org/reports/tr29/ (words), https://www.unicode.org/reports/tr51/
(emoji), https://arxiv.org/abs/1810.04805 (BERT).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np

__all__ = [
    "INVISIBLE",
    "NO_TOKEN",
    "character_pattern",
    "split_characters",
    "split_words",
    "word_pattern",
]

# First and last code points of scripts without spaces; whole planes of ideographs, so that the
# tokens do not depend on the release of Unicode that Python has.
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x19E0, 0x19FF),
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x3035),
    (0x3038, 0x303B),
    (0x3041, 0x30FF),  # kana
    (0x3105, 0x312F),  # bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # narrow kana
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
# Letters of rare and old scripts; above are symbols and ideographs alone. Their many ranges slow
# a pattern to a sixth, so it knows them only for texts that have one.
_RARE = (0x10000, 0x1F000)
_HAS_RARE = re.compile("[\U00010000-\U0001efff]")
# Categories that have no look of their own, with the characters that choose between a coloured and
# a black emoji; a token does not change with them. Two joiners mean something in Persian, Hindi
# and emoji.
_JOINERS = "\u200c\u200d"
INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200e\u200f\u202a-\u202e\u2060-\u206f\ufe0e\ufe0f\ufeff]"
)
NO_TOKEN = r"\s\x00-\x1f\x7f-\x9f\u200b-\u200d"
_PICTURE = "[\u203c-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001f1e5\U0001f200-\U0001faff]"
_TONE = "[\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u20e3]"
_EMOJI = f"{_PICTURE}{_TONE}*(?:\u200d{_PICTURE}{_TONE}*)*|[\U0001f1e6-\U0001f1ff]{{2}}"

_ASCII_WORD = re.compile(r"[a-z0-9_]+|[!-/:-@\[-^`{-~]")
_ASCII_CHARACTER = re.compile(r"[!-~]")


def split_words(texts: Iterable[str]) -> list[list[str]]:
    """Lower-cased words, single punctuation marks, and characters of scripts without spaces.

    A word is a run of letters, digits, underscores and combining marks; a sequence of emoji that
    are shown as one is one token; control characters are none. Composed and decomposed accents
    give the same token.

    Args:
        texts: without lone surrogates.

    Returns:
        Tokens of each text.
    """
    return [
        _ASCII_WORD.findall(text.lower()) if text.isascii() else _findall(word_pattern, text)
        for text in texts
    ]


def split_characters(texts: Iterable[str]) -> list[list[str]]:
    """Lower-cased characters with their combining marks; white space is no token.

    Args:
        texts: without lone surrogates.

    Returns:
        Tokens of each text.
    """
    return [
        _ASCII_CHARACTER.findall(text.lower())
        if text.isascii()
        else _findall(character_pattern, text)
        for text in texts
    ]


def _findall(pattern: Callable[[bool], re.Pattern[str]], text: str) -> list[str]:
    text = unicodedata.normalize("NFC", INVISIBLE.sub("", text.lower()))
    tokens: list[str] = pattern(bool(_HAS_RARE.search(text))).findall(text)
    return tokens


@cache
def word_pattern(rare: bool) -> re.Pattern[str]:
    """What `split_words` finds in a lower-case text.

    Args:
        rare: with the scripts of the supplementary plane.
    """
    marks, letters, spaceless = _character_classes(rare)
    word = f"[{letters}{marks}]+"
    return re.compile(
        f"{word}(?:[{_JOINERS}]+{word})*|[{spaceless}][{marks}]*|{_EMOJI}|[^{NO_TOKEN}]"
    )


@cache
def character_pattern(rare: bool) -> re.Pattern[str]:
    """What `split_characters` finds in a lower-case text.

    Args:
        rare: with the scripts of the supplementary plane.
    """
    marks, _, _ = _character_classes(rare)
    return re.compile(f"{_EMOJI}|[^{NO_TOKEN}][{marks}]*")


@cache
def _character_classes(rare: bool) -> tuple[str, str, str]:
    """Insides of three character classes: marks, letters and digits, those of spaceless scripts.

    Args:
        rare: with the scripts of the supplementary plane.
    """
    points_spaceless = {point for first, last in _SPACELESS for point in range(first, last + 1)}
    marks: list[int] = []
    letters: list[int] = []
    spaceless: list[int] = []
    for point in range(_RARE[1] if rare else _RARE[0]):
        kind = unicodedata.category(chr(point))
        if kind[0] == "M":
            marks.append(point)
        elif kind[0] in "LN" or point == ord("_"):
            (spaceless if point in points_spaceless else letters).append(point)
    ideographs = f"{chr(0x20000)}-{chr(0x3FFFF)}"
    return _ranges(marks), _ranges(letters), _ranges(spaceless) + ideographs


def _ranges(points: list[int]) -> str:
    array = np.array(points)
    breaks = np.flatnonzero(np.diff(array) > 1)
    firsts, lasts = array[np.r_[0, breaks + 1]], array[np.r_[breaks, -1]]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(firsts, lasts, strict=True))
