"""Memory and time of merging blocks' counts of words into a vocabulary.

    python tests/benchmarks/vocabulary.py [--words 3000000] [--blocks 400] [--ways driver cluster]

Every word stands in two blocks or more. The driver merges them as they come, or tasks of a cluster
do. Each way runs in a process of its own and prints a JSON line; memory is what the process takes
beyond what it took before, and what the largest of Ray's workers takes in all.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
from memory import Memory

from rnntune.data.cluster_counts import ClusterCounts
from rnntune.data.vocabulary import build_vocab, save_vocab
from rnntune.data.word_counts import WordCounts


def block(part: np.ndarray, seed: int) -> pa.Table:
    """Counts of the words of one block, among them frequent ones that each block has."""
    numbers = np.unique(np.concatenate([np.arange(5_000), part]))
    words = pa.array([f"word{number}" for number in numbers.tolist()])
    return pa.table(
        {"words": words, "counts": np.random.default_rng(seed).integers(1, 9, len(words))}
    )


def parts(num_words: int, num_blocks: int) -> list[np.ndarray]:
    """The words of each block, each word twice."""
    random = np.random.default_rng(0)
    order = [random.permutation(num_words).astype(np.int32) for _ in range(2)]
    return np.array_split(np.concatenate(order), num_blocks)


def lists(table: pa.Table) -> pa.Table:
    """Counts as tokenized blocks have them: a row of lists."""
    offsets = pa.array([0, len(table)], pa.int32())
    return pa.table(
        {
            name: pa.ListArray.from_arrays(offsets, table[name].combine_chunks())
            for name in table.column_names
        }
    )


def cluster_blocks(num_words: int, num_blocks: int) -> tuple[list, int]:
    """References to the blocks, made by tasks, and their bytes."""
    import ray

    @ray.remote
    def make(part, seed):
        return lists(block(part, seed))

    refs = [make.remote(part, n) for n, part in enumerate(parts(num_words, num_blocks))]
    ray.wait(refs, num_returns=len(refs), fetch_local=False)
    return refs, sum(ray.get(refs[n]).nbytes for n in range(4)) // 4 * len(refs)


def measure(args: argparse.Namespace) -> dict[str, object]:
    """The figures of one way."""
    way = args.ways[0]
    counts: WordCounts | ClusterCounts = WordCounts()
    if way == "cluster":
        import ray

        ray.init(num_cpus=args.cpus or os.cpu_count(), include_dashboard=False)
        counts = ClusterCounts(*cluster_blocks(args.words, args.blocks))
    made = parts(args.words, args.blocks) if way == "driver" else []
    memory = Memory(0.01 if way == "driver" else 0.1)
    memory.start()
    start = time.perf_counter()
    making_s = 0.0
    for number, part in enumerate(made):
        began = time.perf_counter()
        table = block(part, number)
        making_s += time.perf_counter() - began
        counts.add(table)
    totals = counts.totals()
    merge_s = time.perf_counter() - start - making_s
    start = time.perf_counter()
    text = save_vocab(build_vocab(counts.top(args.max_size, 1), args.max_size, 1))
    return {
        "way": way,
        "words": args.words,
        "blocks": args.blocks,
        "merge_s": round(merge_s, 1),
        "rank_s": round(time.perf_counter() - start, 1),
        "tokens": totals.num_tokens,
        "mean_letters": totals.mean_letters,
        "vocabulary_digest": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        **memory.stop(),
    }


def main() -> None:
    """Measure each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--words", type=int, default=3_000_000)
    parser.add_argument("--blocks", type=int, default=400)
    parser.add_argument("--max-size", type=int, default=100_000)
    parser.add_argument("--ways", nargs="+", default=["driver", "cluster"])
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args)))
        return
    for way in args.ways:
        command = [sys.executable, __file__, *sys.argv[1:], "--ways", way, "--here"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
