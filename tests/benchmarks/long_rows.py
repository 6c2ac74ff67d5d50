"""Memory that preparing rows of long texts takes, in this process and through Ray Data.

    python tests/benchmarks/long_rows.py [--rows 1000 10000] [--row-kb 40] [--ways process ray]

Words of a text are drawn as real text has them: the n-th most frequent one 1/n as often as the
first. Each number of rows runs in a process of its own. Prints a JSON line for each.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from memory import Memory

from rnntune.config.load import Config
from rnntune.data import passes
from rnntune.data.preprocess import prepare

_WORDS = 200_000


def write_rows(target: pathlib.Path, num_rows: int, row_bytes: int) -> None:
    """A CSV file of two classes."""
    random = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(_WORDS)], dtype=object)
    per_row = row_bytes // 9  # letters, digits and a space
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(num_rows):
            ranks = np.exp(random.random(per_row) * np.log(_WORDS)).astype(np.int64)
            writer.writerow([" ".join(words[ranks - 1]), f"class {row % 2}"])


def measure(num_rows: int, row_kb: int, way: str, num_cpus: int | None) -> dict[str, object]:
    """The figures of one preparation."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "rows.csv")
        write_rows(source, num_rows, row_kb * 1_000)
        cache = f"{folder}/cache"
        settings = {"data.source": str(source), "data.cache_dir": cache, "data.test_fraction": 0.1}
        data = Config.load(None, settings).data
        passes.LOCAL_BYTES = 1 << 60 if way == "process" else 0
        if way == "ray":
            import ray

            ray.init(num_cpus=num_cpus or os.cpu_count(), include_dashboard=False)
        memory = Memory()
        memory.start()
        start = time.perf_counter()
        prepared = prepare(data, lambda _: None)
        took_s = time.perf_counter() - start
        return {
            "rows": num_rows,
            "text_mb": round(source.stat().st_size / 1e6, 1),
            "way": way,
            "tokens": sum(split.num_tokens for split in prepared.splits.values()),
            "prepare_s": round(took_s, 1),
            **memory.stop(),
        }


def main() -> None:
    """Measure each number of rows each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--row-kb", type=int, default=40)
    parser.add_argument("--ways", nargs="+", default=["process", "ray"])
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.rows[0], args.row_kb, args.ways[0], args.cpus)))
        return
    for way in args.ways:
        for rows in args.rows:
            size = ["--rows", str(rows), "--row-kb", str(args.row_kb), "--ways", way]
            size += ["--cpus", str(args.cpus)] if args.cpus else []
            command = [sys.executable, __file__, *size, "--here"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
