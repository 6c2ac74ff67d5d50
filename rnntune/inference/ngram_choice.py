"""Which features of the n-gram branch are worth their bytes in a small export."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["KeptFeatures", "choose_features"]
FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptFeatures:
    """What is kept of the branch's table.

    Rows that features share come first: 0 is that of features which training never met, then one
    for the left-out features of each block. They weigh nothing, but count in the length of a text
    with the mean of their inverse document frequencies.

    Args:
        kept: bool (features,), which have a row of their own.
        seen: bool (features,), which training met.
        table: float32 (shared rows + rows of their own, classes).
        idf: float32, for each row of `table`.
        num_shared: rows that features share.
    """

    kept: npt.NDArray[np.bool_]
    seen: npt.NDArray[np.bool_]
    table: FloatArray
    idf: FloatArray
    num_shared: int


def choose_features(
    weights: Mapping[str, FloatArray], blocks: Sequence[int], share: float
) -> KeptFeatures:
    """Keep the features that move the scores of training texts most.

    Args:
        weights: the classifier's tensors by name.
        blocks: the first features of the blocks behind that of words.
        share: of the features that training met, those that are kept.
    """
    table, idf = weights["ngrams.table.weight"], weights["ngrams.idf"]
    seen = idf > 0
    # The inverse of a smoothed frequency, up to a factor; see `NGramBranch.set_idf`.
    num_texts = np.exp(1.0 - idf.astype(np.float64))
    apart = table - table.mean(axis=1, keepdims=True)  # what all classes have changes nothing
    moved = num_texts * np.square(idf[:, None] * apart).sum(axis=1) * seen
    number = round(share * int(seen.sum()))
    kept = np.zeros(len(idf), dtype=np.bool_)
    kept[np.argsort(-moved, kind="stable")[:number]] = True
    kept &= seen
    shared = [0.0]
    for first, end in zip([0, *blocks], [*blocks, len(idf)], strict=True):
        left_out = (seen & ~kept)[first:end]
        shared.append(float(idf[first:end][left_out].mean()) if left_out.any() else 0.0)
    nothing = np.zeros((len(shared), table.shape[1]), dtype=np.float32)
    return KeptFeatures(
        kept=kept,
        seen=seen,
        table=np.concatenate([nothing, table[kept]]),
        idf=np.concatenate([np.array(shared, dtype=np.float32), idf[kept]]),
        num_shared=len(shared),
    )
