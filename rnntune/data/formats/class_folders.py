"""A folder for each class, whose files are the rows: `train/pos/1.txt`, `train/neg/2.txt`."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

from rnntune import storage
from rnntune.data.formats.lines import (
    MAX_LINE_CHARS,
    check_row,
    mark_encoding,
    replace_surrogates,
)
from rnntune.data.formats.schema import (
    RecordFormat,
    Row,
    RowArrays,
    row_arrays,
    split_blocks,
)
from rnntune.errors import DataError
from rnntune.location import Location

__all__ = ["class_folder_columns", "class_folder_rows", "is_text_name", "list_texts"]
_TEXT_SUFFIXES = ("", ".txt", ".text")


def is_text_name(name: str) -> bool:
    """Whether a file's name is one of a plain text: `1.txt`, `README`, `49960`, `9.2`."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in _TEXT_SUFFIXES or suffix[1:].isdecimal()


def list_texts(folder: str) -> list[fs.FileInfo]:
    """The files of a class, sorted by name; hidden ones are left out."""
    filesystem, path = storage.locate(folder)
    infos = filesystem.get_file_info(fs.FileSelector(path))
    files = [info for info in infos if info.type == fs.FileType.File]
    return sorted(
        (info for info in files if not info.base_name.startswith((".", "_"))),
        key=lambda info: str(info.base_name),
    )


def class_folder_rows(file: str, form: RecordFormat) -> Iterator[RowArrays]:
    """Rows of one class: a file each, in the order of their names; the folder's is the label."""
    return row_arrays(row for _, row in _rows(file, form))


def class_folder_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """Columns label, name (of the file) and text."""
    for block in split_blocks(_sound(file, _rows(file, form))):
        names, texts, labels = zip(*block, strict=True)
        yield pa.table({"label": labels, "name": names, "text": texts})


def _sound(
    file: str, rows: Iterator[tuple[str, Row]]
) -> Iterator[tuple[str, str | None, str | None]]:
    for number, (name, (text, label, problem)) in enumerate(rows, 1):
        if problem:
            raise DataError(f"{file}: row {number}: {problem}")
        yield replace_surrogates(name), text, label


def _rows(folder: str, form: RecordFormat) -> Iterator[tuple[str, Row]]:
    label = Location.parse(folder).name
    filesystem, _ = storage.locate(folder)
    for info in list_texts(folder):
        name = str(info.base_name)
        text = _read(filesystem, info.path, form.encoding)
        if len(text) > MAX_LINE_CHARS:
            yield name, (None, None, f"{name}: longer than {MAX_LINE_CHARS:,} characters")
        else:
            row = check_row(text, label)
            yield name, (*row[:2], f"{name}: {row[2]}" if row[2] else None)


def _read(filesystem: fs.FileSystem, path: str, encoding: str) -> str:
    with (
        filesystem.open_input_stream(path, compression="detect") as stream,
        io.BufferedReader(stream) as buffer,
    ):
        name = mark_encoding(buffer.peek(4)[:4]) if encoding == "auto" else encoding
        with io.TextIOWrapper(buffer, name, errors="surrogateescape") as text:
            return text.read(MAX_LINE_CHARS + 1).removeprefix("\ufeff")
