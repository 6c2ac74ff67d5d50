"""Records of one file, streamed as Arrow tables: CSV, AG News form, JSON lines and Parquet.

`read_rows` gives labelled rows and says of each bad one why it cannot be used; `read_columns`
gives all columns as they are. Both hold a few thousand rows in memory whatever the file's size.
Blank lines and the header of a CSV file are no records and do not count in row numbers.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from rnntune import parquet
from rnntune.errors import DataError, RnntuneError
from rnntune.lines import CsvRecords, Row, checked, is_text, open_lines, place, repaired

__all__ = ["BLOCK_ROWS", "ROW_SCHEMA", "Form", "Format", "read_columns", "read_rows"]

BLOCK_ROWS = 8_192

Format = Literal["ag_news", "csv", "jsonl", "parquet"]

ROW_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the records of a file are to be understood."""

    format: Format
    """Form of the file."""
    text_columns: tuple[str, ...] = ("text",)
    """Columns that are joined by a space; not used in AG News form."""
    label_column: str = "label"
    """Column of the label; not used in AG News form."""
    num_classes: int = 4
    """In AG News form labels are 1 to this number."""


def read_rows(file: str, form: Form) -> Iterator[pa.Table]:
    """Labelled rows of a file.

    Args:
        file: a local path or URI; compressed if its name says so (.gz, .bz2, .zst, .lz4).
        form: how to understand it.

    Yields:
        Tables of up to `BLOCK_ROWS` rows with `ROW_SCHEMA`: `file`, `row` (from 1), `text`
        (stripped), `label` (integers as '1') and `problem`, null for rows that can be used.

    Raises:
        DataError: the file cannot be read, has no records or lacks a column.
    """
    row = 0
    for texts, labels, problems in _guarded(file, _columns_of_rows(file, form)):
        num_rows = len(problems)
        numbers = pa.array(range(row + 1, row + num_rows + 1), pa.int64())
        row += num_rows
        columns = [pa.array([file] * num_rows, pa.string()), numbers, texts, labels, problems]
        yield pa.table(columns, schema=ROW_SCHEMA)
    if not row:
        raise DataError(f"{file}: no rows")


def read_columns(file: str, form: Format) -> Iterator[pa.Table]:
    """All columns of a file as they are, in the file's order.

    Args:
        file: a local path or URI, compressed if its name says so.
        form: 'csv' (all columns become strings), 'jsonl' or 'parquet'; the columns of 'ag_news'
            are named label, title and description.

    Yields:
        Tables of up to `BLOCK_ROWS` rows.

    Raises:
        DataError: the file cannot be read, has no records, or a record is broken; the message
            names file and row.
    """
    num_rows = 0
    for table in _guarded(file, _tables(file, form)):
        num_rows += table.num_rows
        yield table
    if not num_rows:
        raise DataError(f"{file}: no rows")


