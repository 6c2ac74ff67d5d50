"""Hypothesis strategies, named after the shapes they make."""

import numpy as np
from hypothesis import strategies as st

from rnntune.config.schema import BatchingConfig
from rnntune.data.batching import EncodedRows

TEXTS = st.lists(st.text(max_size=40), max_size=12)


@st.composite
def lengths(draw, max_rows: int = 200, max_length: int = 40) -> np.ndarray:
    """int32 (rows,), none zero."""
    values = draw(st.lists(st.integers(1, max_length), min_size=1, max_size=max_rows))
    return np.array(values, dtype=np.int32)


@st.composite
def batching_configs(draw) -> BatchingConfig:
    """Settings of all kinds."""
    return BatchingConfig(
        batch_rows=draw(st.integers(1, 17)),
        max_tokens=draw(st.none() | st.integers(1, 200)),
        bucket_width=draw(st.none() | st.integers(1, 9)),
        bucketing=draw(st.booleans()),
    )


def coded_rows(row_lengths: np.ndarray) -> EncodedRows:
    """Rows whose ids say row and column (1000 * (row + 1) + column): a misalignment shows."""
    ids = [1000 * (row + 1) + np.arange(n) for row, n in enumerate(row_lengths)]
    return EncodedRows(
        ids=np.concatenate(ids).astype(np.int32),
        lengths=row_lengths.astype(np.int32),
        labels=np.arange(len(row_lengths), dtype=np.int64),
    )
