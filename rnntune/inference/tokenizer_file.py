r"""A model's cleaning, tokenizer and vocabulary as a `tokenizer.json` of Hugging Face's library.

Its regular expressions are Oniguruma's. What `\s`, `\b` and lower case mean there differs from
RE2, which cleans, and from Python, which tokenizes; so characters are named one by one.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from rnntune.config.schema import Tokenizer
from rnntune.data.tokenize import BASIC_ENGLISH, CLEANING
from rnntune.data.unicode_words import INVISIBLE, NO_TOKEN, character_pattern, word_pattern
from rnntune.data.vocabulary import PAD, SPECIALS, UNKNOWN

__all__ = ["build_tokenizer"]
# White space of `str.split`, which has four control characters more than Unicode.
_SPACE = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_RE2_TO_ONIGURUMA = ((r"\\s", r"[\\t\\n\\f\\r ]"), (r"\\b", r"(?<![0-9A-Za-z_])"))


def build_tokenizer(
    words: Sequence[str], tokenizer: Tokenizer, *, clean: bool, max_length: int
) -> tokenizers.Tokenizer:
    """A tokenizer that gives the same ids as a model's own, except for texts without a token.

    Those have no ids; the model reads them as one unknown word. Rows of a batch are padded.

    Args:
        words: the vocabulary in the order of ids.
        tokenizer: how the model splits texts.
        clean: whether it cleans them first.
        max_length: tokens that it reads.
    """
    # A text may say "<pad>"; without an entry that is an unknown word like any other.
    ids = {word: number for number, word in enumerate(words) if number != PAD}
    found = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=SPECIALS[UNKNOWN]))
    before, found.pre_tokenizer = _SPLITS[tokenizer]()
    cleaning = [_replace(*pair) for pair in CLEANING] if clean else []
    # A sigma at the end of a word has another lower-case form; without such words nobody sees it.
    sigma = [_final_sigma()] if any("ς" in word for word in words) else []
    found.normalizer = normalizers.Sequence([*cleaning, *sigma, normalizers.Lowercase(), *before])
    found.enable_truncation(max_length)
    found.enable_padding(pad_id=PAD, pad_token=SPECIALS[PAD])
    return found


_Split = tuple[list[normalizers.Normalizer], pre_tokenizers.PreTokenizer]


def _basic_english() -> _Split:
    replaced: list[normalizers.Normalizer]
    replaced = [normalizers.Replace(*pair) for pair in BASIC_ENGLISH]
    return replaced, pre_tokenizers.Split(Regex(f"[{_SPACE}]+"), "removed")


def _findall(pattern: str) -> _Split:
    """Every match of a pattern of Python's as a token, of texts in composed form."""
    ours = pattern.replace(NO_TOKEN, rf"{_SPACE}\u0000-\u001f\u007f-\u009f\u200b-\u200d")
    before = [normalizers.Replace(Regex(INVISIBLE.pattern), ""), normalizers.NFC()]
    return before, pre_tokenizers.Split(Regex(ours), "removed", invert=True)


def _replace(pattern: str, replacement: str) -> normalizers.Normalizer:
    for theirs, ours in _RE2_TO_ONIGURUMA:
        pattern = re.sub(theirs, ours, pattern)
    return normalizers.Replace(Regex(pattern), replacement)


@cache
def _final_sigma() -> normalizers.Normalizer:
    """The rule by which Python writes a final sigma: after a letter with cases, before none.

    Source: https://www.unicode.org/versions/latest/ch03.pdf, table 3-17 (Final_Sigma).
    """
    points = [*range(0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xE0200)]
    cased = {p for p in points if f"{chr(p)}Σ".lower().endswith("ς")}
    ignorable = {p for p in points if f"A{chr(p)}Σ".lower().endswith("ς")} - cased
    skipped = f"[{_ranges(ignorable)}]*"
    letter = f"[{_ranges(cased)}]"
    return normalizers.Replace(Regex(rf"{letter}{skipped}\KΣ(?!{skipped}{letter})"), "ς")


def _ranges(points: set[int]) -> str:
    """The inside of a character class."""
    firsts = sorted(point for point in points if point - 1 not in points)
    lasts = sorted(point for point in points if point + 1 not in points)
    return "".join(
        f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in zip(firsts, lasts, strict=True)
    )


_SPLITS: dict[Tokenizer, Callable[[], _Split]] = {
    "basic_english": _basic_english,
    "words": lambda: _findall(word_pattern(True).pattern),
    "characters": lambda: _findall(character_pattern(True).pattern),
}
