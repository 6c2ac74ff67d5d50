"""What a run keeps for its report: predictions on test rows, and figures of its data.

`test_predictions.parquet` has a line for each of the first test rows: `row`, `label`, `predicted`
(numbers of classes, or lists of them where rows have sets of labels), `probability` and
`calibrated` (of what is predicted, without and with the model's temperature), and for the surest
mistakes `text`, the tokens that the model read.
`data.json` has the fingerprint of the data, its classes, rows and lengths by split, and the words
that tell its classes apart.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.data.batching import EncodedRows
from rnntune.data.decode import decode_rows
from rnntune.data.prepared import PreparedDataset, split_refs
from rnntune.data.task import label_column, rows_equal
from rnntune.training.evaluation import SplitPredictions
from rnntune.training.run_folder import RunFolder

__all__ = ["DATA", "MOST_PREDICTIONS", "PREDICTIONS", "keep_report_data", "telling_words"]
PREDICTIONS = "test_predictions.parquet"
DATA = "data.json"
MOST_PREDICTIONS = 100_000
_MOST_MISTAKES = 100
_MOST_COUNTED_ROWS = 100_000
_MOST_COUNTED_WORDS = 20_000
_MOST_COUNTS = 20_000_000
_FIRST_WORD = 2  # after padding and the unknown word


def keep_report_data(
    folder: RunFolder, prepared: PreparedDataset, predictions: SplitPredictions | None
) -> None:
    """Write what a report needs and the model folder does not have.

    Args:
        folder: of the run.
        prepared: its data.
        predictions: of its model on the first test rows.

    Raises:
        RnntuneError: the cache cannot be read, or the folder not be written.
    """
    words = prepared.vocab_text().split("\n")[:-1]
    if predictions is not None:
        storage.write_bytes(folder.inside(PREDICTIONS), _table_bytes(prepared, words, predictions))
    content = {
        "fingerprint": prepared.fingerprint,
        "classes": list(prepared.classes),
        "num_words": prepared.num_words,
        "splits": {
            name: {
                "rows": split.num_rows,
                "tokens": split.num_tokens,
                "known": split.num_known,
                "cut": split.num_cut,
                "class_rows": list(split.class_rows),
                "length_rows": list(split.length_rows),
            }
            for name, split in prepared.splits.items()
        },
        "telling_words": _telling_words(prepared, words),
    }
    storage.write_text(folder.inside(DATA), json.dumps(content) + "\n")


def _table_bytes(
    prepared: PreparedDataset, words: Sequence[str], predictions: SplitPredictions
) -> bytes:
    texts: list[str | None] = [None] * len(predictions.rows)
    wrong = np.flatnonzero(~rows_equal(predictions.predicted, predictions.labels))
    surest = wrong[np.argsort(-predictions.calibrated[wrong], kind="stable")][:_MOST_MISTAKES]
    at = {int(predictions.rows[number]): int(number) for number in surest}
    start = 0
    for part in split_refs(prepared, "test"):
        inside = [row - start for row in at if start <= row < start + part.num_rows]
        if inside:
            for row, text in zip(inside, decode_rows(part.read(), inside, words), strict=True):
                texts[at[row + start]] = text
        start += part.num_rows
    columns: dict[str, Any] = {
        "row" if name == "rows" else "label" if name == "labels" else name: label_column(values)
        for name, values in dataclasses.asdict(predictions).items()
    }
    table = pa.table({**columns, "text": pa.array(texts, pa.string())})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _telling_words(prepared: PreparedDataset, words: Sequence[str]) -> list[list[str]]:
    """The words of `telling_words` over the first training rows; empty where there are too many."""
    num_words, num_classes = min(len(words), _MOST_COUNTED_WORDS), len(prepared.classes)
    if num_words * num_classes > _MOST_COUNTS:
        return []
    counts = np.zeros((num_classes, num_words), np.int64)
    rows = 0
    for part in split_refs(prepared, "train"):
        if rows and rows + part.num_rows > _MOST_COUNTED_ROWS:
            break
        rows += part.num_rows
        counts += _counts(part.read(), num_words, num_classes)
    return [[words[number] for number in numbers] for numbers in telling_words(counts)]


def _counts(encoded: EncodedRows, num_words: int, num_classes: int) -> npt.NDArray[np.int64]:
    """How often each word occurs in the rows of each class, int64 (classes, words)."""
    from scipy import sparse  # type: ignore[import-untyped]

    kept = encoded.ids < num_words
    row = np.repeat(np.arange(len(encoded)), encoded.lengths)[kept]
    of_row, label = np.arange(len(encoded)), encoded.labels
    if encoded.labels.ndim == 2:
        of_row, label = np.nonzero(encoded.labels)

    def counted(rows: npt.NDArray[Any], columns: npt.NDArray[Any], num_columns: int) -> Any:
        ones = np.ones(len(rows), dtype=np.int64)
        return sparse.csr_array((ones, (rows, columns)), shape=(len(encoded), num_columns))

    words = counted(row, encoded.ids[kept], num_words)
    found: npt.NDArray[np.int64] = (counted(of_row, label, num_classes).T @ words).toarray()
    return found


def telling_words(counts: npt.NDArray[np.int64], most: int = 8) -> list[list[int]]:
    """For each class the words that its rows have much more often than the other rows.

    Args:
        counts: int64 (classes, words), how often each word occurs; the vocabulary's specials first.
        most: words of a class.

    Returns:
        Word ids by class, the most telling first: those whose log-odds against all other classes
        are more than three standard deviations above zero.

    Source: Monroe et al. 2008, https://doi.org/10.1093/pan/mpn018 (log-odds with an informative
    Dirichlet prior, here the words' frequencies with the weight of 500 words).
    """
    counts = counts[:, _FIRST_WORD:].astype(np.float64)
    total = counts.sum(axis=0)
    prior = 500 * (total + 1e-9) / max(total.sum(), 1)
    found = []
    for here in counts:
        others = total - here
        odds = _log_odds(here + prior) - _log_odds(others + prior)
        scores = odds / np.sqrt(1 / (here + prior) + 1 / (others + prior))
        order = np.argsort(-scores, kind="stable")[:most]
        found.append([int(n) + _FIRST_WORD for n in order if scores[n] > 3])
    return found


def _log_odds(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = np.log(counts) - np.log(counts.sum() - counts + 1e-9)
    return result
