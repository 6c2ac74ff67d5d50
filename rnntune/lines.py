"""Lines of text files and the CSV records in them, read as a stream, broken ones included."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rnntune import storage
from rnntune.errors import DataError

__all__ = ["CsvRecords", "Lines", "Row", "checked", "is_text", "open_lines", "place", "repaired"]

_SURROGATE = re.compile("[\ud800-\udfff]")

Row = tuple[str | None, str | None, str | None]
"""Text, label and problem."""

MAX_LINE_CHARS = 1 << 20
_MAX_FIELD_CHARS = csv.field_size_limit()  # 131,072: an unclosed quote is noticed after these


@contextmanager
def open_lines(file: str) -> Iterator["Lines"]:
    """Open a local path or URI as lines; decompressed if its name says so.

    Bytes that are not UTF-8 become lone surrogates, which `is_text` finds.
    """
    filesystem, path = storage.locate(file)
    with (
        filesystem.open_input_stream(path, compression="detect") as stream,
        io.BufferedReader(stream, 1 << 18) as buffer,
        io.TextIOWrapper(buffer, "utf-8", errors="surrogateescape", newline="") as text,
    ):
        yield Lines(text)


class Lines:
    """The lines of a text stream with their ends, none longer than a limit.

    `cut` says of the line last read that it was too long and its end was dropped.
    """

    def __init__(self, stream: io.TextIOBase) -> None:
        self.cut: str | None = None
        self._read_line = partial(stream.readline, MAX_LINE_CHARS)

    def __iter__(self) -> Iterator[str]:
        """Lines, the first without a byte order mark."""
        mark = "\ufeff"
        for line in iter(self._read_line, ""):
            self.cut = None
            if len(line) == MAX_LINE_CHARS and not line.endswith("\n"):
                self._drop_line()
                self.cut = f"a line longer than {MAX_LINE_CHARS:,} characters"
            yield line.removeprefix(mark) if mark else line
            mark = ""

    def _drop_line(self) -> None:
        for rest in iter(self._read_line, ""):
            if rest.endswith("\n"):
                return


class CsvRecords:
    """CSV records of lines, each with its problem or None; a problem costs one line alone.

    A quote that is not closed would swallow the lines after it, so these are read again.

    Source: https://docs.python.org/3/library/csv.html#csv.Dialect.strict
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._fresh = iter(lines)
        self._taken: list[str] = []  # the lines of the record that is being read
        self._again: deque[str] = deque()

    def __iter__(self) -> Iterator[tuple[list[str], str | None]]:
        """Pairs of fields and problem."""
        reader = csv.reader(self._source(), strict=True)
        while True:
            self._taken.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield [], self._lines.cut or _reason(error)
                self._again.extendleft(reversed(self._taken[1:]))
                reader = csv.reader(self._source(), strict=True)
                continue
            if self._lines.cut:
                yield [], self._lines.cut
            elif fields:
                yield fields, None

    def _source(self) -> Iterator[str]:
        while True:
            if self._again:
                line = self._again.popleft()
                self._lines.cut = None
            else:
                found = next(self._fresh, None)
                if found is None:
                    return
                line = found
            self._taken.append(line)
            yield line


def _reason(error: csv.Error) -> str:
    reason = str(error)
    if "field larger" in reason or "unexpected end" in reason:
        return f"a quote is not closed, or a field is longer than {_MAX_FIELD_CHARS:,} characters"
    if "expected after" in reason:
        return f"a quote is not closed or not doubled ({reason})"
    return f"not CSV ({reason})"


def is_text(text: str) -> bool:
    """Whether a string has no lone surrogates, so that it can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def repaired(text: str) -> str:
    """A string with lone surrogates replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def checked(text: str, label: str, problem: str | None = None) -> Row:
    """A row of stripped text and label, with the first thing that is wrong with it."""
    text, label = text.strip(), label.strip()
    if not is_text(text) or not is_text(label):
        return repaired(text), repaired(label), problem or "bytes that are not UTF-8"
    if not label:
        problem = problem or "label is empty"
    return text, label, problem


def place(file: str, column: str, columns: list[str]) -> int:
    """Index of a column.

    Raises:
        DataError: there is no such column; the message names the file and its columns.
    """
    if column not in columns:
        raise DataError(f"{file}: no column {column!r}; its columns are {', '.join(columns)}")
    return columns.index(column)