def _guarded(file: str, items: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from items
    except RnntuneError as error:
        raise DataError(str(error)) from error
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error


def _columns_of_rows(file: str, form: Form) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    if form.format == "parquet":
        for batch in parquet.batches(file, BLOCK_ROWS, [*form.text_columns, form.label_column]):
            yield parquet.rows(batch, form.text_columns, form.label_column)
        return
    rows = {"ag_news": _ag_news_rows, "csv": _csv_rows, "jsonl": _json_rows}[form.format]
    for block in _blocks(rows(file, form)):
        texts, labels, problems = zip(*block, strict=True)
        yield tuple(pa.array(column, pa.string()) for column in (texts, labels, problems))


def _blocks(items: Iterable[Any]) -> Iterator[list[Any]]:
    block = []
    for item in items:
        block.append(item)
        if len(block) == BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block


# --- CSV ---------------------------------------------------------------------------------


def _ag_news_rows(file: str, form: Form) -> Iterator[Row]:
    valid = {str(number) for number in range(1, form.num_classes + 1)}
    with open_lines(file) as lines:
        for fields, problem in CsvRecords(lines):
            if problem:
                yield None, None, problem
            elif len(fields) != 3:
                yield None, None, f"{_count(fields)}, not 3 (label, title, description)"
            else:
                label = fields[0].strip()
                wrong = None
                if label not in valid:
                    wrong = f"label {repaired(label)!r} is not one of 1 to {form.num_classes}"
                yield checked(f"{fields[1]} {fields[2]}", label, wrong)


def _csv_rows(file: str, form: Form) -> Iterator[Row]:
    with open_lines(file) as lines:
        records = iter(CsvRecords(lines))
        header = _header(file, records)
        places = [place(file, name, header) for name in form.text_columns]
        label_place = place(file, form.label_column, header)
        for fields, problem in records:
            if problem:
                yield None, None, problem
            elif len(fields) != len(header):
                yield None, None, f"{_count(fields)}, not {len(header)} as in the header"
            else:
                yield checked(" ".join([fields[i] for i in places]), fields[label_place])


def _header(file: str, records: Iterator[tuple[list[str], str | None]]) -> list[str]:
    header, problem = next(records, ([], None))
    if problem:
        raise DataError(f"{file}: header: {problem}")
    if not header:
        raise DataError(f"{file}: empty file")
    if not all(is_text(name) for name in header):
        raise DataError(f"{file}: header: bytes that are not UTF-8")
    return header


def _count(fields: list[str]) -> str:
    return f"{len(fields)} field" + "s" * (len(fields) != 1)


# --- JSON lines --------------------------------------------------------------------------


def _json_objects(file: str) -> Iterator[tuple[dict[str, Any], str | None]]:
    with open_lines(file) as lines:
        for line in lines:
            if line.isspace():
                continue
            if lines.cut:
                yield {}, lines.cut
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                sound = is_text(line)
                yield {}, f"not JSON ({error})" if sound else "bytes that are not UTF-8"
                continue
            yield (found, None) if isinstance(found, dict) else ({}, "not a JSON object")


def _json_rows(file: str, form: Form) -> Iterator[Row]:
    seen: dict[str, None] = {}
    needed = dict.fromkeys([*form.text_columns, form.label_column])
    missing = dict(needed)  # no record so far has these
    held: list[Row] = []
    for record, problem in _json_objects(file):
        row = (None, None, problem) if problem else _json_row(record, form)
        if missing:
            seen.update(dict.fromkeys(record))
            missing = {name: None for name in missing if name not in record}
            held.append(row)
            if missing and len(held) < BLOCK_ROWS:
                continue
            if missing and seen:
                break
            yield from held
            held = []
        else:
            yield row
    if missing and seen:
        place(file, next(iter(missing)), list(seen))
    yield from held


def _json_row(record: dict[str, Any], form: Form) -> Row:
    texts: list[Any] = [record.get(name) for name in form.text_columns]
    label = record.get(form.label_column)
    for name, value in zip(form.text_columns, texts, strict=True):
        if value is None:
            return None, None, f"{name} is null or missing"
        if not isinstance(value, str):
            return None, None, f"{name} is not a string but {_shown(value)}"
    if label is None:
        return " ".join(map(repaired, texts)), None, "label is null or missing"
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, str | int):
        return None, None, f"label is not a string or an integer but {_shown(label)}"
    return checked(" ".join(texts), label if isinstance(label, str) else json.dumps(label))


def _shown(value: Any) -> str:
    return json.dumps(value)[:40]


# --- All columns -------------------------------------------------------------------------


def _tables(file: str, form: Format) -> Iterator[pa.Table]:
    if form == "parquet":
        for batch in parquet.batches(file, BLOCK_ROWS):
            yield pa.Table.from_batches([batch])
        return
    if form == "jsonl":
        for records in _blocks(_sound(file, _json_objects(file))):
            names = dict.fromkeys(name for record in records for name in record)
            yield pa.table({name: [record.get(name) for record in records] for name in names})
        return
    with open_lines(file) as lines:
        found = iter(CsvRecords(lines))
        header = ["label", "title", "description"] if form == "ag_news" else _header(file, found)
        for rows in _blocks(_sound(file, found, len(header))):
            columns = zip(*rows, strict=True)
            yield pa.table([pa.array(c, pa.string()) for c in columns], names=header)


def _sound(
    file: str, records: Iterator[tuple[Any, str | None]], num_fields: int | None = None
) -> Iterator[Any]:
    for number, (record, problem) in enumerate(records, 1):
        if not problem and num_fields is not None:
            if len(record) != num_fields:
                problem = f"{_count(record)}, not {num_fields}"
            elif not all(map(is_text, record)):
                problem = "bytes that are not UTF-8"
        if problem:
            raise DataError(f"{file}: row {number}: {problem}")
        yield record
