import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnntune.inference.quantize import QuantizedRows, quantize_rows


def _restored(rows: QuantizedRows) -> np.ndarray:
    values = rows.values.astype(np.float32)
    if rows.bits == 4:
        both = np.concatenate([rows.values & 15, rows.values >> 4], axis=-1)
        values = both[..., : rows.dim].astype(np.float32) - 8
    return values * rows.scales.astype(np.float32) * rows.unit


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99), st.floats(1e-3, 1e3))
def test_eight_bits_are_off_by_half_a_step_of_the_row(num_rows, dim, seed, scale):
    rows = np.random.default_rng(seed).normal(scale=scale, size=(2, num_rows, dim))
    rows = (rows * np.arange(1, num_rows + 1)[:, None]).astype(np.float32)
    step = np.abs(rows).max(axis=-1, keepdims=True) / 127
    error = np.abs(_restored(quantize_rows(rows, 8)) - rows)
    # A scale of 16 bits is off by 2**-11; what it cuts of the largest number is as much.
    assert (error <= step * 0.6).all()


@pytest.mark.parametrize("dim", [1, 6, 7])
def test_four_bits_take_half_a_byte(dim):
    rows = np.random.default_rng(0).normal(size=(100, dim)).astype(np.float32)
    found = quantize_rows(rows, 4)
    assert found.values.shape == (100, (dim + 1) // 2)
    assert found.values.dtype == np.uint8
    step = np.abs(rows).max(axis=-1, keepdims=True) / 7
    assert (np.square(_restored(found) - rows).mean(axis=1) <= np.square(step[:, 0] * 0.51)).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_of_zeros_stay_zeros(bits):
    rows = np.zeros((3, 4), dtype=np.float32)
    np.testing.assert_array_equal(_restored(quantize_rows(rows, bits)), rows)
    rows[1] = 5
    np.testing.assert_allclose(_restored(quantize_rows(rows, bits)), rows, rtol=1e-2)
