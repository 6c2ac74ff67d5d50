"""How a delimited file separates its columns: what its first records show."""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rnntune.data.formats.lines import MAX_LINE_CHARS, open_text
from rnntune.data.formats.schema import RecordFormat
from rnntune.location import Location

__all__ = [
    "DELIMITERS",
    "Dialect",
    "consistent_delimiters",
    "first_records",
    "read_sample",
    "sniff_dialect",
]
DELIMITERS = (",", "\t", ";", "|")
_SAMPLE_CHARS = 1 << 16
_SAMPLE_RECORDS = 1_000
_CONSISTENT = 0.9  # part of the records with one number of fields, broken ones being allowed for


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How columns are separated.

    Args:
        delimiter: the character between them.
        quoted: whether a quote at the beginning of a field is one of CSV; else it is text.
    """

    delimiter: str
    quoted: bool


def read_sample(file: str, encoding: str) -> str:
    """The first characters of a file, up to the end of a line if there is one."""
    with open_text(file, encoding) as text:
        sample = text.read(_SAMPLE_CHARS).removeprefix("\ufeff")
        more = bool(text.read(1))
    return sample[: sample.rfind("\n") + 1] or sample if more else sample


def sniff_dialect(file: str, form: RecordFormat, columns: Sequence[str]) -> Dialect:
    """The dialect of a file.

    The setting decides; else the delimiter under which the header has the columns that are
    wanted; else that of the file's name, if the first records have columns under it; else the
    one delimiter under which they have.

    Args:
        file: a local path or URI.
        form: its encoding, and the delimiter or 'auto'.
        columns: names that the header should have.
    """
    sample = read_sample(file, form.encoding)
    usual = "\t" if _is_tab(file, form) else ","
    delimiter = form.delimiter
    if delimiter == "auto":
        delimiter = _sniff_delimiter(sample, usual, columns)
    quoted = delimiter != "\t" or _has_quoted_fields(sample)
    return Dialect(delimiter=delimiter, quoted=quoted)


def _is_tab(file: str, form: RecordFormat) -> bool:
    return form.format == "tsv" or not {".tsv", ".tab"}.isdisjoint(Location.parse(file).suffixes)


def _sniff_delimiter(sample: str, usual: str, columns: Sequence[str]) -> str:
    order = [usual, *(each for each in DELIMITERS if each != usual)]
    wanted = set(columns)
    headers = {each: next(iter(first_records(sample, each)), []) for each in order}
    for each, header in headers.items():
        if wanted and wanted <= {name.strip() for name in header}:
            return each
    if len(headers[usual]) > 1:
        return usual
    consistent = consistent_delimiters(sample)
    return consistent[0] if len(consistent) == 1 else usual


def consistent_delimiters(sample: str) -> list[str]:
    """Delimiters under which nearly all records have the same number of fields, two or more."""
    found = []
    for each in DELIMITERS:
        widths = Counter(map(len, first_records(sample, each)))
        if widths:
            width, num = widths.most_common(1)[0]
            if width > 1 and num >= _CONSISTENT * widths.total():
                found.append(each)
    return found


def _has_quoted_fields(sample: str) -> bool:
    """Whether a tab-separated file quotes fields, as spreadsheets do; most files do not.

    A quote is text where fields begin with one and do not end with one, or where reading quotes
    would swallow lines that are whole without.
    """
    plain = first_records(sample, "\t", quoting=csv.QUOTE_NONE)
    if not any(field.startswith('"') for fields in plain for field in fields):
        return False
    try:
        quoted = first_records(sample, "\t", strict=True)
    except csv.Error:
        return False
    widths = {len(fields) for fields in quoted}
    return len(widths) == 1 and (
        len(quoted) == len(plain) or len({len(fields) for fields in plain}) > 1
    )


def first_records(
    sample: str, delimiter: str, *, strict: bool = False, quoting: int = csv.QUOTE_MINIMAL
) -> list[list[str]]:
    """The first records, without blank lines; up to the first broken one unless strict."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))
    lines = io.StringIO(sample, newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=strict, quoting=quoting)  # type: ignore[arg-type]
    found: list[list[str]] = []
    try:
        found.extend(fields for fields in itertools.islice(reader, _SAMPLE_RECORDS) if fields)
    except csv.Error:
        if strict:
            raise
    return found
