"""Prepared data in the cache: what it holds, and reading it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter

from rnntune import storage
from rnntune.config.auto import Choice
from rnntune.config.schema import Tokenizer
from rnntune.data.batching import EncodedRows
from rnntune.data.encoded_files import read_encoded
from rnntune.data.loader import Shard
from rnntune.data.task import Task
from rnntune.data.windows import INDEX, Window, read_index
from rnntune.errors import DataError

__all__ = [
    "PreparedDataset",
    "ShardRef",
    "Split",
    "prepared_from_manifest",
    "read_encoded",
    "read_manifest",
    "split_refs",
]


Count = Annotated[int, Field(ge=0, le=2**62)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split of prepared data.

    Args:
        files: paths or URIs of its Parquet files, in order.
        file_rows: rows in each file.
        num_rows: rows.
        num_tokens: tokens.
        num_known: tokens that are in the vocabulary.
        num_cut: rows that were longer than `data.max_length`.
        class_rows: rows of each class.
        length_rows: rows of each length, from 0.
    """

    files: tuple[str, ...]
    file_rows: tuple[Count, ...]
    num_rows: Count
    num_tokens: Count
    num_known: Count
    num_cut: Count
    class_rows: tuple[Count, ...]
    length_rows: tuple[Count, ...]

    @property
    def encoded_bytes(self) -> int:
        """Memory that the encoded rows take."""
        return 4 * self.num_tokens + 12 * self.num_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """Prepared data in the cache.

    Args:
        uri: folder or URI of the cache entry.
        fingerprint: of inputs, settings (those that were chosen) and version.
        classes: names of the classes, in the order of label ids.
        splits: by name: train, validation, test.
        num_skipped: bad rows that were left out.
        problems: what was wrong with the first of them.
        num_words: size of the vocabulary.
        num_trained_words: words of it that training rows have, the first ones.
        rows_per_s: rows a second while it was prepared.
        clean: whether texts were cleaned.
        text_columns: columns that made the text, as they were found or set.
        label_column: column of the label, or several of 0 and 1.
        label_delimiter: what separates labels in that column; None: nothing does.
        task: whether a row has one label, or a set of them.
        choices: settings of preparation that were `auto`.
        tokenizer: how they were split into tokens, never `auto`.
        vector_coverage: part of the frequent words that the installed word vectors have.
        mean_letters: mean number of letters of the words of the training rows.
        source: what it was prepared from; empty: an older version did not note it.
        has_windows: whether files have several row groups, which an index tells; see `windows`.
        from_cache: whether this run found it in the cache.
    """

    uri: str
    fingerprint: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    num_skipped: Count
    problems: tuple[str, ...]
    num_words: Count
    num_trained_words: Count
    rows_per_s: float
    clean: bool
    tokenizer: Tokenizer
    text_columns: tuple[str, ...] = ("text",)
    label_column: str | tuple[str, ...] = "label"
    label_delimiter: str | None = None
    task: Task = Task.SINGLE_LABEL
    choices: tuple[Choice, ...] = ()
    vector_coverage: float = 0.0
    mean_letters: float = 5.0
    source: str = ""
    has_windows: bool = False
    from_cache: bool = False

    def vocab_text(self) -> str:
        """The vocabulary, one word a line in the order of ids."""
        return storage.read_text(storage.join(self.uri, "vocab.txt"))

    @property
    def encoded_bytes(self) -> int:
        """Memory that the encoded rows of all splits take."""
        rows = sum(split.num_rows for split in self.splits.values())
        labels = rows * len(self.classes) if self.task.is_multi_label else 0
        return sum(split.encoded_bytes for split in self.splits.values()) + labels


_ADAPTER = TypeAdapter(PreparedDataset)


