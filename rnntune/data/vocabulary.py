"""The vocabulary: which token has which id, and looking tokens up in Arrow."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rnntune.config.schema import Tokenizer
from rnntune.data.tokenize import tokenize
from rnntune.errors import DataError

__all__ = [
    "PAD",
    "SPECIALS",
    "UNKNOWN",
    "HashedVocabulary",
    "Lookup",
    "build_vocab",
    "hash_words",
    "letter_totals",
    "load_vocab",
    "save_vocab",
    "top_words",
]

PAD, UNKNOWN = 0, 1
SPECIALS = ["<pad>", "<unk>"]
_HASHED_WORDS = 1 << 16


def build_vocab(counts: pa.Table, max_size: int | None, min_frequency: int) -> pa.StringArray:
    """The words of counted tokens in the order of ids.

    The most frequent come first, ties in order of code points. Ids 0 and 1 are padding and the
    unknown word, which also stands for every word that is left out.

    Args:
        counts: `words`, each once, and `counts`; (words,).
        max_size: words that are kept; None: all.
        min_frequency: occurrences of a word that is kept.
    """
    kept = top_words(counts, max_size, min_frequency)["words"]
    return pa.concat_arrays([pa.array(SPECIALS), *kept.chunks])


def top_words(counts: pa.Table, max_size: int | None, min_frequency: int) -> pa.Table:
    """The most frequent words and their counts in the order of ids; see `build_vocab`."""
    is_special = pc.is_in(counts["words"], value_set=pa.array(SPECIALS))
    enough = pc.greater_equal(counts["counts"], min_frequency)
    counts = counts.filter(pc.and_(enough, pc.invert(is_special)))
    if max_size is not None and max_size < len(counts):
        # Only words as frequent as the last one that is kept are compared with each other.
        lowest = np.partition(counts["counts"].to_numpy(), -max_size)[-max_size] if max_size else 0
        counts = counts.filter(pc.greater_equal(counts["counts"], lowest))
    # UTF-8 sorts by its bytes as text does by its code points.
    order = pc.sort_indices(counts, [("counts", "descending"), ("words", "ascending")])
    return counts.take(order[:max_size])


def letter_totals(counts: pa.Table) -> tuple[int, int]:
    """Characters of the occurrences of counted words, without punctuation, and these occurrences.

    Args:
        counts: see `build_vocab`.
    """
    firsts = pc.utf8_slice_codeunits(counts["words"], 0, 1).dictionary_encode().combine_chunks()
    is_word = np.array([first.isalnum() for first in firsts.dictionary.to_pylist()], dtype=bool)
    chosen = is_word[firsts.indices.to_numpy()]
    numbers = counts["counts"].to_numpy()[chosen]
    letters = pc.utf8_length(counts["words"]).to_numpy()[chosen]
    return int((letters * numbers).sum()), int(numbers.sum())


def save_vocab(words: pa.StringArray | Sequence[str]) -> str:
    """The vocabulary as text: one word a line, in the order of ids."""
    listed = words.to_pylist() if isinstance(words, pa.Array) else words
    return "".join(f"{word}\n" for word in listed)


def load_vocab(text: str, name: str = "vocab.txt") -> list[str]:
    """The vocabulary that `save_vocab` wrote.

    Raises:
        DataError: not such a file, or a word stands twice.
    """
    words = text.split("\n")[:-1]
    if words[:2] != SPECIALS or not text.endswith("\n"):
        raise DataError(f"{name}: not a vocabulary (it must begin with <pad> and <unk>)")
    if len(set(words)) != len(words):
        raise DataError(f"{name}: a word stands twice")
    return words


class Lookup:
    """Vectorized look-up of tokens in a vocabulary.

    Args:
        words: the vocabulary, in the order of ids.
    """

    def __init__(self, words: Sequence[str] | pa.StringArray) -> None:
        self._words = words if isinstance(words, pa.Array) else pa.array(words, pa.string())

    def __len__(self) -> int:
        return len(self._words)

    def ids(self, tokens: pa.StringArray | Sequence[str]) -> npt.NDArray[np.int32]:
        """Token ids, int32 (tokens,); words that are not in the vocabulary become `UNKNOWN`."""
        array = tokens if isinstance(tokens, pa.Array) else pa.array(tokens, type=pa.string())
        found = pc.fill_null(pc.index_in(array, value_set=self._words), UNKNOWN)
        ids: npt.NDArray[np.int32] = found.to_numpy(zero_copy_only=False).astype(np.int32)
        ids[ids == PAD] = UNKNOWN  # the text itself may say "<pad>"
        return ids

    def encode(
        self, texts: Iterable[str], max_length: int, tokenizer: Tokenizer = "basic_english"
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Tokenize and look up.

        Returns:
            Flat ids, int32 (tokens,), and lengths, int32 (rows,), each from 1 to `max_length`.
        """
        tokens, lengths = tokenize(texts, tokenizer)
        ids, lengths, _ = truncate(self.ids(tokens), lengths, max_length)
        return ids, lengths


class HashedVocabulary:
    """A vocabulary to look many blocks' words up in, made once and shared by all processes.

    Arrow's `index_in` makes a table of all words at each call. Words are compared after their
    hashes, so that a word that is not in the vocabulary never passes for one that is.

    Args:
        words: the vocabulary, in the order of ids.
    """

    def __init__(self, words: pa.StringArray) -> None:
        self._words = words
        for self._key in range(100):
            hashes = self._hash(words)
            self._order = np.argsort(hashes).astype(np.int32)
            self._hashes = hashes[self._order]
            if (np.diff(self._hashes) > 0).all():
                return
        raise AssertionError("a word stands twice in the vocabulary")

    def __len__(self) -> int:
        return len(self._words)

    def _hash(self, words: pa.StringArray) -> npt.NDArray[np.uint64]:
        return hash_words(words, self._key)

    def ids(self, words: pa.StringArray) -> npt.NDArray[np.int32]:
        """Token ids as `Lookup.ids` gives them, int32 (words,)."""
        hashes = self._hash(words)
        index = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        ids = self._order[index]
        same = pc.equal(self._words.take(pa.array(ids)), words).to_numpy(zero_copy_only=False)
        return np.where(same & (ids != PAD), ids, UNKNOWN).astype(np.int32)


def hash_words(words: pa.StringArray, key: int = 0) -> npt.NDArray[np.uint64]:
    """A hash of each word, the same in every process, uint64 (words,).

    Args:
        words: any.
        key: another one gives other hashes.
    """
    import pandas as pd

    parts = [np.empty(0, dtype=np.uint64)]
    for start in range(0, len(words), _HASHED_WORDS):
        part = words.slice(start, _HASHED_WORDS).to_numpy(zero_copy_only=False)
        parts.append(pd.util.hash_array(part, hash_key=f"{key:016d}", categorize=False))
    return np.concatenate(parts)


def truncate(
    ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], max_length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]:
    """Cut rows to `max_length` and give rows without a token one unknown token.

    Returns:
        Flat ids, lengths (rows,), and the number of rows that were cut.
    """
    num_cut = int((lengths > max_length).sum())
    empty = lengths == 0
    if not num_cut and not empty.any():
        return ids, lengths, 0
    kept = np.minimum(lengths, max_length)
    position = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids = ids[position < max_length]
    ids = np.insert(ids, (np.cumsum(kept) - kept)[empty], UNKNOWN)
    return ids, np.maximum(kept, 1).astype(np.int32), num_cut
