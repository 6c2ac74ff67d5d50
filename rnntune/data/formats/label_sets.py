"""Labels of rows that may have several: lists, cells with several labels, columns of 0 and 1."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rnntune.data.formats.lines import NOT_UTF8, is_text, replace_surrogates
from rnntune.data.formats.schema import LabelSetRow

__all__ = ["as_label_sets", "check_label_set", "indicated_labels", "listed_labels", "split_labels"]
_INDICATES = {
    "": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True,
}  # fmt: skip
LabelSet = tuple[list[str] | None, str | None]
"""Labels, and what is wrong with them or None."""


def split_labels(cell: str, delimiter: str | None) -> list[str]:
    """The labels of a cell, stripped; blank ones are none.

    Args:
        cell: such as 'toxic|insult'.
        delimiter: between them; None: the cell is one label.
    """
    parts = [cell] if delimiter is None else cell.split(delimiter)
    return [part.strip() for part in parts if part.strip()]


def listed_labels(value: Any, delimiter: str | None = None) -> LabelSet:
    """The labels that a value of JSON or Parquet holds: a list of labels, or one."""
    if value is None:
        return None, "label is null or missing"
    if isinstance(value, str):
        return split_labels(value, delimiter), None
    if not isinstance(value, list):
        label = _label(value)
        return (
            (None, f"label is not a string or an integer but {_shown(value)}")
            if (label is None)
            else ([label], None)
        )
    labels = [_label(each) for each in value]
    for each, label in zip(value, labels, strict=True):
        if label is None:
            return None, f"a label is not a string or an integer but {_shown(each)}"
        if not label:
            return None, "a label is empty"
    return [label for label in labels if label is not None], None


def _label(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value) if isinstance(value, int) else None


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:40]


def indicated_labels(values: Sequence[Any], names: Sequence[str]) -> LabelSet:
    """The labels of a row with a column of 0 and 1 (or true, false, blank) for each class.

    Args:
        values: of the row.
        names: of the columns, which are the labels.
    """
    labels = []
    for name, value in zip(names, values, strict=True):
        text = "" if value is None else str(value).strip()
        indicates = _INDICATES.get(text.lower())
        if indicates is None:
            return None, f"{name} is {replace_surrogates(text)[:40]!r}, not 0 or 1"
        if indicates:
            labels.append(name)
    return labels, None


def check_label_set(text: str, labels: LabelSet) -> LabelSetRow:
    """A row of stripped text and its labels, with the first thing that is wrong with it."""
    text = text.strip()
    names, problem = labels
    if not is_text(text) or not all(map(is_text, names or ())):
        shown = [replace_surrogates(name) for name in names or ()]
        return replace_surrogates(text), shown, problem or NOT_UTF8
    return text, names, problem


def as_label_sets(labels: pa.StringArray, delimiter: str | None) -> pa.ListArray:
    """One cell a row as lists of labels; null stays null."""
    sets = [None if cell is None else split_labels(cell, delimiter) for cell in labels.to_pylist()]
    return pa.array(sets, pa.list_(pa.string()))
