"""Records of JSON: lines of one object each, or one array of objects, told by the first byte."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rnntune.data.formats.label_sets import check_label_set, indicated_labels, listed_labels
from rnntune.data.formats.lines import (
    MAX_LINE_CHARS,
    NOT_UTF8,
    Lines,
    check_row,
    column_index,
    is_text,
    open_text,
    replace_surrogates,
)
from rnntune.data.formats.schema import (
    BLOCK_ROWS,
    LabelSetRow,
    RecordFormat,
    Row,
    RowArrays,
    row_arrays,
    split_blocks,
)
from rnntune.errors import DataError

__all__ = ["json_columns", "json_objects", "json_rows"]
Record = tuple[dict[str, Any], str | None]
"""An object and its problem."""
_CHUNK_CHARS = 1 << 18
_SPACE = re.compile(r"\s*")


def json_objects(file: str, encoding: str = "auto") -> Iterator[Record]:
    """The objects of a file, each with its problem or None.

    Raises:
        DataError: an array that cannot be read to its end.
    """
    with open_text(file, encoding) as text:
        begin = _first_chars(text)
        if re.match(r"\[\s*([{\]]|$)", begin):
            yield from _array_objects(file, text, begin[1:])
        else:
            yield from _line_objects(Lines(text, begin))


def _first_chars(text: io.TextIOWrapper) -> str:
    """The first character that is no space, and after a bracket what follows up to the next."""
    begin = ""
    while char := text.read(1):
        if begin or not (char.isspace() or char == "\ufeff"):
            begin += char
        if begin and (begin[0] != "[" or (len(begin) > 1 and not char.isspace())):
            break
    return begin


def _line_objects(lines: Lines) -> Iterator[Record]:
    for line in lines:
        if line.isspace():
            continue
        if lines.cut:
            yield {}, lines.cut
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield {}, _json_problem(line, error)
            continue
        yield (value, None) if isinstance(value, dict) else ({}, "not a JSON object")


def _json_problem(line: str, error: Exception) -> str:
    if not is_text(line):
        return NOT_UTF8
    if line.strip() == "{":
        return "an object over several lines; write one object a line, or an array of objects"
    return f"not JSON ({error})"


def _array_objects(file: str, stream: io.TextIOWrapper, text: str) -> Iterator[Record]:
    """Objects of an array, of which the opening bracket was read; one is in memory at a time."""
    decode = json.JSONDecoder().raw_decode
    row, start, at_end = 0, 0, False
    while True:
        start = _skip_space(text, start)
        if row and text.startswith(",", start):
            start = _skip_space(text, start + 1)
        if text.startswith("]", start):
            return
        problem, value, end = None, None, start
        try:
            value, end = decode(text, start)
        except (ValueError, RecursionError) as error:
            problem = DataError.reason(error)
        # A number or word at the end of what was read may go on.
        whole = problem is None and (isinstance(value, dict) or end < len(text))
        if not whole and not at_end and len(text) - start < MAX_LINE_CHARS:
            more = stream.read(max(_CHUNK_CHARS, len(text) - start))
            at_end = not more
            text, start = text[start:] + more, 0
            continue
        row += 1
        if not whole:
            problem = "the array is not closed" if start >= len(text) else f"not JSON ({problem})"
            raise DataError(f"{file}: row {row}: {problem}; what follows cannot be read")
        start = end
        yield (value, None) if isinstance(value, dict) else ({}, "not a JSON object")


def _skip_space(text: str, start: int) -> int:
    blanks = _SPACE.match(text, start)
    return blanks.end() if blanks else start


def json_rows(file: str, form: RecordFormat) -> Iterator[RowArrays]:
    """Rows of a file of JSON."""
    return row_arrays(_rows(file, form))


def _rows(file: str, form: RecordFormat) -> Iterator[Row | LabelSetRow]:
    seen: dict[str, None] = {}
    needed = dict.fromkeys([*form.text_columns, *form.label_columns])
    missing = dict(needed)  # no record so far has these
    held: list[Row | LabelSetRow] = []
    for record, problem in json_objects(file, form.encoding):
        row: Row | LabelSetRow = (None, None, problem) if problem else _json_row(record, form)
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
        column_index(file, next(iter(missing)), [replace_surrogates(key) for key in seen])
    yield from held


def _json_row(record: dict[str, Any], form: RecordFormat) -> Row | LabelSetRow:
    texts: list[Any] = [record.get(name) for name in form.text_columns]
    for name, value in zip(form.text_columns, texts, strict=True):
        if value is None:
            return None, None, f"{name} is null or missing"
        if not isinstance(value, str):
            return None, None, f"{name} is not a string but {_shown(value)}"
    if form.multi_label:
        values = [record.get(name) for name in form.label_columns]
        if form.indicator_columns:
            labels = indicated_labels(values, form.indicator_columns)
        else:
            labels = listed_labels(values[0], form.label_delimiter)
        return check_label_set(" ".join(texts), labels)
    label = record.get(form.label_column)
    if label is None:
        return " ".join(map(replace_surrogates, texts)), None, "label is null or missing"
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, str | int):
        return None, None, f"label is not a string or an integer but {_shown(label)}"
    return check_row(" ".join(texts), label if isinstance(label, str) else json.dumps(label))


def _shown(value: Any) -> str:
    return json.dumps(value)[:40]


def json_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """All columns of a file of JSON."""
    for records in split_blocks(_sound(file, json_objects(file, form.encoding))):
        names = dict.fromkeys(name for record in records for name in record)
        yield pa.table({name: [record.get(name) for record in records] for name in names})


def _sound(file: str, records: Iterator[Record]) -> Iterator[dict[str, Any]]:
    for number, (record, problem) in enumerate(records, 1):
        if problem:
            raise DataError(f"{file}: row {number}: {problem}")
        yield record
