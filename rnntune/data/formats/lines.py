"""Text files as a stream of lines, broken ones included, and what is wrong with a row's text."""

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rnntune import storage
from rnntune.data.formats.schema import Row
from rnntune.errors import DataError

__all__ = [
    "MAX_LINE_CHARS",
    "NOT_UTF8",
    "Lines",
    "check_row",
    "column_index",
    "is_column_number",
    "is_text",
    "mark_encoding",
    "open_lines",
    "open_text",
    "read_head",
    "replace_surrogates",
]
MAX_LINE_CHARS = 1 << 24
"""Characters of a line or a field that are read; longer ones are bad rows."""
NOT_UTF8 = "bytes that are not UTF-8"
_HEAD_BYTES = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_NAMES = 20
# UTF-32 first: its mark begins as that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def mark_encoding(head: bytes) -> str:
    """The encoding that a byte order mark names; UTF-8 without one."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")


@contextmanager
def open_text(file: str, encoding: str = "auto") -> Iterator[io.TextIOWrapper]:
    """Open a local path or URI as text; decompressed if its name says so.

    Bytes that the encoding does not know become lone surrogates, which `is_text` finds.

    Args:
        file: a local path or URI.
        encoding: a codec of Python's, or 'auto': UTF-8, or what a byte order mark names.
    """
    filesystem, path = storage.locate(file)
    with (
        filesystem.open_input_stream(path, compression="detect") as stream,
        io.BufferedReader(stream, 1 << 18) as buffer,
    ):
        name = mark_encoding(buffer.peek(4)[:4]) if encoding == "auto" else encoding
        with io.TextIOWrapper(buffer, name, errors="surrogateescape", newline="") as text:
            yield text


@contextmanager
def open_lines(file: str, encoding: str = "auto") -> Iterator["Lines"]:
    """Open a local path or URI as lines; see `open_text`."""
    with open_text(file, encoding) as text:
        yield Lines(text)


def read_head(file: str, num_bytes: int = _HEAD_BYTES) -> bytes:
    """The first bytes of a file, a MiB of them, decompressed if its name says so.

    Raises:
        OSError: it cannot be read.
    """
    filesystem, path = storage.locate(file)
    with filesystem.open_input_stream(path, compression="detect") as stream:
        return bytes(stream.read(num_bytes))


class Lines:
    """The lines of a text stream with their ends, none longer than a limit.

    `cut` says of the line last read that it was too long and its end was dropped.

    Args:
        stream: text from the beginning of a file.
        taken: what was read of its first line already.
    """

    def __init__(self, stream: io.TextIOBase, taken: str = "") -> None:
        self.cut: str | None = None
        self._taken = taken
        self._read_line = partial(stream.readline, MAX_LINE_CHARS)

    def __iter__(self) -> Iterator[str]:
        """Lines, the first without a byte order mark."""
        first = self._taken + self._read_line()
        if first:
            yield self._checked(first).removeprefix("\ufeff")
        for line in iter(self._read_line, ""):
            if len(line) < MAX_LINE_CHARS:
                self.cut = None
                yield line
            else:
                yield self._checked(line)

    def _checked(self, line: str) -> str:
        self.cut = None
        if len(line) >= MAX_LINE_CHARS and not line.endswith("\n"):
            self.cut = f"a line longer than {MAX_LINE_CHARS:,} characters"
            for rest in iter(self._read_line, ""):
                if rest.endswith("\n"):
                    break
        return line


def is_text(text: str) -> bool:
    """Whether a string has no lone surrogates, so that it can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def replace_surrogates(text: str) -> str:
    """A string with lone surrogates replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def check_row(
    text: str, label: str, problem: str | None = None, *, may_be_blank: bool = False
) -> Row:
    """A row of stripped text and label, with the first thing that is wrong with it.

    Args:
        text: of the row.
        label: of the row.
        problem: what is wrong with it already.
        may_be_blank: whether a row may have no label.
    """
    text, label = text.strip(), label.strip()
    if not is_text(text) or not is_text(label):
        return replace_surrogates(text), replace_surrogates(label), problem or NOT_UTF8
    if not label and not may_be_blank:
        problem = problem or "label is empty"
    return text, label, problem


def is_column_number(column: str) -> bool:
    """Whether a column is given by its number."""
    return column.isdecimal() and column.isascii() and len(column) < 7


def column_index(file: str, column: str, columns: list[str], *, numbers: bool = False) -> int:
    """Index of a column.

    Args:
        file: for the message.
        column: its name or, if none has that name and `numbers` allows it, its number from 0.
        columns: names of all columns.
        numbers: whether columns have numbers, too.

    Raises:
        DataError: there is no such column, or there are two; the message names the file and
            its columns.
    """
    if columns.count(column) > 1:
        raise DataError(f"{file}: its header names {columns.count(column)} columns {column!r}")
    if column in columns:
        return columns.index(column)
    if numbers and is_column_number(column) and int(column) < len(columns):
        return int(column)
    names = ", ".join(columns[:_MOST_NAMES])
    more = f" and {len(columns) - _MOST_NAMES:,} more" if len(columns) > _MOST_NAMES else ""
    raise DataError(f"{file}: no column {column!r}; its columns are {names}{more}")
