"""Rows of numbers in 8 or 4 bits."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["QuantizedRows", "quantize_rows"]
_LEVELS = {8: 127, 4: 7}
_CLIPPING = np.linspace(0.7, 1.0, 7)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizedRows:
    """Rows of small whole numbers; a row's numbers are `values * scales * unit`.

    Args:
        values: int8 (..., rows, dim); of 4 bits uint8 (..., rows, dim / 2), each number plus 8,
            the first half of the row in the low bits of the bytes, the second in the high.
        scales: float16 (..., rows, 1), at most 1.
        unit: the largest scale.
        bits: 8 or 4.
        dim: numbers in a row.
    """

    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float16]
    unit: float
    bits: int
    dim: int


def quantize_rows(rows: npt.NDArray[np.float32], bits: int) -> QuantizedRows:
    """Round each row to whole numbers of a scale of its own.

    In 4 bits the scale is the one of several that leaves the least squared error, which may cut
    the row's largest numbers.

    Args:
        rows: float32 (..., rows, dim).
        bits: 8 or 4.
    """
    levels = _LEVELS[bits]
    widest = np.abs(rows).max(axis=-1, keepdims=True) / levels
    unit = float(widest.max()) or 1.0
    scales = np.zeros_like(widest, dtype=np.float16)
    values = np.zeros_like(rows)
    least = np.full_like(widest, np.inf)
    for factor in _CLIPPING if bits == 4 else (1.0,):
        tried = np.maximum(widest * factor / unit, 2.0**-14).astype(np.float16)
        exact = tried.astype(np.float32) * np.float32(unit)
        rounded = np.clip(np.rint(rows / exact), -levels, levels)
        error = np.square(rounded * exact - rows).sum(axis=-1, keepdims=True)
        better = error < least
        scales, values = np.where(better, tried, scales), np.where(better, rounded, values)
        least = np.minimum(error, least)
    return QuantizedRows(
        values=_packed(values) if bits == 4 else values.astype(np.int8),
        scales=scales,
        unit=unit,
        bits=bits,
        dim=rows.shape[-1],
    )


def _packed(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Numbers from -7 to 7, two a byte."""
    half = (values.shape[-1] + 1) // 2
    padded = np.zeros((*values.shape[:-1], 2 * half), dtype=np.uint8)
    padded[..., : values.shape[-1]] = (values + 8).astype(np.uint8)
    low, high = padded[..., :half], padded[..., half:]
    return low + high * np.uint8(16)
