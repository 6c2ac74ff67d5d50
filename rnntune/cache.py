"""Prepared data in the cache: what it holds, reading it, and sharing it with workers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.batching import EncodedRows
from rnntune.epochs import Part
from rnntune.errors import DataError

__all__ = ["Prepared", "SharedPart", "Split", "describe", "fits_store", "read_encoded", "share"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split of prepared data.

    Args:
        files: places of its Parquet files, in order.
        file_rows: rows in each file.
        num_rows: rows.
        num_tokens: tokens.
        num_known: tokens that are in the vocabulary.
        num_cut: rows that were longer than `data.max_length`.
        class_rows: rows of each class.
        length_rows: rows of each length, from 0.
    """

    files: tuple[str, ...]
    file_rows: tuple[int, ...]
    num_rows: int
    num_tokens: int
    num_known: int
    num_cut: int
    class_rows: tuple[int, ...]
    length_rows: tuple[int, ...]

    @property
    def encoded_bytes(self) -> int:
        """Memory that the encoded rows take."""
        return 4 * self.num_tokens + 12 * self.num_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """Prepared data in the cache.

    Args:
        place: folder or URI of the cache entry.
        fingerprint: of inputs, settings and version.
        classes: names of the classes, in the order of label ids.
        splits: by name: train, validation, test.
        num_skipped: bad rows that were left out.
        problems: what was wrong with the first of them.
        num_words: size of the vocabulary.
        rows_per_s: rows a second while it was prepared.
        clean: whether texts were cleaned.
        from_cache: whether this run found it in the cache.
    """

    place: str
    fingerprint: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    num_skipped: int
    problems: tuple[str, ...]
    num_words: int
    rows_per_s: float
    clean: bool
    from_cache: bool = False

    def vocab_text(self) -> str:
        """The vocabulary, one word a line in the order of ids."""
        return storage.read_text(storage.join(self.place, "vocab.txt"))

    @property
    def encoded_bytes(self) -> int:
        """Memory that the encoded rows of all splits take."""
        return sum(split.encoded_bytes for split in self.splits.values())


def describe(content: Mapping[str, Any], *, from_cache: bool) -> Prepared:
    """Prepared data as the manifest of its cache entry tells it."""

    def frozen(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}

    splits = {name: Split(**frozen(split)) for name, split in content["splits"].items()}
    fields = {**frozen(content), "splits": splits, "from_cache": from_cache}
    return Prepared(**fields)


def read_encoded(place: str) -> EncodedRows:
    """The rows of one file of a split.

    Raises:
        DataError: the file is not there or is damaged.
    """
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(place)), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{place}: damaged; delete its folder to prepare the data again") from error
    lists = table["ids"].combine_chunks()
    return EncodedRows(
        ids=pc.list_flatten(lists).to_numpy(),
        lengths=pc.list_value_length(lists).to_numpy(),
        labels=table["label"].to_numpy().astype(np.int64),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedPart:
    """A file of a split where every worker can reach it.

    Args:
        num_rows: rows in it.
        place: where it is in the cache.
        ref: its rows in Ray's object store; None: read it from the cache.
    """

    num_rows: int
    place: str
    ref: Any = None

    def load(self) -> EncodedRows:
        """The rows; those of the object store are shared by all processes of a node."""
        if self.ref is None:
            return read_encoded(self.place)
        import ray

        rows: EncodedRows = ray.get(self.ref)
        return rows

    def part(self) -> Part:
        """The part as the batches take it."""
        return Part(num_rows=self.num_rows, load=self.load)


def share(prepared: Prepared, split: str, *, in_store: bool) -> list[SharedPart]:
    """A split for the workers of a connected cluster.

    Args:
        prepared: where the data is.
        split: its name.
        in_store: put the rows into the object store once, for all.
    """
    import ray

    found = prepared.splits[split]
    return [
        SharedPart(
            num_rows=num_rows,
            place=place,
            ref=ray.put(read_encoded(place)) if in_store else None,
        )
        for place, num_rows in zip(found.files, found.file_rows, strict=True)
    ]


def fits_store(prepared: Prepared, object_store_bytes: int) -> bool:
    """Whether the encoded rows take no more than a third of the object store."""
    return prepared.encoded_bytes <= object_store_bytes / 3
