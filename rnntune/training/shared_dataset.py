"""Prepared data and word vectors where workers can reach them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnntune.cluster.resources import cluster_resources
from rnntune.config.auto import Choice
from rnntune.config.load import Config
from rnntune.config.schema import DataConfig
from rnntune.console import Terminal
from rnntune.data.prepared import PreparedDataset, ShardRef
from rnntune.data.sharing import fits_object_store, hold_split, share_split
from rnntune.data.stratification import SPLITS
from rnntune.data.task import Task
from rnntune.location import Location
from rnntune.training.class_weights import class_weights, positive_odds, positive_weights

if TYPE_CHECKING:
    from rnntune.training.calibration import Calibration

__all__ = ["SharedDataset", "fetch", "hold_dataset", "report_choices", "report_skipped_rows"]
_LOCAL_CACHE = "~/.cache/rnntune"
__all__ += ["rows_fit_store", "share_dataset"]
_SHOWN = {
    "data.tokenizer",
    "batching.batch_rows",
    "model.word_vectors",
    "model.ngrams",
    "train.epochs",
    "train.learning_rate",
}
_HELD_BYTES = 1 << 30
"""Encoded rows that the command's own process keeps in memory; more stream from the cache."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedDataset:
    """Prepared data where workers can reach it.

    Args:
        parts: of each split.
        classes: names of the classes.
        num_words: size of the vocabulary.
        num_trained_words: words of it that training rows have, the first ones.
        fingerprint: of the prepared data.
        vectors: reference of float32 (words, dim) word vectors, or None.
        vector_dim: their dim; 0: none.
        letters: reference of what `letter_ngrams` gives for the vocabulary, or None.
        class_weights: of the loss, in the order of the classes; None: all rows count alike.
        task: whether a row has one label, or a set of them.
        label_odds: of sets of labels, rows with each class over rows without it, weighted.
        calibration: for a model without validation rows, of one like it; None: there is none.
        teacher: names the model whose soft labels the training rows have; None: they have none.
    """

    parts: dict[str, list[ShardRef]]
    classes: tuple[str, ...]
    num_words: int
    num_trained_words: int
    fingerprint: str
    vectors: Any = None
    vector_dim: int = 0
    letters: Any = None
    class_weights: tuple[float, ...] | None = None
    task: Task = Task.SINGLE_LABEL
    label_odds: tuple[float, ...] | None = None
    calibration: "Calibration | None" = None
    teacher: str | None = None

    @property
    def in_store(self) -> bool:
        """Whether rows are in memory or the object store; else they stream from the cache."""
        return any(part.ref is not None for parts in self.parts.values() for part in parts)


def report_skipped_rows(prepared: PreparedDataset, terminal: Terminal) -> None:
    """Say which rows were left out."""
    if prepared.num_skipped:
        first = f"; the first: {prepared.problems[0]}" if prepared.problems else ""
        terminal.line(f"left out {prepared.num_skipped:,} bad rows{first}")


def report_choices(choices: Sequence[Choice], terminal: Terminal) -> None:
    """Say in one line what was chosen for the settings that matter most; the run records all."""
    shown = [
        f"{choice.name.rpartition('.')[2]} {_shown(choice.value)}"
        for choice in choices
        if choice.name in _SHOWN
    ]
    if shown:
        terminal.line("auto: " + ", ".join(shown))


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def rows_fit_store(datasets: Sequence[PreparedDataset], terminal: Terminal) -> bool:
    """Whether the object store takes the rows of all datasets that a command shares.

    Args:
        datasets: all of them, as the variants of a search.
        terminal: where to say so if it does not.
    """
    there = cluster_resources().object_store_bytes
    if fits_object_store(datasets, there):
        return True
    num_bytes = sum(each.encoded_bytes for each in datasets)
    several = f", {len(datasets)} variants" if len(datasets) > 1 else ""
    terminal.line(
        f"encoded data ({num_bytes / 1e6:,.0f} MB{several}) is more than a third of the "
        f"object store of a node ({there / 1e6:,.0f} MB): streaming from the cache"
    )
    return False


