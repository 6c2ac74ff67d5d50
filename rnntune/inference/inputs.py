"""Files of texts to classify: which they are, of what form, and which columns are the text."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rnntune.config.schema import DataConfig
from rnntune.data.columns import has_header
from rnntune.data.discovery import find_files
from rnntune.data.formats.lines import column_index
from rnntune.data.formats.records import FORMS, read_columns
from rnntune.data.formats.schema import RecordFormat
from rnntune.data.recognition import BINARY_FORMS, check_encoding, detect_format
from rnntune.errors import DataError
from rnntune.location import Location

__all__ = ["InputFile", "find_inputs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file whose rows are to be classified.

    Args:
        number: its place among the files, from 0.
        file: as the user names it.
        uri: where any process finds it.
        form: how its records are to be understood.
    """

    number: int
    file: str
    uri: str
    form: RecordFormat

    def to_row(self) -> dict[str, Any]:
        """What the steps after reading need of it, as values of Arrow."""
        return {
            "number": self.number,
            "file": self.file,
            "uri": self.uri,
            "text_columns": list(self.form.text_columns),
        }


def find_inputs(
    inputs: Sequence[str], data: DataConfig, text_columns: tuple[str, ...] | None
) -> list[InputFile]:
    """The files that are named, checked as far as the first rows of the first one tell.

    Args:
        inputs: files, folders, globs or URIs.
        data: their format, encoding, delimiter and header.
        text_columns: columns that are the text; None: those of `data`, or what the form fixes.

    Raises:
        DataError: no such files, their form is not clear, or a column is not there.
    """
    files = list(dict.fromkeys(file for uri in inputs for file in find_files(uri)))
    if not files:
        raise DataError("no input files")
    found = [
        InputFile(
            number=number,
            file=file,
            uri=str(Location.parse(file).absolute()),
            form=_record_format(file, data, text_columns),
        )
        for number, file in enumerate(files)
    ]
    first = found[0]
    if first.form.format not in BINARY_FORMS:
        encoding = check_encoding(first.file, data.encoding)
        if encoding:
            raise DataError(f"{first.file}: not UTF-8; data.encoding: {encoding} reads it")
    names = next(read_columns(first.uri, first.form)).column_names
    for name in first.form.text_columns:
        column_index(first.file, name, names)
    return found


def _record_format(
    file: str, data: DataConfig, text_columns: tuple[str, ...] | None
) -> RecordFormat:
    columns = text_columns or data.text_columns
    wanted = dataclasses.replace(data, text_columns=columns, label_column=columns[0])
    format = detect_format(file, wanted)
    form = RecordFormat(
        format=format,
        text_columns=text_columns or FORMS[format].text_columns or columns,
        encoding=data.encoding,
        delimiter=data.delimiter,
    )
    if format in ("csv", "tsv"):
        return dataclasses.replace(form, header=has_header(file, form, data.header))
    return form
