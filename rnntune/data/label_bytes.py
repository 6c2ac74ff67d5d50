"""Sets of labels as a column of the cache: a byte for each class."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["label_bytes", "label_matrix"]


def label_bytes(labels: npt.NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """0 or 1 for each class, uint8 (rows, classes), as a column of fixed-size bytes."""
    num_rows, num_classes = labels.shape
    data = pa.py_buffer(np.ascontiguousarray(labels))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(num_classes), num_rows, [None, data])


def label_matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """What `label_bytes` wrote, uint8 (rows, classes)."""
    num_classes = column.type.byte_width
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, num_classes)[
            chunk.offset : chunk.offset + len(chunk)
        ]
        for chunk in column.chunks
    ]
    return np.concatenate(parts) if parts else np.empty((0, num_classes), np.uint8)
