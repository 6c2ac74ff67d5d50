import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnntune.config.load import Config
from rnntune.data.block_tasks import tokenize_blocks
from rnntune.data.cluster_counts import ClusterCounts, hash_range, join_tops, sort_by_hash
from rnntune.data.sources import read_blocks, resolve_source
from rnntune.data.stratification import Fractions
from rnntune.data.vocabulary import build_vocab, save_vocab, top_words
from rnntune.data.word_counts import CountTotals, WordCounts, block_counts

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
BLOCKS = st.lists(st.dictionaries(WORDS, st.integers(-2, 3)), min_size=1, max_size=9)


def counted(counts: dict[str, int]) -> pa.Table:
    words = pa.array(counts, pa.string())
    return pa.table({"words": words, "counts": pa.array(counts.values(), pa.int64())})


def merged(tables) -> WordCounts:
    counts = WordCounts()
    for table in tables:
        counts.add(table)
    return counts


def by_ranges(tables, group_size, num_ranges) -> list[WordCounts]:
    """What the tasks of a cluster merge, one a range."""
    starts = range(0, len(tables), group_size)
    groups = [sort_by_hash(merged(tables[n : n + group_size]).table()) for n in starts]
    return [hash_range(groups, number, num_ranges) for number in range(num_ranges)]


def same_vocabulary(tables, group_size, num_ranges, max_size, min_frequency) -> None:
    whole = merged(tables)
    ranges = by_ranges(tables, group_size, num_ranges)
    assert sum((r.totals() for r in ranges), CountTotals()) == whole.totals()
    tops = [top_words(r.table(), max_size, min_frequency) for r in ranges]
    joined = join_tops(tops, max_size)
    if max_size is not None:
        assert len(joined) <= max_size
    text = save_vocab(build_vocab(joined, max_size, min_frequency))
    assert text == save_vocab(build_vocab(whole.table(), max_size, min_frequency))


@given(
    BLOCKS, st.integers(1, 9), st.integers(1, 7), st.none() | st.integers(0, 5), st.integers(1, 3)
)
def test_ranges_of_a_hash_give_the_vocabulary_of_one_merge(
    blocks, group_size, num_ranges, max_size, min_frequency
):
    tables = [counted(block) for block in blocks]
    same_vocabulary(tables, group_size, num_ranges, max_size, min_frequency)


def test_each_word_is_in_one_range():
    words = [f"w{number}" for number in range(1_000)]
    blocks = [counted(dict.fromkeys(words[n : n + 500], 1)) for n in (0, 250, 500)]
    ranges = [r.table()["words"].to_pylist() for r in by_ranges(blocks, 2, 4)]
    assert sorted(word for found in ranges for word in found) == sorted(words)
    assert min(map(len, ranges)) > 150


@pytest.mark.slow
def test_ag_news_has_the_same_vocabulary_by_ranges(ag_news_dir):
    source = resolve_source(Config.load(None, {"data.source": str(ag_news_dir)}).data)
    blocks = [
        tokenized
        for table in read_blocks(source, source.train[0])
        for tokenized in tokenize_blocks(
            table,
            clean=source.clean,
            tokenizer="basic_english",
            max_tokens=256,
            seed=0,
            fractions=Fractions(validation=0.05, test=0.0),
            origin=0,
            compare_texts=True,
        )
    ]
    tables = [block_counts(block) for block in blocks]
    same_vocabulary(tables, 3, 5, None, 1)
    same_vocabulary(tables, 3, 5, 20_000, 2)


@pytest.mark.ray
def test_tasks_of_a_cluster_merge_what_one_process_would(ray_session, monkeypatch):
    import ray

    monkeypatch.setattr("rnntune.data.cluster_counts._RANGE_WORDS", 50)
    random = np.random.default_rng(0)
    lists = [[f"w{n}" for n in random.choice(400, 60, replace=False)] for _ in range(8)]
    kinds = {"words": pa.list_(pa.string()), "counts": pa.list_(pa.int64())}
    values = {"words": lists, "counts": [random.integers(0, 5, 60).tolist() for _ in lists]}
    tokenized = pa.table({n: pa.array(values[n], kind) for n, kind in kinds.items()})
    changes = counted({"w1": -1, "w2": 3, "new": 9})
    # Groups of two blocks, of one or several rows each.
    refs = [ray.put(tokenized.slice(start, 2)) for start in range(0, 8, 2)]
    of_cluster = ClusterCounts(refs, 128 << 20)
    here = merged([block_counts(tokenized), changes])
    of_cluster.add(changes)
    assert of_cluster.totals() == here.totals()
    for max_size, min_frequency in ((None, 1), (20, 1), (10_000, 4)):
        found, wanted = (c.top(max_size, min_frequency) for c in (of_cluster, here))
        assert build_vocab(found, max_size, min_frequency) == build_vocab(
            wanted, max_size, min_frequency
        )
