"""Records in AG News form: CSV of label, title and description without a header."""

from collections.abc import Iterator

import pyarrow as pa

from rnntune.data.formats.delimited import CsvRecords, count_fields, records_table
from rnntune.data.formats.lines import check_row, open_lines, replace_surrogates
from rnntune.data.formats.schema import RecordFormat, Row, RowArrays, row_arrays

__all__ = ["AG_NEWS_COLUMNS", "ag_news_columns", "ag_news_rows"]
AG_NEWS_COLUMNS = ("label", "title", "description")


def ag_news_rows(file: str, form: RecordFormat) -> Iterator[RowArrays]:
    """Rows of a file: title and description are the text."""
    return row_arrays(_rows(file, form))


def _rows(file: str, form: RecordFormat) -> Iterator[Row]:
    valid = {str(number) for number in range(1, form.num_classes + 1)}
    with open_lines(file, form.encoding) as lines:
        for fields, problem in CsvRecords(lines):
            if problem:
                yield None, None, problem
            elif len(fields) != 3:
                yield None, None, f"{count_fields(fields)}, not 3 (label, title, description)"
            else:
                label = fields[0].strip()
                wrong = None
                if label not in valid:
                    wrong = (
                        f"label {replace_surrogates(label)!r} is not one of 1 to {form.num_classes}"
                    )
                yield check_row(f"{fields[1]} {fields[2]}", label, wrong)


def ag_news_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """Columns label, title and description."""
    with open_lines(file, form.encoding) as lines:
        yield from records_table(file, iter(CsvRecords(lines)), list(AG_NEWS_COLUMNS))
