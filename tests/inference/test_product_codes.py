import numpy as np
import pytest

from rnntune.inference.product_codes import encode_rows


def _error(rows, found) -> float:
    return float(np.square(found.rows() - rows).mean())


def test_few_rows_are_kept_exactly():
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    found = encode_rows(rows, 3, np.ones(200))
    assert found.codes.shape == (200, 3)
    assert found.centers.shape == (3, 256, 2)
    np.testing.assert_allclose(found.rows(), rows, atol=2e-3)  # numbers of 16 bits
    np.testing.assert_array_equal(found.take(np.array([7, 3])).rows(), found.rows()[[7, 3]])


def test_more_pieces_leave_less_error_and_weights_say_of_which_rows():
    rows = np.random.default_rng(0).normal(size=(3_000, 8)).astype(np.float32)
    errors = [_error(rows, encode_rows(rows, pieces, np.ones(3_000))) for pieces in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    weights = np.where(np.arange(3_000) < 200, 1_000.0, 1.0)
    found = encode_rows(rows, 2, weights)
    near, far = (
        np.square(found.rows() - rows)[part].mean() for part in (slice(200), slice(200, None))
    )
    assert near < 0.5 * far


@pytest.mark.parametrize("num_rows", [1, 300])
def test_equal_rows_need_one_center(num_rows):
    rows = np.ones((num_rows, 4), dtype=np.float32)
    np.testing.assert_array_equal(encode_rows(rows, 2, np.ones(num_rows)).rows(), rows)
