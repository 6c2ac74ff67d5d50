"""Lines of a label and a text: fastText's `__label__x text`, and a label before a space or tab."""

import itertools
import re
from collections.abc import Iterator

import pyarrow as pa

from rnntune.data.formats.label_sets import check_label_set
from rnntune.data.formats.lines import (
    NOT_UTF8,
    Lines,
    check_row,
    is_text,
    open_lines,
    open_text,
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
    "FASTTEXT_PREFIX",
    "fasttext_columns",
    "fasttext_rows",
    "has_label_sets",
    "label_first_columns",
    "label_first_rows",
]
FASTTEXT_PREFIX = "__label__"
_SAMPLE_LINES = 1_000
_SAMPLE_CHARS = 1 << 24
_TWO_LABELS = re.compile(rf"^[^\S\n]*{FASTTEXT_PREFIX}\S*[^\S\n]+{FASTTEXT_PREFIX}", re.MULTILINE)


def fasttext_rows(file: str, form: RecordFormat) -> Iterator[RowArrays]:
    """Rows of a file in fastText's form: a line has a label, or several where the form says so.

    Source: https://fasttext.cc/docs/en/supervised-tutorial.html
    """
    return row_arrays(_fasttext(file, form))


def has_label_sets(file: str, encoding: str) -> bool:
    """Whether one of the first lines of a file in fastText's form, 16 MiB, has several labels."""
    with open_text(file, encoding) as text:
        return _TWO_LABELS.search(text.read(_SAMPLE_CHARS)) is not None


def _fasttext(file: str, form: RecordFormat) -> Iterator[Row | LabelSetRow]:
    with open_lines(file, form.encoding) as lines:
        for line in lines:
            if line.isspace():
                continue
            if lines.cut:
                yield None, None, lines.cut
            else:
                yield _label_set_row(line) if form.multi_label else _fasttext_row(line)


def _fasttext_labels(line: str) -> tuple[list[str], str]:
    """The labels that a line begins with, without their prefix, and the text after them."""
    labels = []
    word, rest = _first_word(line)
    while word.startswith(FASTTEXT_PREFIX):
        labels.append(word.removeprefix(FASTTEXT_PREFIX))
        line = rest
        word, rest = _first_word(line)
    return labels, line


def _fasttext_row(line: str) -> Row:
    labels, text = _fasttext_labels(line)
    if not labels:
        return None, None, f"does not begin with {FASTTEXT_PREFIX}"
    if len(labels) > 1:
        names = [f"{FASTTEXT_PREFIX}{replace_surrogates(name)}"[:40] for name in labels[:2]]
        problem = f"several labels ({' and '.join(names)}); data.multi_label true reads such rows"
        return None, None, problem
    return check_row(text, labels[0])


def _label_set_row(line: str) -> LabelSetRow:
    labels, text = _fasttext_labels(line)
    if not labels:
        return None, None, f"does not begin with {FASTTEXT_PREFIX}"
    return check_label_set(text, (labels, None if all(labels) else "a label is empty"))


def label_first_rows(file: str, form: RecordFormat) -> Iterator[RowArrays]:
    """Rows of a file whose lines begin with a label, before a tab or else a space."""
    return row_arrays(_label_first(file, form))


def _label_first(file: str, form: RecordFormat) -> Iterator[Row]:
    with open_lines(file, form.encoding) as lines:
        pairs = ((line, lines.cut) for line in lines if not line.isspace())
        head = list(itertools.islice(pairs, _SAMPLE_LINES))
        delimiter = form.delimiter
        if delimiter == "auto":
            delimiter = "\t" if all("\t" in line for line, _ in head) else " "
        for line, cut in itertools.chain(head, pairs):
            yield (None, None, cut) if cut else _label_first_row(line, delimiter)


def _label_first_row(line: str, delimiter: str) -> Row:
    if delimiter == " ":
        label, text = _first_word(line)
        return check_row(text, label, None if text else "no text after the label")
    label, mark, text = line.partition(delimiter)
    shown = "tab" if delimiter == "\t" else repr(delimiter)
    return check_row(text, label, None if mark else f"no {shown} after the label")


def _first_word(line: str) -> tuple[str, str]:
    parts = line.split(None, 1)
    return (parts[0], parts[1].strip()) if len(parts) == 2 else ("".join(parts), "")


def fasttext_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """Columns label and text; a line without a label has its text alone, several have spaces."""
    with open_lines(file, form.encoding) as lines:
        yield from _tables(file, (_unlabelled(line, lines) for line in lines if line.strip()))


def _unlabelled(line: str, lines: Lines) -> Row:
    if lines.cut:
        return None, None, lines.cut
    if line.startswith(FASTTEXT_PREFIX):
        labels, text = _fasttext_labels(line)
        return check_row(text, " ".join(labels))
    return line.strip(), None, None if is_text(line) else NOT_UTF8


def label_first_columns(file: str, form: RecordFormat) -> Iterator[pa.Table]:
    """Columns label and text."""
    return _tables(file, _label_first(file, form))


def _tables(file: str, rows: Iterator[Row]) -> Iterator[pa.Table]:
    for block in split_blocks(_sound(file, rows)):
        texts, labels = zip(*block, strict=True)
        yield pa.table({"label": pa.array(labels, pa.string()), "text": pa.array(texts)})


def _sound(file: str, rows: Iterator[Row]) -> Iterator[tuple[str | None, str | None]]:
    for number, (text, label, problem) in enumerate(rows, 1):
        if problem:
            raise DataError(f"{file}: row {number}: {problem}")
        yield text, label
