"""Counts of words merged by tasks of a cluster: the driver holds the words that are kept.

A task merges the blocks of a group and sorts their words by a hash; another merges one range of
the hash over all groups. So each word is in one range, with all its occurrences, and a range knows
what may be left out: words that are rarer than asked for, and those behind as many more frequent
ones of the same range as are asked for. Nothing is left out before, so the counts are exact.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rnntune.data.vocabulary import hash_words, top_words
from rnntune.data.word_counts import CountTotals, WordCounts, block_counts

__all__ = ["ClusterCounts", "hash_range", "join_tops", "sort_by_hash"]
_RANGE_WORDS = 1 << 20
"""Words of all groups that one task merges; they take about 200 bytes each meanwhile."""
_GROUP_BYTES = 32 << 20
"""Of tokenized blocks, those whose words one task merges first."""


class ClusterCounts:
    """Words and how often they occur in training rows, merged on the connected cluster.

    Args:
        blocks: references to tables of tokenized blocks.
        num_bytes: of all of them.
    """

    columns = ()
    """Of tokenized blocks, those that must come to the driver."""

    def __init__(self, blocks: Sequence[Any], num_bytes: int) -> None:
        self._blocks, self._num_bytes = blocks, num_bytes
        self._changes = WordCounts()
        self._ranges: list[Any] | None = None
        self._totals = CountTotals()

    def add(self, table: pa.Table) -> None:
        """Take in changes of counts, before anything is asked: `words` and `counts`."""
        self._changes.add(table)

    def totals(self) -> CountTotals:
        """What all counts together say."""
        self._merge()
        return self._totals

    def top(self, max_size: int | None, min_frequency: int) -> pa.Table:
        """The most frequent words with their counts; see `top_words`."""
        import ray

        task: Any = ray.remote(top_words)
        found = [task.remote(ref, max_size, min_frequency) for ref in self._merge()]
        return join_tops(map(ray.get, found), max_size)

    def _merge(self) -> list[Any]:
        """References to the merged tables, one a range."""
        if self._ranges is None:
            import ray

            merge: Any = ray.remote(_merge_range).options(num_returns=2)
            groups, num_words = self._groups()
            num_ranges = max(1, math.ceil(num_words / _RANGE_WORDS))
            made = [merge.remote(groups, n, num_ranges) for n in range(num_ranges)]
            self._ranges = [table for table, _ in made]
            self._totals = sum(ray.get([totals for _, totals in made]), CountTotals())
        return self._ranges

    def _groups(self) -> tuple[list[Any], int]:
        """References to the groups' tables, as `sort_by_hash` makes them, and their words."""
        import ray

        task: Any = ray.remote(_merge_group).options(num_returns=2)
        num_groups = max(1, math.ceil(self._num_bytes / _GROUP_BYTES))
        size = max(1, math.ceil(len(self._blocks) / num_groups))
        starts = range(0, len(self._blocks), size)
        made = [task.remote(self._blocks[start : start + size]) for start in starts]
        changes = sort_by_hash(self._changes.table())
        groups = [table for table, _ in made]
        groups += [ray.put(changes)] if len(changes) else []
        return groups, sum(ray.get([number for _, number in made]))


def sort_by_hash(counts: pa.Table) -> pa.Table:
    """`words`, each once, and `counts` in the order of the `hashes` of the words, uint64."""
    hashes = hash_words(counts["words"].combine_chunks())
    order = np.argsort(hashes)
    return counts.take(order).append_column("hashes", pa.array(hashes[order]))


def hash_range(tables: Iterable[pa.Table], number: int, num_ranges: int) -> WordCounts:
    """The words of one range of the hash, merged.

    Args:
        tables: as `sort_by_hash` gives them.
        number: of the range, from 0.
        num_ranges: into which all hashes are divided.
    """
    inner = [(n << 64) // num_ranges for n in range(1, num_ranges)]
    merged = WordCounts()
    for table in tables:
        hashes = table["hashes"].to_numpy()
        bounds = [0, *np.searchsorted(hashes, np.array(inner, np.uint64)).tolist(), len(hashes)]
        start, end = list(itertools.pairwise(bounds))[number]
        merged.add(table.select(["words", "counts"]).slice(start, end - start))
    return merged


def join_tops(tops: Iterable[pa.Table], max_size: int | None) -> pa.Table:
    """The most frequent words of all ranges, of what `top_words` gives for each."""
    kept: list[pa.Table] = []
    for top in tops:
        kept.append(top)
        if max_size is not None:
            kept = [top_words(pa.concat_tables(kept), max_size, 1)]
    return pa.concat_tables(kept)


def _merge_group(blocks: Sequence[Any]) -> tuple[pa.Table, int]:
    import ray

    merged = WordCounts()
    for block in blocks:
        merged.add(block_counts(ray.get(block)))
    table = sort_by_hash(merged.table())
    return table, len(table)


def _merge_range(groups: Sequence[Any], number: int, num_ranges: int) -> tuple[pa.Table, Any]:
    import ray

    merged = hash_range(map(ray.get, groups), number, num_ranges)
    return merged.table(), merged.totals()
