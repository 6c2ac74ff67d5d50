"""Memory and time of merging blocks' counts of words into a vocabulary, on the driver.

    python tests/benchmarks/vocabulary.py [--words 3000000] [--blocks 400]

Every word stands in two blocks or more. Prints one JSON object; memory is what the process takes
beyond what it took before.
"""

import argparse
import json
import threading
import time

import numpy as np
import psutil
import pyarrow as pa

from rnntune.data.block_summary import BlockSummary
from rnntune.data.stratification import Fractions
from rnntune.data.vocabulary import build_vocab, mean_letters, save_vocab


def blocks(num_words: int, num_blocks: int):
    """Counts of words a block at a time: each word twice, and frequent ones in each block."""
    random = np.random.default_rng(0)
    order = np.concatenate([random.permutation(num_words), random.permutation(num_words)])
    for part in np.array_split(order, num_blocks):
        numbers = np.unique(np.concatenate([np.arange(5_000), part]))
        words = pa.array([f"word{number}" for number in numbers.tolist()])
        yield pa.table({"words": words, "counts": random.integers(1, 9, len(words))})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--words", type=int, default=3_000_000)
    parser.add_argument("--blocks", type=int, default=400)
    parser.add_argument("--max-size", type=int, default=100_000)
    args = parser.parse_args()
    process = psutil.Process()
    before = peak = process.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    summary = BlockSummary(Fractions(validation=0.1, test=0.0))
    merge_s = 0.0
    for table in blocks(args.words, args.blocks):
        start = time.perf_counter()
        summary.add_counts(table)
        merge_s += time.perf_counter() - start
    start = time.perf_counter()
    counts = summary.counts()
    letters = mean_letters(counts)
    words = build_vocab(counts, args.max_size, 1)
    text = save_vocab(words)
    rank_s = time.perf_counter() - start
    ended.set()
    watcher.join()
    print(
        json.dumps(
            {
                "words": args.words,
                "blocks": args.blocks,
                "peak_mb": round((peak - before) / 1e6),
                "bytes_a_word": round((peak - before) / args.words),
                "merge_s": round(merge_s, 1),
                "rank_s": round(rank_s, 1),
                "vocabulary": len(words),
                "vocabulary_bytes": len(text.encode()),
                "mean_letters": letters,
            }
        )
    )


if __name__ == "__main__":
    main()
