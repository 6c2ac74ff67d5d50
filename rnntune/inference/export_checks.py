"""Whether an export gives what its model gives, and what fewer bits or words cost."""

import dataclasses
import functools
import unicodedata
from typing import Any

import numpy as np
import numpy.typing as npt

from rnntune.data.batching import EncodedRows
from rnntune.data.decode import decode_rows
from rnntune.data.task import decide, rows_equal
from rnntune.data.vocabulary import UNKNOWN
from rnntune.errors import RunError
from rnntune.inference.export_source import ExportSource, Form
from rnntune.inference.exported import ExportedClassifier

__all__ = ["Cost", "ExportChecks"]
_LARGEST_DIFFERENCE = 1e-5
_SHAPES = ((1, 1), (1, 256), (2, 3), (7, 30), (16, 100), (33, 17), (64, 256))
_PARITY_ROWS, _TEXTS = 2_048, 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """How an export differs from its model on rows.

    Args:
        rows: rows that were compared.
        are_validation: whether they are validation rows; else they are made up.
        equal_labels: share of the rows that are given the same class.
        largest_difference: of a probability.
        accuracy: of the export; None: the rows have no labels.
        model_accuracy: of the model.
        divergence: of its probabilities from the model's, in nats (Kullback and Leibler), a mean.
    """

    rows: int
    are_validation: bool
    equal_labels: float
    largest_difference: float
    accuracy: float | None
    model_accuracy: float | None
    divergence: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)


class ExportChecks:
    """Compares exports with their model.

    Args:
        source: the model and its validation rows.
    """

    def __init__(self, source: ExportSource) -> None:
        self._source = source
        self._rows = source.rows if source.rows is not None else self._made_up()

    @functools.cached_property
    def _expected(self) -> npt.NDArray[np.float32]:
        return self._source.classifier.predict_encoded(self._rows)

    def _made_up(self) -> EncodedRows:
        """Rows of words drawn at random, of 1 to 256 tokens or as many as the model reads."""
        rng = np.random.default_rng(0)
        longest = min(256, self._source.classifier.description.max_length)
        lengths = rng.integers(1, longest + 1, 256).astype(np.int32)
        ids = rng.integers(UNKNOWN, len(self._source.words), int(lengths.sum())).astype(np.int32)
        return EncodedRows(ids=ids, lengths=lengths, labels=np.zeros(256, dtype=np.int64))

    def check_parity(self, exported: ExportedClassifier) -> Cost:
        """Compare an export of all words and bits with its model.

        Batches of 1 to 64 rows of 1 to 256 tokens, not sorted by length, and validation rows in
        their order.

        Raises:
            RunError: it does not give the same.
        """
        rng = np.random.default_rng(1)
        worst, flipped = 0.0, 0
        for batch, time in _SHAPES:
            ids = rng.integers(UNKNOWN, len(self._source.words), (batch, time))
            lengths = rng.integers(1, time + 1, batch)
            lengths[rng.integers(batch)] = time
            rows = EncodedRows(
                ids=np.concatenate([row[:n] for row, n in zip(ids, lengths, strict=True)]).astype(
                    np.int32
                ),
                lengths=lengths.astype(np.int32),
                labels=np.zeros(batch, dtype=np.int64),
            )
            expected = self._source.classifier.predict_encoded(rows)
            found = exported.run(ids, lengths)
            worst = max(worst, float(np.abs(found - expected).max()))
            flipped += self._num_flipped(found, expected)
        found = self._in_order(exported, min(len(self._rows), _PARITY_ROWS))
        expected = self._expected[: len(found)]
        worst = max(worst, float(np.abs(found - expected).max()))
        flipped += self._num_flipped(found, expected)
        if not worst < _LARGEST_DIFFERENCE or flipped:
            raise RunError(
                f"not exported: the graph differs from the model by {worst:.1e} in a probability "
                f"(at most {_LARGEST_DIFFERENCE:.0e}) and in {flipped} labels"
            )
        return dataclasses.replace(self.measure(exported, Form()), largest_difference=worst)

    def _num_flipped(
        self, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]
    ) -> int:
        """Rows that are given another class, or another set of classes."""
        thresholds = self._source.classifier.thresholds
        if thresholds is not None:  # on either side of a threshold a difference says nothing
            near = np.abs(expected - np.asarray(thresholds, np.float32)) < _LARGEST_DIFFERENCE
            found = np.where(near, expected, found)
        return int((~rows_equal(decide(found, thresholds), decide(expected, thresholds))).sum())

    def _in_order(self, exported: ExportedClassifier, num_rows: int) -> npt.NDArray[np.float32]:
        rows, found = self._rows, []
        for start in range(0, num_rows, 64):
            lengths = rows.lengths[start : min(start + 64, num_rows)].astype(np.int64)
            ids = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
            for row, length in enumerate(lengths):
                begin = rows.starts[start + row]
                ids[row, :length] = rows.ids[begin : begin + length]
            found.append(exported.run(ids, lengths))
        return np.concatenate(found)

    def check_tokens(self, exported: ExportedClassifier) -> int:
        """Compare the tokenizer of an export with the model's on the texts of validation rows.

        Returns:
            Texts that were compared.

        Raises:
            RunError: a text gets other tokens.
        """
        rows = list(range(min(len(self._rows), _TEXTS)))
        decoded = decode_rows(self._rows, rows, list(self._source.words))
        # Characters newer than this Python's Unicode have their lower case elsewhere alone.
        texts = [t for t in decoded if all(unicodedata.category(c) != "Cn" for c in t)]
        expected = self._source.classifier.encode(texts)
        for row, (text, ids) in enumerate(zip(texts, exported.encode(texts), strict=True)):
            begin, length = expected.starts[row], expected.lengths[row]
            if list(expected.ids[begin : begin + length]) != (ids or [UNKNOWN]):
                raise RunError(f"not exported: tokenizer.json gives other tokens for {text!r:.80}")
        return len(texts)

    def measure(self, exported: ExportedClassifier, form: Form) -> Cost:
        """What an export of a form costs on the validation rows, or on made-up ones."""
        found = exported.predict_encoded(self._source.encode_again(self._rows, form))
        thresholds = self._source.classifier.thresholds
        labels, expected = decide(found, thresholds), decide(self._expected, thresholds)
        are_validation = self._source.rows is not None
        return Cost(
            rows=len(labels),
            are_validation=are_validation,
            equal_labels=_share(labels, expected),
            largest_difference=float(np.abs(found - self._expected).max()),
            accuracy=_share(labels, self._rows.labels) if are_validation else None,
            divergence=_divergence(self._expected, found, thresholds is not None),
            model_accuracy=_share(expected, self._rows.labels) if are_validation else None,
        )


def _share(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Part of the rows that have the same class, or the same set of classes."""
    return float(rows_equal(one, other).mean())


def _divergence(
    expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32], of_sets: bool
) -> float:
    """Mean Kullback-Leibler divergence of a row; of sets of classes the sum over the classes."""
    total = _relative_entropy(expected, found)
    if of_sets:
        total = total + _relative_entropy(1 - expected, 1 - found)
    return float(total.mean())


def _relative_entropy(
    expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    logs = np.log(np.maximum(expected, 1e-9)) - np.log(np.maximum(found, 1e-9))
    by_row: npt.NDArray[np.float32] = (expected * logs).sum(axis=1)
    return by_row