def read_manifest(uri: str) -> PreparedDataset:
    """Prepared data as the manifest of its cache entry tells it.

    Args:
        uri: of the manifest.

    Raises:
        DataError: it is damaged: not JSON, a value of another kind, or numbers that do not agree.
        StorageError: it cannot be read.
    """
    damaged = f"{uri}: damaged; delete its folder to prepare the data again"
    try:
        content = json.loads(storage.read_bytes(uri))
        prepared = prepared_from_manifest(content, from_cache=True)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise DataError(damaged) from error
    if set(prepared.splits) != {"train", "validation", "test"} or len(prepared.classes) < 2:
        raise DataError(damaged)
    for split in prepared.splits.values():
        agree = {sum(split.file_rows), sum(split.length_rows), split.num_rows}
        is_whole = len(split.files) == len(split.file_rows) and len(agree) == 1
        if not is_whole or len(split.class_rows) != len(prepared.classes):
            raise DataError(damaged)
    return prepared


def prepared_from_manifest(content: Mapping[str, Any], *, from_cache: bool) -> PreparedDataset:
    """Prepared data as the content of a manifest tells it.

    Raises:
        ValueError: a value is of another kind.
    """
    fields = {**content, "from_cache": from_cache}
    prepared: PreparedDataset = _ADAPTER.validate_python(fields)
    return prepared


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardRef:
    """Rows of a split, of a file or of one of its row groups, where every worker can reach them.

    Args:
        num_rows: rows in it.
        uri: of its file in the cache.
        num_words: of the vocabulary, which no id exceeds; None: not known.
        ref: its rows, or a reference to them in Ray's object store; None: read the cache.
        soft_labels: file of what another model says of its rows; None: there is none.
        window: the row group; None: the whole file.
    """

    num_rows: int
    uri: str
    ref: Any = None
    num_words: int | None = None
    soft_labels: str | None = None
    window: Window | None = None

    def load(self) -> EncodedRows:
        """The rows; those of the object store are shared by all processes of a node."""
        rows = self._rows()
        if self.soft_labels is None:
            return rows
        return dataclasses.replace(rows, soft=read_soft_labels(self.soft_labels, self.num_rows))

    def _rows(self) -> EncodedRows:
        if self.ref is None:
            return self.read()
        if isinstance(self.ref, EncodedRows):
            return self.ref
        import ray

        rows: EncodedRows = ray.get(self.ref)
        return rows

    def read(self) -> EncodedRows:
        """The rows, read from the cache."""
        return read_encoded(
            self.uri,
            num_rows=self.num_rows,
            num_words=self.num_words,
            row_group=self.window.row_group if self.window else None,
            footer=self.window.footer if self.window else None,
        )

    def part(self) -> Shard:
        """The part as the batches take it."""
        known = self.window.length_rows if self.window else None
        return Shard(num_rows=self.num_rows, load=self.load, length_rows=known)


def split_refs(prepared: PreparedDataset, split: str) -> list[ShardRef]:
    """The files or windows of a split in the cache.

    Args:
        prepared: where the data is.
        split: its name.

    Raises:
        DataError: its index is damaged.
    """
    found, num_words = prepared.splits[split], prepared.num_words
    if not prepared.has_windows:
        return [
            ShardRef(num_rows=num_rows, uri=uri, num_words=num_words)
            for uri, num_rows in zip(found.files, found.file_rows, strict=True)
        ]
    windows = read_index(prepared.uri)[split]
    rows = dict.fromkeys(found.files, 0)
    for window in windows:
        rows[window.file] = rows.get(window.file, 0) + window.num_rows
    if tuple(rows) != found.files or tuple(rows.values()) != found.file_rows:
        index = storage.join(prepared.uri, INDEX)
        raise DataError(f"{index}: damaged; delete its folder to prepare the data again")
    return [
        ShardRef(num_rows=w.num_rows, uri=w.file, num_words=num_words, window=w) for w in windows
    ]


def read_soft_labels(uri: str, num_rows: int) -> npt.NDArray[np.float16]:
    """Probabilities that a model gives the rows of a file, float16 (rows, classes).

    Args:
        uri: a safetensors file with `probabilities`.
        num_rows: that it must hold.

    Raises:
        DataError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        probabilities = load(storage.read_bytes(uri))["probabilities"]
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{uri}: damaged; delete it to make it again") from error
    if probabilities.dtype != np.float16 or probabilities.shape[:1] != (num_rows,):
        raise DataError(f"{uri}: damaged; delete it to make it again")
    found: npt.NDArray[np.float16] = probabilities
    return found
