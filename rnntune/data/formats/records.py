"""Records of one file, streamed as Arrow tables, and the table of the forms that are read.

`read_rows` gives labelled rows and says of each bad one why it cannot be used; `read_columns`
gives all columns as they are. Both hold a few thousand rows in memory whatever the file's size.
Blank lines and the header of a CSV file are no records and do not count in row numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from rnntune.data.formats.ag_news import ag_news_columns, ag_news_rows
from rnntune.data.formats.class_folders import class_folder_columns, class_folder_rows
from rnntune.data.formats.delimited import csv_columns, csv_rows
from rnntune.data.formats.json_records import json_columns, json_rows
from rnntune.data.formats.label_sets import as_label_sets
from rnntune.data.formats.labelled_lines import (
    fasttext_columns,
    fasttext_rows,
    label_first_columns,
    label_first_rows,
)
from rnntune.data.formats.parquet import parquet_columns, parquet_rows
from rnntune.data.formats.schema import (
    LABEL_SET_SCHEMA,
    ROW_SCHEMA,
    FormatName,
    RecordFormat,
    RowArrays,
)
from rnntune.errors import DataError, RnntuneError

__all__ = ["FORMS", "Form", "read_columns", "read_rows"]
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of files.

    Args:
        rows: gives texts, labels and problems of a file's rows.
        columns: gives all columns of a file; raises a DataError for a broken record.
        suffixes: names of such files end so.
        text_columns: columns that are the text where the form fixes them; None: settings do.
    """

    rows: Callable[[str, RecordFormat], Iterator[RowArrays]]
    columns: Callable[[str, RecordFormat], Iterator[pa.Table]]
    suffixes: tuple[str, ...] = ()
    text_columns: tuple[str, ...] | None = None


FORMS: Mapping[FormatName, Form] = {
    "csv": Form(rows=csv_rows, columns=csv_columns, suffixes=(".csv",)),
    "tsv": Form(rows=csv_rows, columns=csv_columns, suffixes=(".tsv", ".tab")),
    "jsonl": Form(rows=json_rows, columns=json_columns, suffixes=(".jsonl", ".ndjson")),
    "json": Form(rows=json_rows, columns=json_columns, suffixes=(".json",)),
    "parquet": Form(rows=parquet_rows, columns=parquet_columns, suffixes=(".parquet", ".pq")),
    "ag_news": Form(
        rows=ag_news_rows, columns=ag_news_columns, text_columns=("title", "description")
    ),
    "fasttext": Form(
        rows=fasttext_rows,
        columns=fasttext_columns,
        suffixes=(".ft",),
        text_columns=("text",),
    ),
    "label_first": Form(
        rows=label_first_rows,
        columns=label_first_columns,
        suffixes=(".label",),
        text_columns=("text",),
    ),
    "class_folders": Form(
        rows=class_folder_rows, columns=class_folder_columns, text_columns=("text",)
    ),
}
"""The forms by the names of `data.format`."""


def read_rows(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """Labelled rows of a file.

    Args:
        file: a local path or URI; compressed if its name says so (.gz, .bz2, .zst, .lz4).
        form: how to understand it.

    Yields:
        Tables of up to `BLOCK_ROWS` rows with `ROW_SCHEMA`: `file`, `row` (from 1), `text`
        (stripped), `label` (integers as '1') and `problem`, null for rows that can be used; with
        `LABEL_SET_SCHEMA`, whose `label` is a list, where a row may have several labels.

    Raises:
        DataError: the file cannot be read, has no records or lacks a column.
    """
    row = 0
    schema = LABEL_SET_SCHEMA if form.multi_label else ROW_SCHEMA
    for texts, labels, problems in _guarded(file, FORMS[form.format].rows(file, form)):
        num_rows = len(problems)
        numbers = pa.array(range(row + 1, row + num_rows + 1), pa.int64())
        row += num_rows
        if form.multi_label and pa.types.is_string(labels.type):
            labels = as_label_sets(labels, form.label_delimiter)
        columns = [pa.array([file] * num_rows, pa.string()), numbers, texts, labels, problems]
        yield pa.table(columns, schema=schema)
    if not row:
        raise DataError(f"{file}: no rows")


def read_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """All columns of a file as they are, in the file's order.

    Args:
        file: a local path or URI, compressed if its name says so.
        form: how to understand it. All columns of CSV are strings. The columns of AG News form
            are label, title and description, those of the other forms without names label and
            text.

    Yields:
        Tables of up to `BLOCK_ROWS` rows.

    Raises:
        DataError: the file cannot be read, has no records, or a record is broken; the message
            names file and row.
    """
    num_rows = 0
    for table in _guarded(file, FORMS[form.format].columns(file, form)):
        num_rows += table.num_rows
        yield table
    if not num_rows:
        raise DataError(f"{file}: no rows")


def _guarded(file: str, items: Iterable[_Item]) -> Iterator[_Item]:
    try:
        yield from items
    except RnntuneError as error:
        raise DataError(str(error)) from error
    except UnicodeDecodeError as error:
        reason = RnntuneError.reason(error)
        raise DataError(f"{file}: {reason}; data.encoding names another encoding") from error
    except (OSError, UnicodeError, pa.ArrowException, OverflowError) as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error
