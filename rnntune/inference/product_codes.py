"""Rows of numbers as a few bytes each: pieces of a row, each the nearest of 256 that are kept."""

import dataclasses
import warnings

import numpy as np
import numpy.typing as npt

__all__ = ["CodedRows", "encode_rows"]
FloatArray = npt.NDArray[np.float32]
_CENTERS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodedRows:
    """A table whose rows are put together from pieces.

    Args:
        codes: uint8 (rows, pieces), the number of each piece.
        centers: float16 (pieces, 256, numbers of a piece).
    """

    codes: npt.NDArray[np.uint8]
    centers: npt.NDArray[np.float16]

    def take(self, rows: npt.NDArray[np.int64]) -> "CodedRows":
        """Some of the rows."""
        return dataclasses.replace(self, codes=self.codes[rows])

    def rows(self) -> FloatArray:
        """The table that this stands for, float32 (rows, pieces * numbers of a piece)."""
        pieces = np.arange(len(self.centers))
        found: FloatArray = self.centers[pieces, self.codes].astype(np.float32)
        return found.reshape(len(self.codes), -1)


def encode_rows(rows: FloatArray, num_pieces: int, weights: npt.NDArray[np.float64]) -> CodedRows:
    """Encode rows with the pieces that leave the least squared error (product quantisation).

    Args:
        rows: float32 (rows, dim).
        num_pieces: bytes of a row; divides `dim`.
        weights: float64 (rows,), how much the error of each row counts.

    Source: Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57, as fastText compresses its
    models, Joulin et al. 2016, arXiv:1612.03651.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    parts = rows.reshape(len(rows), num_pieces, -1)
    size = min(_CENTERS, len(rows))
    codes = np.zeros((len(rows), num_pieces), dtype=np.uint8)
    centers = np.zeros((num_pieces, _CENTERS, parts.shape[2]), dtype=np.float16)
    with threadpool_limits(1), warnings.catch_warnings():  # on a busy machine more threads wait
        warnings.simplefilter("ignore")  # fewer distinct rows than centers: none is lost
        for piece in range(num_pieces):
            means = MiniBatchKMeans(
                size, n_init=1, max_iter=10, batch_size=4096, random_state=0, reassignment_ratio=0
            )
            part = np.ascontiguousarray(parts[:, piece])
            codes[:, piece] = means.fit(part, sample_weight=weights).predict(part)
            centers[piece, :size] = means.cluster_centers_
    return CodedRows(codes=codes, centers=centers)
