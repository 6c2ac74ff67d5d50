"""Which columns hold text and label where the settings' are not there, or have no names.

What is chosen is said in a line. Where there is more than one plausible choice, none is made.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from rnntune.config.schema import DataConfig
from rnntune.data.formats.delimited import CsvRecords
from rnntune.data.formats.dialect import sniff_dialect
from rnntune.data.formats.lines import is_column_number, open_lines, replace_surrogates
from rnntune.data.formats.records import read_columns
from rnntune.data.formats.schema import RecordFormat
from rnntune.errors import DataError, RnntuneError

__all__ = ["ResolvedColumns", "has_header", "resolve_columns"]
_SAMPLE_ROWS = 1_000
_TITLES = ("title", "headline", "subject")
_TEXTS = (
    "text", "sentence", "review", "content", "message", "body", "tweet", "comment", "document",
    "utterance", "query", "question", "description", "abstract", "sms", "post", "article",
)  # fmt: skip
_LABELS = (
    "label", "class", "category", "target", "sentiment", "topic", "intent", "labels", "tag",
    "genre", "emotion", "language",
)  # fmt: skip
_LABEL_CHARS = 64
_FRACTION = re.compile(r"[-+]?\d*\.\d*[1-9]\d*(e[-+]?\d+)?", re.IGNORECASE)
_NAME = re.compile(r"[^\W\d][\w .:/-]{0,40}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedColumns:
    """The columns of a file that are read.

    Args:
        text_columns: names or numbers of the text's columns.
        label_column: name or number of the label's, or of several columns of 0 and 1.
        header: whether the first record names the columns.
        note: a line on what was chosen; None: the settings' own.
    """

    text_columns: tuple[str, ...]
    label_column: str | tuple[str, ...]
    header: bool = True
    note: str | None = None


def resolve_columns(file: str, form: RecordFormat, data: DataConfig) -> ResolvedColumns:
    """The columns of a file with named or numbered columns.

    Args:
        file: the first one.
        form: how to read it.
        data: the settings; columns that they leave at their defaults may be others.

    Raises:
        DataError: columns are not there, or it is not clear which are meant.
    """
    if form.format in ("csv", "tsv"):
        return _resolve_delimited(file, form, data)
    names, rows, lists = _named_sample(file, form)
    wanted = (*data.text_columns, *data.label_columns)
    if not rows or all(name in names for name in wanted):
        return ResolvedColumns(text_columns=data.text_columns, label_column=data.label_column)
    return _chosen(file, names, rows, data, lists)


def _named_sample(
    file: str, form: RecordFormat
) -> tuple[list[str], list[list[str]], frozenset[str]]:
    """Names of columns, the first rows, and the names of columns that hold lists."""
    try:
        table = next(read_columns(file, form), pa.table({})).slice(0, _SAMPLE_ROWS)
        names = [replace_surrogates(name) for name in table.column_names]
        columns = [[_shown(value) for value in column.to_pylist()] for column in table.columns]
    except (RnntuneError, UnicodeError, pa.ArrowException):
        return [], [], frozenset()  # the reader says what is wrong, and in which row
    lists = (name for name, field in zip(names, table.schema, strict=True) if _is_list(field.type))
    return names, [list(row) for row in zip(*columns, strict=True)], frozenset(lists)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _resolve_delimited(file: str, form: RecordFormat, data: DataConfig) -> ResolvedColumns:
    wanted = [*data.text_columns, *data.label_columns]
    records = _first_records(file, form, wanted)
    names = [name.strip() for name in records[0]] if records else []
    rows = [row for row in records[1:] if len(row) == len(names)]
    settings = ResolvedColumns(text_columns=data.text_columns, label_column=data.label_column)
    if not records or (data.header is not False and all(name in names for name in wanted)):
        return settings
    numbered = all(map(is_column_number, wanted))
    if numbered:
        _check_numbers(file, wanted, len(names))
        if data.header is not False and (
            data.header is True or _names_columns(names, rows, int(data.label_columns[0]))
        ):
            shown = ", ".join(replace_surrogates(name) for name in names)
            return dataclasses.replace(
                settings, note=f"{file}: its first record names the columns: {shown[:200]}"
            )
        return dataclasses.replace(settings, header=False)
    if data.header is not True and (columns := _without_header(file, [names, *rows], data)):
        return columns
    if data.header is not False:
        return _chosen(file, names, rows, data)
    begin = ", ".join(repr(replace_surrogates(value)[:30]) for value in names[:6])
    raise DataError(
        f"{file}: its first record is {begin}; without a header data.text_columns and "
        f"data.label_column are numbers of columns, 0 to {len(names) - 1}"
    )


def has_header(file: str, form: RecordFormat, setting: bool | Literal["auto"]) -> bool:
    """Whether the first record of a delimited file names the columns, no label being wanted.

    Args:
        file: a local path or URI.
        form: how to read it; columns that are numbers mean that there is no header, unless it
            has these names.
        setting: `data.header`.
    """
    if setting != "auto":
        return bool(setting)
    if not all(map(is_column_number, form.text_columns)):
        return True
    records = _first_records(file, form, form.text_columns)
    return bool(records) and set(form.text_columns) <= {name.strip() for name in records[0]}


def _first_records(file: str, form: RecordFormat, wanted: Sequence[str]) -> list[list[str]]:
    try:
        dialect = sniff_dialect(file, form, wanted)
        with open_lines(file, form.encoding) as lines:
            records = list(itertools.islice(CsvRecords(lines, dialect), _SAMPLE_ROWS))
    except (OSError, UnicodeError) as error:
        raise DataError(f"{file}: cannot be read: {RnntuneError.reason(error)}") from error
    if records and records[0][1]:
        raise DataError(f"{file}: {'header' if form.header else 'row 1'}: {records[0][1]}")
    return [fields for fields, problem in records if not problem]


def _check_numbers(file: str, wanted: Sequence[str], width: int) -> None:
    for number in wanted:
        if int(number) >= width:
            raise DataError(f"{file}: no column {number}; its columns are 0 to {width - 1}")


def _names_columns(first: Sequence[str], rows: Sequence[Sequence[str]], label: int) -> bool:
    """Whether the first record names the columns, where the settings number them."""
    labels = {row[label].strip() for row in rows}
    if first[label] in labels or not labels:
        return False
    if {name.lower() for name in first} & {*_TEXTS, *_TITLES, *_LABELS}:
        return True
    if all(value.isdecimal() for value in labels):
        return not first[label].isdecimal()
    words = sum(len(row) for values in rows for row in map(str.split, values))
    few = sum(len(name.split()) for name in first) * 2 < words / len(rows)
    return few and len(set(first)) == len(first) and all(map(_NAME.fullmatch, first))


def _without_header(
    file: str, rows: Sequence[Sequence[str]], data: DataConfig
) -> ResolvedColumns | None:
    """Two columns by number, where one alone holds labels, the first record's among them."""
    default = DataConfig()
    is_default = data.text_columns == default.text_columns
    is_default = is_default and data.label_column == default.label_column
    known = {*_TEXTS, *_TITLES, *_LABELS} & {name.lower() for name in rows[0]}
    if not is_default or len(rows[0]) != 2 or (known and data.header == "auto"):
        return None
    values = [[row[i].strip() for row in rows] for i in range(2)]
    labels = [i for i in range(2) if _holds_labels(values[i])]
    if len(labels) != 1 or not _holds_texts(values[1 - labels[0]]):
        return None
    label = labels[0]
    if data.header == "auto" and values[label][0] not in values[label][1:]:
        return None
    return ResolvedColumns(
        text_columns=(str(1 - label),),
        label_column=str(label),
        header=False,
        note=f"{file}: no header; text from column {1 - label}, label from column {label} "
        "(data.header, data.text_columns, data.label_column)",
    )


