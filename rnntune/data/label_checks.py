"""What labels and bad rows tell about data, and what is refused or said because of them."""

import re
from collections.abc import Iterable, Mapping, Sequence

from rnntune.data.formats.lines import NOT_UTF8
from rnntune.errors import DataError

__all__ = [
    "bad_rows_error",
    "check_number_spelling",
    "check_two_classes",
    "label_notes",
    "sort_labels",
]
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"(-?[0-9]{1,18})\.0+")
_MOST_NAMES = 8


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Labels in an order of their own: integers by value, then the others."""
    return sorted(labels, key=_by_number)


def _by_number(label: str) -> tuple[int, int, str]:
    return (0, int(label), label) if _INTEGER.fullmatch(label) else (1, 0, label)


def check_number_spelling(first_rows: Mapping[str, str]) -> None:
    """Refuse labels like '1' and '1.0', which would be two classes.

    Args:
        first_rows: where each label stands first, such as 'a.csv: row 3'.

    Raises:
        DataError: two labels are one number; the message names both and their rows.
    """
    decimals = {label: _DECIMAL.fullmatch(label) for label in first_rows}
    for label, match in sorted(decimals.items()):
        if match and match[1] in first_rows:
            raise DataError(
                f"{first_rows[label]}: label {label!r} is the number of label {match[1]!r} "
                f"({first_rows[match[1]]}); write it in one way"
            )


def check_two_classes(
    source: str, classes: Sequence[str], num_rows: int, bad: Sequence[str]
) -> None:
    """Refuse training rows of fewer than two classes.

    Args:
        source: where the rows come from.
        classes: labels of the training rows.
        num_rows: rows that were read, bad ones included.
        bad: what is wrong with the bad rows, or with the first of them.

    Raises:
        DataError: there are fewer.
    """
    if len(classes) < 2:
        has = f"only {classes[0]!r}" if classes else "none"
        first = f"; of {num_rows:,} rows some are bad, the first: {bad[0]}" if bad else ""
        raise DataError(
            f"{source}: a classifier needs two classes, the training rows have {has}{first}"
        )


def bad_rows_error(first: str, num_bad: int, num_rows: int) -> DataError:
    """The error for bad rows that are not to be skipped.

    Args:
        first: file, row and reason of the first one.
        num_bad: bad rows.
        num_rows: all rows that were read.
    """
    way = "; data.encoding names another encoding" if first.endswith(NOT_UTF8) else ""
    if num_bad >= num_rows:
        every = (
            f"all {num_rows:,} rows are bad, the first" if num_rows > 1 else "the one row is bad"
        )
        return DataError(f"{every}: {first}{way}")
    rows = "row" if num_bad == 2 else "rows"
    more = f" ({num_bad - 1:,} more bad {rows})" if num_bad > 1 else ""
    return DataError(f"{first}{more}; data.on_bad_rows: skip leaves such rows out{way}")


def label_notes(class_rows: Mapping[str, int]) -> list[str]:
    """What should be said of classes, a line each.

    Args:
        class_rows: rows of each class in the training and validation splits.
    """
    notes = []
    single = [label for label, rows in class_rows.items() if rows == 1]
    if single:
        names = ", ".join(map(repr, single[:_MOST_NAMES]))
        more = f" and {len(single) - _MOST_NAMES:,} more" if len(single) > _MOST_NAMES else ""
        notes.append(f"one row alone is of class {names}{more}; nothing can be learned from it")
    numbers: dict[int, list[str]] = {}
    for label in class_rows:
        if _INTEGER.fullmatch(label):
            numbers.setdefault(int(label), []).append(label)
    notes += [
        f"labels {' and '.join(map(repr, spellings))} are kept as two classes"
        for spellings in numbers.values()
        if len(spellings) > 1
    ]
    return notes
