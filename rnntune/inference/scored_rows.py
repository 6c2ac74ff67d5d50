"""What every evaluation keeps of scored rows: bad ones, and if asked the wrong ones."""

import abc

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rnntune.errors import DataError

__all__ = ["MOST_ERRORS", "ScoredRows"]
_MAX_PROBLEMS = 20
MOST_ERRORS = 100_000
"""Wrong rows that are kept: those with the highest probability."""


class ScoredRows(abc.ABC):
    """Rows that are scored, block by block.

    Args:
        on_bad_rows: 'error' or 'skip'.
        keep_errors: keep the rows that are wrong.
    """

    def __init__(self, on_bad_rows: str, *, keep_errors: bool) -> None:
        self._on_bad_rows, self._keep_errors = on_bad_rows, keep_errors
        self._errors: list[pa.Table] = []
        self.problems: list[str] = []
        self.rows = self.skipped = self.num_errors = 0

    def add(self, block: pa.Table) -> None:
        """Count a block of rows: `file`, `row`, `text`, `problem`, `label`, `probabilities`.

        Raises:
            DataError: a bad row that is not to be skipped.
        """
        bad = block.filter(pc.is_valid(block["problem"]))
        if bad.num_rows:
            self._note_bad(bad)
        good = block.filter(pc.is_null(block["problem"]))
        if not good.num_rows:
            return
        wrong = self.count(good)
        self.rows += good.num_rows
        if self._keep_errors:
            self._errors.append(good.filter(pa.array(wrong)))
            self.num_errors += int(wrong.sum())
            if sum(table.num_rows for table in self._errors) > 2 * MOST_ERRORS:
                self._errors = [self._surest()]

    @abc.abstractmethod
    def count(self, good: pa.Table) -> npt.NDArray[np.bool_]:
        """Count rows without a problem; gives which of them are wrong, bool (rows,)."""

    @staticmethod
    def probabilities(rows: pa.Table) -> npt.NDArray[np.float32]:
        """The probabilities of rows, float32 (rows, classes)."""
        flat = pc.list_flatten(rows["probabilities"].combine_chunks()).to_numpy()
        shaped: npt.NDArray[np.float32] = flat.reshape(rows.num_rows, -1).copy()
        return shaped

    def _note_bad(self, bad: pa.Table) -> None:
        self.skipped += bad.num_rows
        for row in bad.slice(0, max(_MAX_PROBLEMS - len(self.problems), 0)).to_pylist():
            self.problems.append(f"{row['file']}: row {row['row']}: {row['problem']}")
        if self._on_bad_rows == "error":  # blocks come in order, so this is the first bad row
            raise DataError(f"{self.problems[0]}; data.on_bad_rows: skip leaves such rows out")

    def check_rows(self, source: str) -> None:
        """Refuse an evaluation without rows.

        Raises:
            DataError: no row was scored.
        """
        if not self.rows:
            first = f"; the first: {self.problems[0]}" if self.problems else ""
            raise DataError(f"{source}: no row that can be scored{first}")

    def kept_errors(self) -> pa.Table:
        """The wrong rows, of very many the surest, in the order in which they came."""
        return self._surest()

    def _surest(self) -> pa.Table:
        table = pa.concat_tables(self._errors)
        if table.num_rows <= MOST_ERRORS:
            return table
        surest = np.argsort(-self.probabilities(table).max(axis=1), kind="stable")[:MOST_ERRORS]
        return table.take(pa.array(np.sort(surest)))
