"""CSV that spreadsheets open: cells that they would take for formulas begin with a quote."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["csv_text"]
# Source: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, escape_formulas: bool
) -> str:
    """Rows as CSV with a header.

    Args:
        columns: their names, in order.
        rows: a value for each column; None becomes an empty cell, lists and mappings JSON.
        escape_formulas: write a quote before text that begins with =, +, -, @, a tab or a
            carriage return, and is no number.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    show = _escaped if escape_formulas else _shown
    writer.writerow([show(name) for name in columns])
    writer.writerows([show(row[name]) for name in columns] for row in rows)
    return text.getvalue()


def _shown(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _escaped(value: Any) -> Any:
    value = _shown(value)
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text.strip() == text
