"""What the driver keeps of the blocks: counts of words, names of labels, problems, splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rnntune import storage
from rnntune.data.stratification import ClassHashes, Fractions
from rnntune.errors import DataError

__all__ = ["ARRAYS", "SCALARS", "BlockSummary", "check_classes", "merge_counts"]
__all__ += ["split_content"]
SCALARS = ["origin", "file", "first_row", "num_rows", "names", "name_rows"]
SCALARS += ["num_problems", "problems"]
ARRAYS = ["words", "counts", "held_out", "class_rows", "lowest_ids", "lowest_hashes"]
_NO_COUNTS = pa.table({"words": pa.array([], pa.string()), "counts": pa.array([], pa.int64())})
_MERGED_WORDS = 1 << 18
"""Words and counts that come together before they are merged."""


class BlockSummary:
    """What the driver keeps of the first pass: counts of words, names of labels, problems.

    Args:
        fractions: of the training rows that validate and test.
    """

    def __init__(self, fractions: Fractions) -> None:
        self.class_hashes = ClassHashes(fractions)
        self.num_rows = self.num_problems = 0
        self.found: list[tuple[tuple[Any, ...], str]] = []
        self.problems: list[str] = []
        self.trained_names: set[str] = set()
        self.first_rows: dict[str, tuple[tuple[Any, ...], str]] = {}
        self._counts = [_NO_COUNTS]
        self._num_pending = 0
        self._held_out: dict[int, list[npt.NDArray[np.uint64]]] = {}

    def add(self, table: pa.Table) -> None:
        """Take in the summaries of some blocks, one a row: `SCALARS` and `ARRAYS`."""
        for number, block in enumerate(table.select(SCALARS).to_pylist()):
            key = (block["origin"], block["file"])
            self.num_rows += block["num_rows"]
            self.num_problems += block["num_problems"]
            if not block["origin"]:
                self.trained_names.update(block["names"])
                arrays = (
                    table[name][number].values.to_numpy()
                    for name in ("class_rows", "lowest_ids", "lowest_hashes")
                )
                self.class_hashes.add(block["names"], *arrays)
            for name, row in zip(block["names"], block["name_rows"], strict=True):
                first = ((*key, row), f"{block['file']}: row {row}")
                self.first_rows[name] = min(first, self.first_rows.get(name, first))
            self.found += [
                ((*key, p["row"]), f"{block['file']}: row {p['row']}: {p['reason']}")
                for p in block["problems"]
            ]
        for origin, hashes in zip(*(table[n] for n in ("origin", "held_out")), strict=True):
            if len(hashes):
                values = hashes.values.to_numpy().copy()
                self._held_out.setdefault(origin.as_py(), []).append(values)
        flat = {n: pc.list_flatten(table[n].combine_chunks()) for n in ("words", "counts")}
        self.add_counts(pa.table(flat))

    def add_counts(self, table: pa.Table) -> None:
        """Take in words and how often they occur in training rows, or changes of that."""
        new = table.filter(pc.not_equal(table["counts"], 0))
        self._counts.append(new)
        self._num_pending += len(new)
        if self._num_pending > max(len(self._counts[0]), _MERGED_WORDS):
            self._counts = [self._merged()]
            self._num_pending = 0

    def _merged(self) -> pa.Table:
        return merge_counts(pa.concat_tables(self._counts))

    def held_out(self) -> dict[int, npt.NDArray[np.uint64]]:
        """Sorted hashes of the texts of splits that have files of their own."""
        return {n: np.unique(np.concatenate(found)) for n, found in self._held_out.items()}

    def counts(self) -> pa.Table:
        """`words` of the training rows, each once, and the `counts` of their occurrences."""
        if len(self._counts) > 1:
            self._counts = [self._merged()]
        return self._counts[0]


def merge_counts(table: pa.Table) -> pa.Table:
    """Counts of words with each word once: `words` and `counts`."""
    # One thread: each one more would keep a table of all words.
    counted = table.group_by("words", use_threads=False).aggregate([("counts", "sum")])
    return counted.rename_columns({"counts_sum": "counts"}).combine_chunks()


def split_content(
    written: Sequence[Mapping[str, Any]], uri: str, split: int, num_classes: int
) -> dict[str, Any]:
    """One split as the manifest describes it.

    Args:
        written: what the second pass says of each file that it wrote.
        uri: folder of the files.
        split: number of the split; see `SPLITS`.
        num_classes: of the data.
    """
    parts = [part for part in written if part["split"] == split]
    longest = max((len(part["length_rows"]) for part in parts), default=1)
    lengths = np.zeros(longest, dtype=np.int64)
    classes = np.zeros(num_classes, dtype=np.int64)
    for part in parts:
        lengths[: len(part["length_rows"])] += part["length_rows"]
        classes += part["class_rows"]
    return {
        "files": [storage.join(uri, part["uri"]) for part in parts],
        "file_rows": [part["num_rows"] for part in parts],
        **{
            name: sum(part[name] for part in parts)
            for name in ("num_rows", "num_tokens", "num_known", "num_cut")
        },
        "class_rows": classes.tolist(),
        "length_rows": lengths.tolist(),
    }


def check_classes(source: str, train: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Refuse classes without training rows.

    Raises:
        DataError: there is one.
    """
    missing = [n for n, rows in zip(classes, train["class_rows"], strict=True) if not rows]
    if len(classes) - len(missing) < 2 or missing:
        names = ", ".join(map(repr, missing))
        raise DataError(f"{source}: no training row of class {names}")