def _missing(names: Sequence[str], data: DataConfig) -> str:
    return next(name for name in (*data.text_columns, *data.label_columns) if name not in names)


def _joined(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(replace_surrogates(name)[:40] for name in names[:20]) + more


def _chosen(
    file: str,
    names: list[str],
    rows: Sequence[Sequence[str]],
    data: DataConfig,
    lists: frozenset[str] = frozenset(),
) -> ResolvedColumns:
    """Columns for those that the settings leave at their defaults and that are not there."""
    default = DataConfig()
    text, labels = data.text_columns, data.label_columns
    free_text = text == default.text_columns and text[0] not in names
    free_label = labels == default.label_columns and labels[0] not in names
    kept = [*(() if free_text else text), *(() if free_label else labels)]
    lacking = [name for name in kept if not _is_there(name, names)]
    if lacking or len(set(names)) != len(names):
        raise _no_column(file, names, lacking[0] if lacking else _missing(names, data))
    values = {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}
    if free_label:
        labels = _choose_label(values, kept, lists, data.label_delimiter)
    if free_text:
        text = _choose_text(values, [*kept, *labels])
    if not text or not labels:
        raise _no_column(file, names, _missing(names, data))
    return ResolvedColumns(
        text_columns=text,
        label_column=labels[0] if len(labels) == 1 else labels,
        note=f"{file}: text from column {' and '.join(text)}, label from column "
        f"{' and '.join(labels)} "
        "(data.text_columns, data.label_column)",
    )


def _is_there(name: str, names: Sequence[str]) -> bool:
    return name in names or (is_column_number(name) and int(name) < len(names))


def _no_column(file: str, names: Sequence[str], name: str) -> DataError:
    return DataError(
        f"{file}: no column {name!r}; its columns are {_joined(names)}; data.text_columns and "
        "data.label_column name those to read"
    )


def _choose_label(
    values: Mapping[str, Sequence[str]],
    taken: Sequence[str],
    lists: frozenset[str],
    delimiter: str | None,
) -> tuple[str, ...]:
    """The one column that holds labels, by its name or as one of two; () if that is not clear."""
    free = [name for name in values if name not in taken]
    named = [name for name in free if name.lower() in _LABELS]
    if len(named) == 1 and (named[0] in lists or delimiter is not None):
        return (named[0],)
    if not named and len(values) == 2:
        named = [name for name in free if _holds_labels(values[name]) and _repeats(values[name])]
    return (named[0],) if len(named) == 1 and _holds_labels(values[named[0]]) else ()


def _choose_text(values: Mapping[str, Sequence[str]], taken: Sequence[str]) -> tuple[str, ...]:
    """The column that holds texts, after that of a title if there is one; () if not clear."""
    free = [name for name in values if name not in taken]
    titles = [name for name in free if name.lower() in _TITLES]
    named = [name for name in free if name.lower() in _TEXTS]
    if not named and not titles and len(values) == 2:
        named = free
    clear = len(named) <= 1 and len(titles) <= 1 and all(_holds_texts(values[n]) for n in named)
    return (*titles, *named) if clear else ()


def _holds_labels(values: Sequence[str]) -> bool:
    """Whether values repeat as labels do: short, of few kinds, no fractions."""
    kinds = set(values)
    if not kinds or any(
        len(v) > _LABEL_CHARS or "\n" in v or _FRACTION.fullmatch(v) for v in kinds
    ):
        return False
    return len(kinds) <= (len(values) / 2 if len(values) >= 8 else max(len(values) - 1, 2))


def _repeats(values: Sequence[str]) -> bool:
    return len(set(values)) < len(values)


def _holds_texts(values: Sequence[str]) -> bool:
    """Whether values are texts: several words, or characters of a script without spaces."""
    kinds = set(values)
    words = sum(len(value.split()) for value in kinds) / max(len(kinds), 1)
    chars = sum(not value.isascii() for value in kinds) / max(len(kinds), 1)
    return words >= 1.5 or chars > 0.5
