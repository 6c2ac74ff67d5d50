"""What every reader gives: rows of one schema in blocks of bounded size."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnntune.config.schema import FormatName

__all__ = [
    "BLOCK_BYTES",
    "BLOCK_ROWS",
    "LABEL_SET_SCHEMA",
    "ROW_SCHEMA",
    "FormatName",
    "LabelSetRow",
    "RecordFormat",
    "Row",
    "RowArrays",
    "byte_slices",
    "row_arrays",
    "split_blocks",
]
BLOCK_ROWS = 8_192
BLOCK_BYTES = 4 << 20
"""Characters of text after which a block ends, however few its rows: as Python strings and tokens
they take many times that."""
ROW_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("problem", pa.string()),
    ]
)
LABEL_SET_SCHEMA = ROW_SCHEMA.set(
    ROW_SCHEMA.get_field_index("label"), pa.field("label", pa.list_(pa.string()))
)
"""The same where a row may have several labels."""
Row = tuple[str | None, str | None, str | None]
"""Text, label and problem."""
LabelSetRow = tuple[str | None, list[str] | None, str | None]
"""Text, labels and problem."""
RowArrays = tuple[pa.Array, pa.Array, pa.Array]
"""Texts, labels and problems of a block of rows."""
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class RecordFormat:
    """How the records of a file are to be understood."""

    format: FormatName
    """Form of the file."""
    text_columns: tuple[str, ...] = ("text",)
    """Columns that are joined by a space; not used where the form fixes them."""
    label_column: str = "label"
    """Column of the label; not used where the form fixes it."""
    indicator_columns: tuple[str, ...] = ()
    """Several columns of 0 and 1 in place of the label's: its name is a label where it is 1."""
    label_delimiter: str | None = None
    """What separates labels in the label's column; None: it holds one, or a list."""
    multi_label: bool = False
    """Whether a row has a list of labels, perhaps an empty one."""
    num_classes: int = 4
    """In AG News form labels are 1 to this number."""
    encoding: str = "auto"
    """A text encoding, or 'auto': UTF-8, or UTF-16 and UTF-32 with a byte order mark."""
    delimiter: str = "auto"
    """The character between columns, or 'auto': by the name and the first records."""
    header: bool = True
    """Whether the first record of a CSV file names the columns; else they have numbers from 0."""

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that labels are read from."""
        return self.indicator_columns or (self.label_column,)


def split_blocks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Items in lists of `BLOCK_ROWS`, the last one shorter."""
    block: list[_Item] = []
    for item in items:
        block.append(item)
        if len(block) == BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block


def row_arrays(rows: Iterable[Row | LabelSetRow]) -> Iterator[RowArrays]:
    """Rows one by one as Arrow arrays of strings, `BLOCK_ROWS` or `BLOCK_BYTES` at a time.

    Labels are lists of strings in a block where a row has a list.
    """
    for block in _text_blocks(rows):
        texts, labels, problems = zip(*block, strict=True)
        several = any(isinstance(label, list) for label in labels)
        yield (
            pa.array(texts, pa.string()),
            pa.array(labels, pa.list_(pa.string()) if several else pa.string()),
            pa.array(problems, pa.string()),
        )


def _text_blocks(rows: Iterable[Row | LabelSetRow]) -> Iterator[list[Row | LabelSetRow]]:
    """Rows in lists of `BLOCK_ROWS`, of long texts in shorter ones."""
    block: list[Row | LabelSetRow] = []
    num_chars = 0
    for row in rows:
        block.append(row)
        num_chars += len(row[0] or "")
        if len(block) == BLOCK_ROWS or num_chars >= BLOCK_BYTES:
            yield block
            block, num_chars = [], 0
    if block:
        yield block


def byte_slices(table: pa.Table, most_bytes: int = BLOCK_BYTES) -> Iterator[pa.Table]:
    """Rows with a `text` in slices of about so many bytes of text, without copying them."""
    sizes = pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy()
    number = np.cumsum(sizes, dtype=np.int64) // most_bytes
    starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(table)]
    for start, end in itertools.pairwise(starts):
        yield table.slice(start, end - start)
