"""Counts of words over all blocks, merged in this process, and what is asked of them."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from rnntune.data.vocabulary import letter_totals, top_words

__all__ = ["CountTotals", "WordCounts", "block_counts"]
_NO_COUNTS = pa.table({"words": pa.array([], pa.string()), "counts": pa.array([], pa.int64())})
_MERGED_WORDS = 1 << 18
"""Words and counts that come together before they are merged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountTotals:
    """What all counts together say.

    Args:
        num_tokens: occurrences of all words.
        num_letters: characters of the occurrences of words that are no punctuation.
        num_lettered: these occurrences.
    """

    num_tokens: int = 0
    num_letters: int = 0
    num_lettered: int = 0

    def __add__(self, other: "CountTotals") -> "CountTotals":
        return CountTotals(
            num_tokens=self.num_tokens + other.num_tokens,
            num_letters=self.num_letters + other.num_letters,
            num_lettered=self.num_lettered + other.num_lettered,
        )

    @property
    def mean_letters(self) -> float:
        """The mean number of letters of a word, without punctuation; 0 if there are none."""
        return self.num_letters / max(self.num_lettered, 1)


class WordCounts:
    """Words and how often they occur in training rows, merged as they come."""

    columns = ("words", "counts")
    """Of tokenized blocks, those that `block_counts` takes for `add`."""

    def __init__(self) -> None:
        self._counts = [_NO_COUNTS]
        self._num_pending = 0

    def add(self, table: pa.Table) -> None:
        """Take in `words` and their `counts`, or changes of these."""
        new = table.filter(pc.not_equal(table["counts"], 0))
        self._counts.append(new)
        self._num_pending += len(new)
        if self._num_pending > max(len(self._counts[0]), _MERGED_WORDS):
            self.table()

    def table(self) -> pa.Table:
        """The `words`, each once, and the `counts` of their occurrences."""
        if len(self._counts) > 1:
            # One thread: each one more would keep a table of all words.
            groups = pa.concat_tables(self._counts).group_by("words", use_threads=False)
            summed = groups.aggregate([("counts", "sum")]).combine_chunks()
            self._counts = [summed.rename_columns({"counts_sum": "counts"})]
            self._num_pending = 0
        return self._counts[0]

    def totals(self) -> CountTotals:
        """What all counts together say."""
        counts = self.table()
        num_letters, num_lettered = letter_totals(counts)
        return CountTotals(
            num_tokens=pc.sum(counts["counts"]).as_py() or 0,
            num_letters=num_letters,
            num_lettered=num_lettered,
        )

    def top(self, max_size: int | None, min_frequency: int) -> pa.Table:
        """The most frequent words with their counts; see `top_words`."""
        return top_words(self.table(), max_size, min_frequency)


def block_counts(table: pa.Table) -> pa.Table:
    """The words of tokenized blocks, one a row, as `WordCounts.add` takes them."""
    return pa.table(
        {name: pc.list_flatten(table[name].combine_chunks()) for name in WordCounts.columns}
    )