def share_dataset(
    config: Config,
    prepared: PreparedDataset,
    terminal: Terminal,
    splits: Sequence[str] = SPLITS,
    *,
    in_store: bool | None = None,
) -> SharedDataset:
    """Put prepared data and word vectors where workers can reach them.

    Args:
        config: names the word vectors.
        prepared: the data.
        terminal: where to say what was done.
        splits: those that the workers may see.
        in_store: whether rows go to the object store; None: if these rows alone fit it.

    Raises:
        DataError: rows or word vectors cannot be read.
    """
    import ray

    if in_store is None:
        in_store = rows_fit_store([prepared], terminal)
    parts = {name: share_split(prepared, name, in_store=in_store) for name in splits}
    return _with_features(config, prepared, terminal, parts, ray.put)


def hold_dataset(
    config: Config,
    prepared: PreparedDataset,
    terminal: Terminal,
    splits: Sequence[str] = SPLITS,
) -> SharedDataset:
    """Prepared data and word vectors for this process alone; see `share_dataset`."""
    in_memory = prepared.encoded_bytes <= _HELD_BYTES
    parts = {name: hold_split(prepared, name, in_memory=in_memory) for name in splits}
    return _with_features(config, prepared, terminal, parts, lambda value: value)


def _with_features(
    config: Config,
    prepared: PreparedDataset,
    terminal: Terminal,
    parts: Mapping[str, list[ShardRef]],
    put: Callable[[Any], Any],
) -> SharedDataset:
    vectors, vector_dim = None, 0
    if config.model.word_vectors:
        matrix, found = _word_vectors(config.model.word_vectors, config.data, prepared)
        terminal.line(f"word vectors for {found:.1%} of {prepared.num_words:,} words")
        vectors, vector_dim = put(matrix), matrix.shape[1]
    letters = None
    if config.model.ngrams and config.model.letter_buckets:
        from rnntune.model.ngrams import letter_ngrams

        letters = put(
            letter_ngrams(prepared.vocab_text().split("\n")[: prepared.num_trained_words])
        )
    weights, odds = _weights_and_odds(config, prepared)
    return SharedDataset(
        parts=dict(parts),
        classes=prepared.classes,
        num_words=prepared.num_words,
        num_trained_words=prepared.num_trained_words,
        class_weights=weights,
        task=prepared.task,
        label_odds=odds,
        fingerprint=prepared.fingerprint,
        vectors=vectors,
        vector_dim=vector_dim,
        letters=letters,
    )


def _weights_and_odds(
    config: Config, prepared: PreparedDataset
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    train, setting = prepared.splits["train"], config.train.class_weights
    if not prepared.task.is_multi_label:
        return class_weights(setting, prepared.classes, train.class_rows), None
    weights = positive_weights(setting, prepared.classes, train.class_rows, train.num_rows)
    odds = positive_odds(train.class_rows, train.num_rows)
    pairs = zip(odds, weights or (1.0,) * len(odds), strict=True)
    return weights, tuple(each * weight for each, weight in pairs)


def fetch(value: Any) -> Any:
    """What a `SharedDataset` holds beside its rows: itself, or from Ray's object store."""
    if value is None or isinstance(value, np.ndarray | tuple):
        return value
    import ray

    return ray.get(value)


def _word_vectors(
    name: str, data: DataConfig, prepared: PreparedDataset
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], float]:
    from rnntune.data.word_vectors import load_word_vectors

    words = prepared.vocab_text().split("\n")[:-1]
    # A folder of the user's own: others may write into the machine's temporary folder.
    cache = Location.parse(data.cache_dir)
    local = Location.parse(_LOCAL_CACHE) if cache.is_remote else cache
    return load_word_vectors(name, words, local.absolute().path)
