"""The form of a file: by its name and, for text, its first lines."""

import re
from collections.abc import Sequence

from rnntune import storage
from rnntune.config.schema import DataConfig
from rnntune.data.file_listing import file_suffix, is_folder
from rnntune.data.formats.dialect import (
    DELIMITERS,
    consistent_delimiters,
    first_records,
    read_sample,
)
from rnntune.data.formats.labelled_lines import FASTTEXT_PREFIX
from rnntune.data.formats.lines import is_column_number, read_head, replace_surrogates
from rnntune.data.formats.records import FORMS
from rnntune.data.formats.schema import FormatName
from rnntune.errors import DataError, RnntuneError
from rnntune.location import Location

__all__ = [
    "AG_NEWS_CLASSES",
    "BINARY_FORMS",
    "check_encoding",
    "detect_format",
    "read_class_names",
]
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
BINARY_FORMS = ("parquet", "class_folders")
"""Forms whose files are no text, or no files."""
_DELIMITED = (".csv", ".tsv", ".tab")
_PLAIN = ("", ".txt", ".text", ".dat", ".data")
_FEW_LABELS = 0.1  # labels of lines, over the lines
_CLEAR_LINES = 20
_LABEL = re.compile(r"[^\s\"',;|]{1,64}")
_MAGIC = {
    b"PK\x03\x04": "a zip archive, or a workbook of Excel; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel; save it as CSV",
    b"PAR1": "Parquet; set data.format: parquet, or end its name in .parquet",
    b"\x1f\x8b": "compressed by gzip; end its name in .gz",
    b"BZh": "compressed by bzip2; end its name in .bz2",
    b"\x28\xb5\x2f\xfd": "compressed by zstandard; end its name in .zst",
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow file; save it as Parquet",
}
_BAD_LINES = 3  # a file with fewer is UTF-8 with bad rows


def detect_format(file: str, data: DataConfig) -> FormatName:
    """The form of a file; 'auto' goes by its name and, for text, its first lines.

    Raises:
        DataError: it is not clear; the message says what was seen.
    """
    if data.format != "auto":
        return data.format
    if is_folder(file):
        return "class_folders"
    suffix = file_suffix(file)
    for name, form in FORMS.items():
        if suffix in form.suffixes and suffix not in (*_DELIMITED, *_PLAIN):
            return name
    if suffix not in (*_DELIMITED, *_PLAIN):
        raise _unclear(file, "its name does not tell its form")
    try:
        _refuse_binary(file, read_head(file, 8))
        sample = read_sample(file, data.encoding)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error
    lines = [line for line in sample.splitlines() if line.strip()]
    if lines and all(line.startswith(FASTTEXT_PREFIX) for line in lines[:10]):
        return "fasttext"
    if suffix == ".csv" and _is_ag_news(file, sample, data):
        return "ag_news"
    if suffix in _DELIMITED:
        return "tsv" if suffix != ".csv" else "csv"
    return _form_of_text(file, sample, lines, data)


def _is_ag_news(file: str, sample: str, data: DataConfig) -> bool:
    if data.header is True or data.delimiter not in ("auto", ","):
        return False
    if all(map(is_column_number, (*data.text_columns, *data.label_columns))):
        return False
    records = first_records(sample, ",")
    if not records or len(records[0]) != 3:
        return False
    num_classes = len(read_class_names(file) or AG_NEWS_CLASSES)
    return records[0][0].strip() in {str(number) for number in range(1, num_classes + 1)}


def _form_of_text(file: str, sample: str, lines: Sequence[str], data: DataConfig) -> FormatName:
    """The form of a file whose name tells nothing."""
    if not lines:
        raise DataError(f"{file}: empty file")
    if lines[0].lstrip().startswith(("{", "[{")):
        return "jsonl"
    wanted = {*data.text_columns, *data.label_columns}
    for delimiter in DELIMITERS:
        header = next(iter(first_records(sample, delimiter)), [])
        if wanted <= {name.strip() for name in header}:
            return "csv"
    if all("\t" in line for line in lines):
        return "label_first" if _few_labels([line.split("\t")[0] for line in lines]) else "tsv"
    if data.delimiter != "auto" or (len(lines) > 2 and consistent_delimiters(sample)):
        return "csv"
    if _few_labels([line.split(None, 1)[0] for line in lines]) and len(lines) >= _CLEAR_LINES:
        return "label_first"
    begin = replace_surrogates(lines[0].strip())
    raise _unclear(file, f"its form is not clear from its first line, {begin[:60]!r}")


def _few_labels(words: Sequence[str]) -> bool:
    """Whether the first words of lines are labels: of few kinds, each a single word."""
    kinds = set(words)
    most = max(2, _FEW_LABELS * len(words))
    return 2 <= len(kinds) <= most and all(_LABEL.fullmatch(word) for word in kinds)


def _unclear(file: str, why: str) -> DataError:
    return DataError(f"{file}: {why}; set data.format ({', '.join(FORMS)})")


def _refuse_binary(file: str, head: bytes) -> None:
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{file}: it is {what}")


def check_encoding(file: str, encoding: str) -> str | None:
    """Refuse a text file that is as a whole in another encoding than the setting's.

    Args:
        file: a local path or URI.
        encoding: the setting.

    Returns:
        The encoding that reads it, if it is not UTF-8 as a whole; None if it is fine, or has a
        few bad rows.

    Raises:
        DataError: it is no text, or UTF-16 without a mark.
    """
    try:
        head = read_head(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error
    _refuse_binary(file, head)
    if encoding != "auto" or head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    if head.count(0) > len(head) // 8:
        order = "le" if head[1::2].count(0) > head[::2].count(0) else "be"
        raise DataError(
            f"{file}: UTF-16 without a byte order mark, it seems; set data.encoding: utf-16-{order}"
        )
    return _other_encoding(head)


def _other_encoding(head: bytes) -> str | None:
    bad: list[bytes] = []
    num_good = 0  # lines with characters of UTF-8 beyond ASCII
    for line in head.splitlines()[: None if len(head) < 1 << 20 else -1]:
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError:
                bad.append(line)
            else:
                num_good += 1
    if len(bad) < _BAD_LINES or len(bad) < 10 * num_good:
        return None
    return "cp1252" if any(0x80 <= byte < 0xA0 for line in bad for byte in line) else "latin-1"


def read_class_names(file: str) -> tuple[str, ...] | None:
    """Names in the `classes.txt` beside a file."""
    uri = str(Location.parse(file).parent / "classes.txt")
    if not storage.exists(uri):
        return None
    try:
        names = tuple(line.strip() for line in storage.read_text(uri).split("\n"))
    except UnicodeDecodeError as error:
        raise DataError(f"{uri}: not UTF-8") from error
    return tuple(name for name in names if name) or None
