"""Files of encoded rows: writing them as Parquet, and reading a file or one of its row groups."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.data.batching import EncodedRows
from rnntune.data.label_bytes import label_bytes, label_matrix
from rnntune.errors import DataError, StorageError

__all__ = ["read_encoded", "rows_table", "write_encoded"]
_OPEN_FILES = 64


def rows_table(rows: EncodedRows) -> pa.Table:
    """Rows as a table: `ids`, a list each, and `label`, a number or bytes of 0 and 1."""
    offsets = np.concatenate([[0], np.cumsum(rows.lengths)]).astype(np.int32)
    labels = rows.labels
    column = pa.array(labels) if labels.ndim == 1 else label_bytes(labels)
    return pa.table({"ids": pa.ListArray.from_arrays(offsets, rows.ids), "label": column})


def write_encoded(uri: str, rows: EncodedRows) -> int:
    """Write rows as a file; gives the bytes that it takes.

    Raises:
        StorageError: it cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(rows_table(rows), sink, compression="zstd")
    written = sink.getvalue()
    storage.write_bytes(uri, written.to_pybytes())
    return int(written.size)


def read_encoded(
    uri: str,
    *,
    num_rows: int | None = None,
    num_words: int | None = None,
    row_group: int | None = None,
    footer: bytes | None = None,
) -> EncodedRows:
    """The rows of one file of a split.

    Args:
        uri: of the file.
        num_rows: that it must hold; None: any number.
        num_words: of the vocabulary; None: ids are not compared with it.
        row_group: the one to read; None: all.
        footer: of the file, where a row group is read.

    Raises:
        DataError: the file is not there or is damaged.
    """
    damaged = f"{uri}: damaged; delete its folder to prepare the data again"
    try:
        table = _read_table(uri, row_group, footer)
        lists = table["ids"].combine_chunks()
        ids = pc.min_max(pc.list_flatten(lists).cast(pa.int32())).as_py()
        labels = _labels(table["label"])
    except StorageError:
        raise
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(damaged) from error
    is_known = ids["min"] is None or (ids["min"] >= 0 and ids["max"] < (num_words or 2**31))
    if not is_known or num_rows not in (None, len(table)):
        raise DataError(damaged)
    return EncodedRows(
        ids=pc.list_flatten(lists).to_numpy(),
        lengths=pc.list_value_length(lists).to_numpy(),
        labels=labels,
    )


def _read_table(uri: str, row_group: int | None, footer: bytes | None) -> pa.Table:
    if row_group is None:
        return pq.read_table(pa.BufferReader(storage.read_bytes(uri)), use_threads=False)
    try:
        file = _open(uri)
        known = pq.read_metadata(pa.BufferReader(footer)) if footer else None
        # Columns of a row group stand together, and are read together.
        parquet = pq.ParquetFile(file, metadata=known, pre_buffer=True)
        if not 0 <= row_group < parquet.num_row_groups:
            raise ValueError(row_group)
        return parquet.read_row_group(row_group, use_threads=False)
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: no such file or folder") from error


@functools.lru_cache(maxsize=_OPEN_FILES)
def _open(uri: str) -> Any:
    """A file that stays open: its next row group costs one request."""
    filesystem, path = storage.locate(uri)
    return filesystem.open_input_file(path)


def _labels(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    if pa.types.is_fixed_size_binary(column.type):
        return label_matrix(column)
    numbers: npt.NDArray[Any] = column.to_numpy().astype(np.int64)
    return numbers
