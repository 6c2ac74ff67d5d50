"""Encoded rows back to text, as far as the vocabulary knows it."""

from collections.abc import Sequence

from rnntune.data.batching import EncodedRows

__all__ = ["decode_rows"]


def decode_rows(encoded: EncodedRows, rows: Sequence[int], words: Sequence[str]) -> list[str]:
    """The tokens that a model read of some rows, joined by spaces.

    Args:
        encoded: encoded rows.
        rows: which of them.
        words: the vocabulary, in the order of ids; what it lacks reads `<unk>`.
    """
    texts = []
    for row in rows:
        start = int(encoded.starts[row])
        ids = encoded.ids[start : start + int(encoded.lengths[row])]
        texts.append(" ".join(words[number] for number in ids.tolist()))
    return texts
