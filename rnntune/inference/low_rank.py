"""Fewer numbers a word: what a recurrent layer reads, in the directions that it listens to most."""

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rnntune.data.vocabulary import SPECIALS, UNKNOWN
from rnntune.inference.product_codes import CodedRows, encode_rows

__all__ = ["WordTables", "merge_tables"]
FloatArray = npt.NDArray[np.float32]
_FREQUENT = 50  # how often words occur falls with their rank, less so among the first


def merge_tables(weights: Mapping[str, FloatArray], rank: int) -> dict[str, FloatArray]:
    """Put embedding and word vectors into one table of fewer numbers a word.

    The table times the first layer's input weights, which is all that the network reads of a
    word, is kept as exactly as that many numbers can; frequent words count more.

    Args:
        weights: the classifier's tensors by name; words in the order of frequency.
        rank: numbers of a word.

    Returns:
        The tensors without word vectors, `embedding.weight` float32 (words, rank).

    Source: Eckart and Young 1936, https://doi.org/10.1007/BF02288367, in the metric of the layer.
    """
    merged = dict(weights)
    table = weights["embedding.weight"].astype(np.float64)
    if "frozen.weight" in weights:
        vectors = merged.pop("frozen.weight").astype(np.float64)
        rows = np.arange(len(vectors))
        rows[len(table) :] = UNKNOWN  # words that have a vector alone
        table = np.concatenate([table[rows], vectors], axis=1)
    names = [name for name in weights if name.startswith("rnn.weight_ih_l0")]
    matrix = np.concatenate([weights[name] for name in names]).astype(np.float64)
    values, directions = np.linalg.eigh(matrix.T @ matrix)
    scale = np.sqrt(np.maximum(values, values.max() * 1e-9))
    heard = table @ directions * scale
    frequency = 1 / (np.arange(len(table)) + _FREQUENT)
    _, axes = np.linalg.eigh((heard * frequency[:, None]).T @ heard)
    axes = axes[:, ::-1][:, :rank]
    merged["embedding.weight"] = (heard @ axes).astype(np.float32)
    back = directions / scale @ axes
    for name in names:
        merged[name] = (weights[name].astype(np.float64) @ back).astype(np.float32)
    return merged


class WordTables:
    """What the network reads of words in fewer numbers, and which words it would miss most.

    Args:
        weights: the classifier's tensors by name; words in the order of frequency.
        num_words: words of its vocabulary.
        counts: int64 (words,), how often training rows have each; None: not known.
    """

    def __init__(
        self,
        weights: Mapping[str, FloatArray],
        num_words: int,
        counts: npt.NDArray[np.int64] | None,
    ) -> None:
        self._weights, self._counts = weights, counts
        self._num_words = num_words
        self._known: dict[
            tuple[int, int | None], tuple[dict[str, FloatArray], CodedRows | None]
        ] = {}

    @functools.cached_property
    def frequency(self) -> npt.NDArray[np.float64]:
        """How often words occur, up to a factor, float64 (words,)."""
        if self._counts is None:
            return 1 / (np.arange(self._num_words) + _FREQUENT)
        return self._counts + 0.25  # words that have a vector alone occur elsewhere

    @functools.cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """Ids of words, those that change most when they are read as unknown words first.

        That is the squared distance of what the first layer hears of both, times frequency.
        """
        dims = self._weights["rnn.weight_ih_l0"].shape[1]
        table = merge_tables(self._weights, dims)["embedding.weight"]
        change = self.frequency * np.square(table - table[UNKNOWN]).sum(axis=1)
        change[: len(SPECIALS)] = np.inf
        return np.argsort(-change, kind="stable")

    def merged(
        self, rank: int, pieces: int | None
    ) -> tuple[dict[str, FloatArray], CodedRows | None]:
        """The classifier's tensors with one table of fewer numbers a word; see `merge_tables`.

        Args:
            rank: numbers of a word.
            pieces: bytes of a word, which divide `rank`; None: numbers stay as they are.

        Returns:
            The tensors, and the rows of that table as pieces.
        """
        if (rank, pieces) not in self._known:
            weights, coded = merge_tables(self._weights, rank), None
            if pieces is not None:
                # Pieces of like weight: each gets strong and weak directions.
                order = np.arange(rank).reshape(-1, pieces).T.ravel()
                for name in weights:
                    if name == "embedding.weight" or name.startswith("rnn.weight_ih_l0"):
                        weights[name] = np.ascontiguousarray(weights[name][:, order])
                coded = encode_rows(weights["embedding.weight"], pieces, np.sqrt(self.frequency))
            self._known[rank, pieces] = weights, coded
        weights, coded = self._known[rank, pieces]
        return dict(weights), coded
