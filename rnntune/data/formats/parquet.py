"""Rows of Parquet files, checked a column at a time."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from rnntune import storage
from rnntune.data.formats.label_sets import check_label_set, indicated_labels, listed_labels
from rnntune.data.formats.lines import check_row, column_index
from rnntune.data.formats.schema import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    LabelSetRow,
    RecordFormat,
    Row,
    RowArrays,
    row_arrays,
)

__all__ = ["labelled_rows", "parquet_columns", "parquet_rows", "read_batches"]
_LARGEST_EXACT = 2.0**53


def parquet_rows(file: str, form: RecordFormat) -> Iterator[RowArrays]:
    """Rows of a Parquet file."""
    columns = [*form.text_columns, *form.label_columns]
    for batch in read_batches(file, BLOCK_ROWS, columns):
        if form.multi_label:
            yield from row_arrays(_label_set_rows(batch, form))
        else:
            yield labelled_rows(batch, form.text_columns, form.label_column)


def parquet_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """All columns of a Parquet file."""
    del form  # nothing of it is to be set
    for batch in read_batches(file, BLOCK_ROWS):
        yield pa.Table.from_batches([batch])


def read_batches(
    file: str, num_rows: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """A file in batches of so many rows, fewer of long texts, read row group by row group.

    Raises:
        DataError: a column is missing.
    """
    filesystem, path = storage.locate(file)
    with filesystem.open_input_file(path) as stream, pq.ParquetFile(stream) as parquet:
        for name in columns or ():
            column_index(file, name, parquet.schema_arrow.names)
        groups = map(parquet.metadata.row_group, range(parquet.num_row_groups))
        row_bytes = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=0)
        num_rows = max(1, min(num_rows, int(2 * BLOCK_BYTES / max(row_bytes, 1))))
        yield from parquet.iter_batches(num_rows, columns=columns)


def labelled_rows(
    batch: pa.RecordBatch, text_columns: Sequence[str], label_column: str
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Text, label and problem of each row; vectorized unless a string holds broken bytes.

    Raises:
        pyarrow.ArrowInvalid: a column is of a type that is no text or label.
    """
    texts = [_strings(batch.column(name), name) for name in text_columns]
    label = batch.column(label_column)
    no_integer = _no_integers(label)
    label = _strings(label, label_column, numbers=True)
    try:
        for column in (*texts, label):
            column.validate(full=True)
    except pa.ArrowInvalid:
        found = [_bytes_row(values) for values in zip(*map(_bytes, (*texts, label)), strict=True)]
        return tuple(pa.array(part, pa.string()) for part in zip(*found, strict=True))
    label = pc.utf8_trim_whitespace(label)
    text = pc.utf8_trim_whitespace(pc.binary_join_element_wise(*texts, " "))
    problem = pc.case_when(
        pc.make_struct(pc.is_null(text), no_integer, pc.is_null(label), pc.equal(label, "")),
        "text is null",
        "label is NaN or not an integer",
        "label is null",
        "label is empty",
    )
    return text, label, problem.cast(pa.string())


def _label_set_rows(batch: pa.RecordBatch, form: RecordFormat) -> Iterator[LabelSetRow]:
    texts = [_bytes(_strings(batch.column(name), name)) for name in form.text_columns]
    labels = [batch.column(name).to_pylist() for name in form.label_columns]
    for row, values in zip(zip(*texts, strict=True), zip(*labels, strict=True), strict=True):
        if None in row:
            yield None, None, "text is null"
            continue
        text = " ".join(part.decode("utf-8", "surrogateescape") for part in row if part is not None)
        if form.indicator_columns:
            found = indicated_labels(values, form.indicator_columns)
        else:
            found = listed_labels(values[0], form.label_delimiter)
        yield check_label_set(text, found)


def _no_integers(label: pa.Array) -> pa.Array:
    """Which labels are numbers, but no integers that a float holds exactly; bool (rows,)."""
    if not pa.types.is_floating(label.type):
        return pa.array([False] * len(label), pa.bool_())
    values = label.cast(pa.float64())
    exact = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), _LARGEST_EXACT))
    return pc.fill_null(pc.invert(exact), False)


def _strings(column: pa.Array, name: str, *, numbers: bool = False) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if numbers and pa.types.is_floating(kind):  # integers with nulls, as pandas writes them
        unusable = _no_integers(column)
        column = pc.if_else(unusable, pa.scalar(None, kind), column)
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
    return check_row(" ".join(text for text in texts if text is not None), label)
