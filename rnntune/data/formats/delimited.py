"""Records of delimited files, with and without a header, broken ones included."""

import csv
from collections import deque
from collections.abc import Iterator, Sequence

import pyarrow as pa

from rnntune.data.formats.dialect import Dialect, sniff_dialect
from rnntune.data.formats.label_sets import check_label_set, indicated_labels
from rnntune.data.formats.lines import (
    MAX_LINE_CHARS,
    NOT_UTF8,
    Lines,
    check_row,
    column_index,
    is_text,
    open_lines,
    replace_surrogates,
)
from rnntune.data.formats.schema import (
    LabelSetRow,
    RecordFormat,
    Row,
    RowArrays,
    row_arrays,
    split_blocks,
)
from rnntune.errors import DataError

__all__ = [
    "COMMA",
    "CsvRecords",
    "count_fields",
    "csv_columns",
    "csv_rows",
    "read_header",
    "records_table",
]
COMMA = Dialect(delimiter=",", quoted=True)
Record = tuple[list[str], str | None]
"""Fields and problem."""


def csv_rows(file: str, form: RecordFormat) -> Iterator[RowArrays]:
    """Rows of a delimited file, of the columns that are named or numbered."""
    return row_arrays(_rows(file, form))


def _rows(file: str, form: RecordFormat) -> Iterator[Row | LabelSetRow]:
    columns = [*form.text_columns, *form.label_columns]
    dialect = sniff_dialect(file, form, columns if form.header else ())
    with open_lines(file, form.encoding) as lines:
        header, records = _header(file, form, iter(CsvRecords(lines, dialect)))
        indices = [column_index(file, name, header, numbers=True) for name in columns]
        text_indices = indices[: len(form.text_columns)]
        label_indices = indices[len(form.text_columns) :]
        label_index = label_indices[0]
        where = "as in the header" if form.header else "as in the first row"
        only = text_indices[0] if len(text_indices) == 1 else None
        width = len(header)
        for fields, problem in records:
            if problem:
                yield None, None, problem
            elif len(fields) != width:
                yield None, None, f"{count_fields(fields)}, not {width} {where}"
            elif form.multi_label:
                yield _label_set_row(fields, text_indices, label_indices, form)
            elif only is not None:
                yield check_row(fields[only], fields[label_index])
            else:
                yield check_row(" ".join([fields[i] for i in text_indices]), fields[label_index])


def _label_set_row(
    fields: Sequence[str],
    text_indices: Sequence[int],
    label_indices: Sequence[int],
    form: RecordFormat,
) -> Row | LabelSetRow:
    text = " ".join([fields[i] for i in text_indices])
    values = [fields[i] for i in label_indices]
    if form.indicator_columns:
        return check_label_set(text, indicated_labels(values, form.indicator_columns))
    return check_row(text, values[0], may_be_blank=True)


def csv_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """All columns of a delimited file as strings, named by the header or by number."""
    dialect = sniff_dialect(file, form, form.text_columns if form.header else ())
    with open_lines(file, form.encoding) as lines:
        header, records = _header(file, form, iter(CsvRecords(lines, dialect)))
        yield from records_table(file, records, header)


def records_table(file: str, records: Iterator[Record], header: list[str]) -> Iterator[pa.Table]:
    """Records as tables.

    Raises:
        DataError: a record is broken.
    """
    for rows in split_blocks(_sound(file, records, len(header))):
        columns = zip(*rows, strict=True)
        yield pa.table([pa.array(column, pa.string()) for column in columns], names=header)


def _sound(file: str, records: Iterator[Record], num_fields: int) -> Iterator[list[str]]:
    for number, (fields, problem) in enumerate(records, 1):
        if not problem and len(fields) != num_fields:
            problem = f"{count_fields(fields)}, not {num_fields}"
        elif not problem and not all(map(is_text, fields)):
            problem = NOT_UTF8
        if problem:
            raise DataError(f"{file}: row {number}: {problem}")
        yield fields


def _header(
    file: str, form: RecordFormat, records: Iterator[Record]
) -> tuple[list[str], Iterator[Record]]:
    """Names of the columns, and the records after them."""
    if form.header:
        return read_header(file, records), records
    first = next(records, None)
    if first is None:
        raise DataError(f"{file}: empty file")
    fields, problem = first
    if problem:
        raise DataError(f"{file}: row 1: {problem}")

    def every() -> Iterator[Record]:
        yield first
        yield from records

    return [str(number) for number in range(len(fields))], every()


def read_header(file: str, records: Iterator[Record]) -> list[str]:
    """The first record as names of columns, stripped."""
    header, problem = next(records, ([], None))
    if problem:
        raise DataError(f"{file}: header: {problem}")
    if not header:
        raise DataError(f"{file}: empty file")
    if not all(is_text(name) for name in header):
        raise DataError(f"{file}: header: {NOT_UTF8}; data.encoding names another encoding")
    return [name.strip() for name in header]


def count_fields(fields: list[str]) -> str:
    """How many fields a record has, in words."""
    return f"{len(fields)} field" + "s" * (len(fields) != 1)


class CsvRecords:
    """Records of lines, each with its problem or None; a problem costs one line alone.

    A quote that is not closed would swallow the lines after it, so these are read again.

    Source: https://docs.python.org/3/library/csv.html#csv.Dialect.strict
    """

    def __init__(self, lines: Lines, dialect: Dialect = COMMA) -> None:
        self._lines = lines
        self._dialect = dialect
        self._fresh = iter(lines)
        self._taken: list[str] = []  # the lines of the record that is being read
        self._again: deque[str] = deque()
        # Texts of 131,072 characters and more are read; the limit is the module's, so the larger
        # one of a program's own stays.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))

    def __iter__(self) -> Iterator[Record]:
        """Pairs of fields and problem."""
        reader = self._reader()
        while True:
            self._taken.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield [], self._lines.cut or self._problem(error)
                self._again.extendleft(reversed(self._taken[1:]))
                reader = self._reader()
                continue
            if self._lines.cut:
                yield [], self._lines.cut
            elif fields:
                yield fields, None

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(
            self._source(),
            strict=True,
            delimiter=self._dialect.delimiter,
            quoting=csv.QUOTE_MINIMAL if self._dialect.quoted else csv.QUOTE_NONE,
        )

    def _source(self) -> Iterator[str]:
        while True:
            if self._again:
                line = self._again.popleft()
                self._lines.cut = None
            else:
                fresh = next(self._fresh, None)
                if fresh is None:
                    return
                line = fresh
            self._taken.append(line)
            yield line

    def _problem(self, error: csv.Error) -> str:
        reason = str(error)
        if "field larger" in reason:
            return f"a quote is not closed, or a field is longer than {MAX_LINE_CHARS:,} characters"
        if "unexpected end" in reason:
            begin = replace_surrogates(self._taken[0].strip())[:40] if self._taken else ""
            return f"a quote is not closed ({begin!r} ...)"
        if "expected after" in reason:
            return f"a quote is not closed or not doubled ({reason})"
        return f"not CSV ({reason})"
