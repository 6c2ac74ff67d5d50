"""What the driver keeps of the blocks beside counts of words: labels, problems, splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rnntune import storage
from rnntune.data.stratification import ClassHashes, Fractions
from rnntune.errors import DataError

__all__ = ["ARRAYS", "SCALARS", "BlockSummary", "check_classes", "split_content"]
SCALARS = ["origin", "file", "first_row", "num_rows", "names", "name_rows"]
SCALARS += ["num_problems", "problems"]
ARRAYS = ["held_out", "class_rows", "lowest_ids", "lowest_hashes"]


class BlockSummary:
    """What the driver keeps of the first pass: names of labels, problems, hashes.

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

    def held_out(self) -> dict[int, npt.NDArray[np.uint64]]:
        """Sorted hashes of the texts of splits that have files of their own."""
        return {n: np.unique(np.concatenate(found)) for n, found in self._held_out.items()}


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
