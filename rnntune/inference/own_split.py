"""Scores of a run's model on the run's own test split, as its preparation left it in the cache.

The rows are token ids there, so what is shown of a misclassified row is what the model read.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rnntune import storage
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.cache import in_use
from rnntune.data.decode import decode_rows
from rnntune.data.prepared import PreparedDataset, split_refs
from rnntune.data.preprocess import prepare
from rnntune.data.task import decide, label_column, rows_equal
from rnntune.errors import ConfigError, RunError
from rnntune.inference.model_pool import single_threaded
from rnntune.inference.scored_rows import ScoredRows

if TYPE_CHECKING:
    from rnntune.inference.loading import AnyClassifier

__all__ = ["own_data", "score_own_split"]


def own_data(uri: str) -> Config:
    """The configuration whose data a run's model was trained on: of a search, its best trial's.

    Raises:
        ConfigError: there is a model alone, which does not say where its data was.
    """
    inside = storage.join(uri, "model", "config.yaml")
    files = [storage.join(uri, name) for name in ("best.yaml", "config.yaml")]
    present = [file for file in files if storage.exists(file)]
    if not storage.exists(inside) or not present:
        raise ConfigError(f"{uri}: a model without its run; give the rows to score with --data")
    return Config.load(present[0])


def score_own_split(
    uri: str,
    classifier: "AnyClassifier",
    tally: ScoredRows,
    *,
    verbose: bool,
    terminal: Terminal,
) -> str:
    """Score a run's model on the run's test split.

    Args:
        uri: the run folder.
        classifier: its model.
        tally: counts the rows.
        verbose: let Ray log.
        terminal: where to say what is scored.

    Returns:
        The source of the rows.

    Raises:
        RunError: the data is no longer what the run was trained on.
    """
    data = own_data(uri).data
    prepared = prepare(data, terminal.line, verbose=verbose)
    if prepared.classes != classifier.classes or prepared.vocab_text() != storage.read_text(
        storage.join(uri, "model", "vocab.txt")
    ):
        raise RunError(
            f"{data.source}: no longer the data of the run in {uri}; give the rows with --data"
        )
    rows = prepared.splits["test"].num_rows
    terminal.line(f"scoring the run's own test split: {rows:,} rows of {data.source}")
    with in_use([prepared.uri]), single_threaded():
        for block in _scored(prepared, classifier):
            tally.add(block)
            terminal.update(f"scored {tally.rows:,} rows")
    terminal.done()
    return data.source


def _scored(prepared: PreparedDataset, classifier: "AnyClassifier") -> Iterator[pa.Table]:
    """The test rows with their probabilities, a table a part; texts of mistakes alone."""
    words = prepared.vocab_text().split("\n")[:-1]
    start = 0
    for part in split_refs(prepared, "test"):
        encoded = part.read()
        num_rows = len(encoded)
        probabilities = classifier.predict_encoded(encoded)
        given = decide(probabilities, classifier.thresholds)
        wrong = np.flatnonzero(~rows_equal(given, encoded.labels))
        texts: list[str | None] = [None] * num_rows
        for row, text in zip(wrong, decode_rows(encoded, wrong.tolist(), words), strict=True):
            texts[row] = text
        lists = np.arange(num_rows + 1, dtype=np.int32) * probabilities.shape[1]
        yield pa.table(
            {
                "file": ["test split"] * num_rows,
                "row": np.arange(start + 1, start + num_rows + 1),
                "text": pa.array(texts, pa.string()),
                "problem": pa.nulls(num_rows, pa.string()),
                "label": label_column(encoded.labels),
                "probabilities": pa.ListArray.from_arrays(lists, probabilities.ravel()),
            }
        )
        start += num_rows
