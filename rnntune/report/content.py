"""What a page is made of: figures, tables and sections, as plain values.

Strings are text as the data has it. The page's template escapes them for HTML; what goes into a
figure passes through `label`, because plotly reads some HTML in its texts.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "Cell",
    "Column",
    "Fact",
    "Figure",
    "Section",
    "Table",
    "counted_axis",
    "finite",
    "label",
    "masked",
    "shortened",
    "visible",
]
Cell = str | int | float | None
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SECRET = re.compile(r"://[^/@\s]+@")
_LONGEST_LABEL = 28


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Args:
        name: its heading.
        form: how numbers are written, a format such as `.4f`; None: the cells are text.
    """

    name: str
    form: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page; a reader can sort it.

    Args:
        key: its name in the page.
        caption: what it shows.
        columns: its columns; the first names the row.
        rows: cells of each row.
        filter: what a field to filter the rows is called; None: there is no such field.
    """

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Cell]]
    filter: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure for plotly.

    Args:
        key: its name in the page.
        title: what it shows.
        summary: what there is to see, for those who do not see it.
        data: plotly's traces; a colour `var(--name)` is the theme's.
        layout: plotly's layout.
        values: the numbers behind it; None: a table beside it has them.
        height: in pixels.
        wide: whether it takes the whole width.
        min_width: in pixels; a narrower page scrolls it.
    """

    key: str
    title: str
    summary: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    values: Table | None = None
    height: int = 320
    wide: bool = False
    min_width: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
    """A line of the page's head.

    Args:
        name: what it is.
        value: in words.
        code: whether it is something to copy.
    """

    name: str
    value: str
    code: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Args:
        key: its name in the page.
        title: its heading.
        text: paragraphs.
        facts: lines of names and values.
        figures: drawn side by side where there is room.
        tables: below the figures.
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def visible(text: str) -> str:
    """Text with control characters, and what turns the direction of a line, written out."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def masked(text: str) -> str:
    """Text whose URIs have lost user and password."""
    return _SECRET.sub("://***@", text)


def shortened(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Text cut in its middle, so that names that begin alike stay apart."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def counted_axis(title: str, most: int) -> dict[str, Any]:
    """An axis of whole numbers from 1 to a largest one, whose marks are whole numbers, too."""
    return {"title": {"text": title}, "tickformat": "d", "dtick": max(1, -(-most // 10))}


def label(text: object, longest: int = _LONGEST_LABEL) -> str:
    """Text for a figure: one short line in which nothing is read as HTML.

    Source: https://plotly.com/javascript/formatting-ticks/ and `svg_text_utils.js` of plotly,
    which reads tags such as `<b>` and `<a href>` and the entities of HTML.
    """
    one_line = " ".join(visible(str(text)).split())
    return shortened(one_line, longest).replace("&", "&amp;").replace("<", "&lt;")


def finite(value: Any) -> float | None:
    """A number; None in place of what is none, infinite or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
