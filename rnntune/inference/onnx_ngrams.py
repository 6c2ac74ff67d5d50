"""The n-gram branch as a part of an ONNX graph; see `rnntune.model.ngrams` for what it computes.

ONNX has no sparse features, so the branch's are counted by sorting: equal keys stand side by
side, and a count is the distance between two places where the key changes.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from rnntune.config.schema import ModelConfig
from rnntune.data.vocabulary import UNKNOWN
from rnntune.inference.ngram_choice import KeptFeatures
from rnntune.inference.onnx_builder import FloatArray, GraphBuilder, Tokens
from rnntune.model.ngrams import FACTOR, LETTER_ORDERS, PRIME

__all__ = ["Letters", "ngram_logits"]
Letters = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]


def ngram_logits(
    graph: GraphBuilder,
    tokens: Tokens,
    weights: Mapping[str, FloatArray],
    config: ModelConfig,
    letters: Letters | None,
    kept: KeptFeatures | None = None,
) -> str:
    """Logits of the n-gram branch, float32 (batch, classes).

    Args:
        graph: what the nodes are added to.
        tokens: the inputs.
        weights: the classifier's tensors by name.
        config: its architecture.
        letters: what `framed_letters` gives; needed where `config.letter_buckets` is not 0.
        kept: features that have rows of their own; None: all.
    """
    num_features, num_classes = weights["ngrams.table.weight"].shape
    features = _Features(graph, num_features)
    hashed = config.letter_buckets + (config.ngram_buckets if config.ngrams > 1 else 0)
    vocab_size = num_features - hashed
    words, keys = features.of_words(tokens, vocab_size, config)
    found, counts = features.distinct(keys)
    num_blocks = 2 if config.letter_buckets else 1
    first_letter = num_features - config.letter_buckets
    if config.letter_buckets:
        assert letters is not None
        of_letters = features.of_letters(words, letters, first_letter, config.letter_buckets)
        found, counts = (
            graph.add("Concat", one, other, axis=0)
            for one, other in zip((found, counts), of_letters, strict=True)
        )
    base = graph.number(num_features)
    text, number = graph.add("Div", found, base), graph.add("Mod", found, base)
    tf = graph.add("Log", graph.add("Cast", counts, to=TensorProto.FLOAT))
    tf = graph.add("Add", tf, graph.constant(np.float32(1)))
    table, idf, row = weights["ngrams.table.weight"], weights["ngrams.idf"], number
    if kept is not None:
        table, idf = kept.table, kept.idf
        row = features.kept_rows(number, kept, [vocab_size, first_letter])
    idf_name = graph.constant(idf if graph.precision.tables == 32 else idf.astype(np.float16))
    idf_of = graph.add("Cast", graph.add("Gather", idf_name, row), to=TensorProto.FLOAT)
    weight = graph.add("Mul", tf, idf_of)
    batch = graph.add("Shape", tokens.lengths)  # (1,)
    block = graph.add("Mul", text, graph.number(num_blocks))
    if num_blocks == 2:
        is_letters = graph.add("GreaterOrEqual", number, graph.number(first_letter))
        block = graph.add("Add", block, graph.add("Cast", is_letters, to=TensorProto.INT64))
    zeros = features.zeros(graph.add("Mul", batch, graph.numbers(num_blocks)))
    squares = graph.add(
        "ScatterElements",
        zeros,
        block,
        graph.add("Mul", weight, weight),
        axis=0,
        reduction="add",
    )
    norms = graph.add("Sqrt", graph.add("Max", squares, graph.constant(np.float32(1e-9))))
    scaled = graph.add("Div", weight, graph.add("Gather", norms, block))
    column = graph.numbers(1)
    rows = graph.take_rows("ngrams.table.weight", table, row)
    rows = graph.add("Mul", rows, graph.add("Unsqueeze", scaled, column))  # (features, classes)
    totals = features.zeros(graph.add("Concat", batch, graph.numbers(num_classes), axis=0))
    where = graph.add("Unsqueeze", text, column)
    logits = graph.add("ScatterND", totals, where, rows, reduction="add")
    return graph.add("Add", logits, graph.constant(weights["ngrams.bias"], "ngrams.bias"))


class _Features:
    """Keys of features, `text * num_features + number`, int64 (keys,).

    Each list of keys begins with key 0, a feature that weighs nothing, so that none is empty.
    """

    def __init__(self, graph: GraphBuilder, num_features: int) -> None:
        self._graph, self._num_features = graph, num_features

    def zeros(self, shape: str) -> str:
        """float32 zeros of a shape."""
        return self._graph.add("Expand", self._graph.constant(np.zeros(1, np.float32)), shape)

    def of_words(self, tokens: Tokens, vocab_size: int, config: ModelConfig) -> tuple[str, str]:
        """Keys of the words, and keys of words and their n-grams."""
        graph = self._graph
        num_texts = graph.add("Gather", graph.add("Shape", tokens.lengths), graph.number(0))
        texts = graph.add("Range", graph.number(0), num_texts, graph.number(1))
        first = graph.add("Mul", texts, graph.number(self._num_features))  # (batch,)
        known = graph.add("Greater", tokens.trained, graph.number(UNKNOWN))
        known = graph.add("And", known, tokens.mask)
        words = self._kept(graph.add("Add", tokens.trained, first), known)
        words = graph.add("Concat", graph.numbers(0), words, axis=0)
        keys, value = [words], tokens.trained
        for order in range(2, config.ngrams + 1):
            later, end = graph.numbers(order - 1), graph.numbers(np.iinfo(np.int64).max)
            before = graph.add("Slice", value, graph.numbers(0), graph.numbers(-1))
            following = graph.add("Slice", tokens.trained, later, end)
            value = graph.add("Mul", before, graph.number(FACTOR))
            value = graph.add("Mod", graph.add("Add", value, following), graph.number(PRIME))
            bucket = graph.add("Mod", value, graph.number(config.ngram_buckets))
            number = graph.add("Add", bucket, graph.number(vocab_size))
            inside = graph.add("Slice", tokens.mask, later, end)
            keys.append(self._kept(graph.add("Add", number, first), inside))
        return words, graph.add("Concat", *keys, axis=0) if len(keys) > 1 else words

    def of_letters(
        self, words: str, letters: Letters, first_letter: int, buckets: int
    ) -> tuple[str, str]:
        """Distinct keys and counts of the n-grams of letters of the keys of words."""
        graph = self._graph
        found, times = self.distinct(words)
        base = graph.number(self._num_features)
        text, word = graph.add("Div", found, base), graph.add("Mod", found, base)
        points, lengths = letters
        sizes = self._whole(graph.constant(lengths.astype(np.uint8), "letters.lengths"))
        starts = graph.add("CumSum", sizes, graph.number(0), exclusive=1)
        orders = graph.numbers(*(order - 1 for order in LETTER_ORDERS))
        flat = graph.numbers(-1)
        # Each word of a text three times, once for each length of its n-grams.
        num = graph.add("Sub", self._columns(graph.add("Gather", sizes, word)), orders)
        num = graph.add("Reshape", graph.add("Max", num, graph.number(0)), flat)
        blocks = graph.numbers(*(n * len(points) for n in range(len(LETTER_ORDERS))))
        begin = graph.add("Add", self._columns(graph.add("Gather", starts, word)), blocks)
        begin = graph.add("Reshape", begin, flat)
        shape = graph.add("Concat", graph.add("Shape", word), graph.numbers(3), axis=0)
        text, times = (
            graph.add("Reshape", graph.add("Expand", self._columns(values), shape), flat)
            for values in (text, times)
        )
        ends = graph.add("CumSum", num, graph.number(0))
        owner = self._owners(graph.add("Sub", ends, num), ends)
        place = graph.add("Range", graph.number(0), self._last(ends), graph.number(1))
        shift = graph.add("Sub", graph.add("Add", begin, num), ends)  # to the word's n-grams
        place = graph.add("Add", place, graph.add("Gather", shift, owner))
        hashed = graph.add("Gather", self._letter_hashes(points, buckets), place)
        number = graph.add("Add", hashed, graph.number(first_letter))
        first = graph.add("Mul", graph.add("Gather", text, owner), base)
        keys = graph.add("Concat", graph.numbers(0), graph.add("Add", first, number), axis=0)
        times = graph.add("Concat", graph.numbers(1), graph.add("Gather", times, owner), axis=0)
        return self.distinct(keys, times)

    def _letter_hashes(self, points: npt.NDArray[np.uint32], buckets: int) -> str:
        """Buckets of the n-grams that begin at each letter, int64 (lengths of n-grams * letters,).

        A runtime works them out once, when it loads the model.
        """
        graph = self._graph
        narrow = points.astype(np.uint8) if points.max(initial=0) < 256 else points.astype(np.int32)
        behind = np.zeros(LETTER_ORDERS[-1], narrow.dtype)  # for those that begin at the last ones
        letters = self._whole(graph.constant(np.concatenate([narrow, behind]), "letters"))
        prime, factor = graph.number(PRIME), graph.number(FACTOR)
        parts = []
        for order in LETTER_ORDERS:
            value = graph.number(order)
            for offset in range(order):
                ends = graph.numbers(offset), graph.numbers(offset + len(points))
                following = graph.add("Slice", letters, *ends)
                value = graph.add("Add", graph.add("Mul", value, factor), following)
                value = graph.add("Mod", value, prime)
            parts.append(graph.add("Mod", value, graph.number(buckets)))
        return graph.add("Concat", *parts, axis=0)

    def kept_rows(self, number: str, kept: KeptFeatures, blocks: list[int]) -> str:
        """Rows of the kept table that features have, int64 (features,).

        Args:
            number: of features.
            kept: what is kept of the table.
            blocks: the first features of the blocks behind that of words.
        """
        graph = self._graph
        own = graph.bits(kept.kept, "ngrams.kept")
        row = graph.add("CumSum", own, graph.number(0))
        row = graph.add("Add", row, graph.number(kept.num_shared - 1))
        row = graph.add("Mul", row, own)  # of a feature without a row of its own 0
        seen = graph.bits(kept.seen, "ngrams.seen")
        block = graph.number(1)
        for first in blocks:
            is_behind = graph.add("GreaterOrEqual", number, graph.number(first))
            block = graph.add("Add", block, self._whole(is_behind))
        shared = graph.add("Mul", graph.add("Gather", seen, number), block)
        return graph.add("Max", graph.add("Gather", row, number), shared)

    def _columns(self, values: str) -> str:
        return self._graph.add("Unsqueeze", values, self._graph.numbers(1))

    def distinct(self, keys: str, counts: str | None = None) -> tuple[str, str]:
        """Distinct keys in their order and how often each occurs.

        Args:
            keys: int64 (keys,).
            counts: how often each counts; None: once.
        """
        graph = self._graph
        size = graph.add("Shape", keys)
        ranked, order = graph.add_pair("TopK", [keys, size], axis=0, largest=0, sorted=1)
        before = graph.add("Slice", ranked, graph.numbers(0), graph.numbers(-1))
        before = graph.add("Concat", graph.numbers(-1), before, axis=0)
        is_first = graph.add("Not", graph.add("Equal", ranked, before))
        start = graph.add("Reshape", graph.add("NonZero", is_first), graph.numbers(-1))
        found = graph.add("Gather", ranked, start)
        if counts is None:
            return found, self._differences(start, size)
        total = graph.add("CumSum", graph.add("Gather", counts, order), graph.number(0))
        total = graph.add("Concat", graph.numbers(0), total, axis=0)
        ends = graph.add("Gather", total, size)
        return found, self._differences(graph.add("Gather", total, start), ends)

    def _differences(self, starts: str, end: str) -> str:
        graph = self._graph
        following = graph.add("Slice", starts, graph.numbers(1), graph.numbers(2**62))
        return graph.add("Sub", graph.add("Concat", following, end, axis=0), starts)

    def _owners(self, starts: str, ends: str) -> str:
        """Number i as often as its part from starts[i] to ends[i] is long, one after the other."""
        graph = self._graph
        size = graph.add("Reshape", self._last(ends), graph.numbers(1))
        longer = graph.add("Add", size, graph.numbers(1))  # parts at the end may be empty
        marks = graph.add("Expand", graph.numbers(0), longer)
        ones = graph.add("Expand", graph.numbers(1), graph.add("Shape", starts))
        marks = graph.add("ScatterElements", marks, starts, ones, axis=0, reduction="add")
        counted = graph.add("CumSum", marks, graph.number(0))
        owners = graph.add("Slice", counted, graph.numbers(0), graph.numbers(-1))
        return graph.add("Sub", owners, graph.number(1))

    def _last(self, values: str) -> str:
        return self._graph.add("Gather", values, self._graph.number(-1))

    def _whole(self, values: str) -> str:
        return self._graph.add("Cast", values, to=TensorProto.INT64)

    def _kept(self, keys: str, mask: str) -> str:
        """The keys where the mask is true, (keys,)."""
        graph = self._graph
        flat = [graph.add("Reshape", values, graph.numbers(-1)) for values in (keys, mask)]
        return graph.add("Compress", *flat)
