"""Rows of Parquet files, checked a column at a time."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from rnntune import storage
from rnntune.lines import Row, checked, place

__all__ = ["batches", "rows"]


def batches(file: str, num_rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A file in batches of rows, read row group by row group.

    Raises:
        DataError: a column is missing.
    """
    filesystem, path = storage.locate(file)
    with filesystem.open_input_file(path) as stream, pq.ParquetFile(stream) as parquet:
        for name in columns or ():
            place(file, name, parquet.schema_arrow.names)
        yield from parquet.iter_batches(num_rows, columns=columns)


def rows(
    batch: pa.RecordBatch, text_columns: Sequence[str], label_column: str
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Text, label and problem of each row; vectorized unless a string holds broken bytes.

    Raises:
        pyarrow.ArrowInvalid: a column is of a type that is no text or label.
    """
    texts = [_strings(batch.column(name), name) for name in text_columns]
    label = _strings(batch.column(label_column), label_column, numbers=True)
    try:
        for column in (*texts, label):
            column.validate(full=True)
    except pa.ArrowInvalid:
        found = [_bytes_row(values) for values in zip(*map(_bytes, (*texts, label)), strict=True)]
        return tuple(pa.array(part, pa.string()) for part in zip(*found, strict=True))
    label = pc.utf8_trim_whitespace(label)
    text = pc.utf8_trim_whitespace(pc.binary_join_element_wise(*texts, " "))
    problem = pc.case_when(
        pc.make_struct(pc.is_null(text), pc.is_null(label), pc.equal(label, "")),
        "text is null",
        "label is null",
        "label is empty",
    )
    return text, label, problem.cast(pa.string())


def _strings(column: pa.Array, name: str, *, numbers: bool = False) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if numbers and pa.types.is_floating(kind):  # integers with nulls, as pandas writes them
        column, kind = column.cast(pa.int64()), pa.int64()
    plain = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if plain or (numbers and (pa.types.is_integer(kind) or pa.types.is_boolean(kind))):
        return column.cast(pa.string())
    raise pa.ArrowInvalid(f"column {name} holds {kind}, not strings")


def _bytes(column: pa.Array) -> list[bytes | None]:
    values: list[bytes | None] = column.view(pa.binary()).to_pylist()
    return values


def _bytes_row(values: tuple[bytes | None, ...]) -> Row:
    *texts, label = [v if v is None else v.decode("utf-8", "surrogateescape") for v in values]
    if None in texts:
        return None, None, "text is null"
    if label is None:
        return None, None, "label is null"
    return checked(" ".join(text for text in texts if text is not None), label)
