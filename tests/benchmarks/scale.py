"""Preparation and one epoch of training on more and more rows, with a small object store.

    python tests/benchmarks/scale.py train.csv [--factors 1 10 30] [--workers 1 2] [--store-mb 100]

The rows, in AG News form, are repeated with new words in each copy; see `corpus`. Each factor runs
in a process and a cluster of its own, one worker a CPU, with each number of workers in turn; the
first prepares, the others find the cache. Memory is what a process does not share with others,
which leaves out the object store. What ranks read is what their processes read of files, start-up
included. Prints a JSON line for each training.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import psutil
import ray
from corpus import Corpus
from local import SETTINGS
from memory import Memory
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from rnntune.cluster.session import connect
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.training.api import train

MODEL = {
    **SETTINGS,
    "model.embedding_dim": 32,
    "train.resources_per_worker": {"CPU": 1},
}


def run(uris, num_workers):
    """The figures of one training."""
    config = Config.load(None, {**uris, **MODEL, "train.num_workers": num_workers})
    told = []
    terminal = Terminal(silent=True)
    terminal.line = told.append
    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    before = get_memory_info_reply(state).store_stats
    memory = Memory(0.25)
    memory.start()
    start = time.perf_counter()
    result = train(config, terminal=terminal).result
    took_s = time.perf_counter() - start
    used = memory.stop()
    store = get_memory_info_reply(state).store_stats
    return {
        "workers": num_workers,
        "prepare_s": result["seconds"]["prepare"],
        "train_s": result["seconds"]["train"],
        "train_rows_per_s": round(result["train_rows_per_s"]),
        "total_s": round(took_s, 1),
        "driver_mb": used["driver_mb"],
        "worker_mb": used["worker_mb"],
        "rank_read_mb": memory.rank_reads_mb(),
        "spilled_mb": round((store.spilled_bytes_total - before.spilled_bytes_total) / 1e6),
        "restored_mb": round((store.restored_bytes_total - before.restored_bytes_total) / 1e6),
        "padding": result["padding_fraction"],
        "test_accuracy": result["test_accuracy"],
        "told": [line for line in told if "store" in line],
    }


def write_copies(source, data, factor):
    """Write the rows of a factor, and say what they are."""
    corpus = Corpus(source)
    num_rows = corpus.write(data, factor)
    return {
        "factor": factor,
        "rows": num_rows,
        "csv_mb": round(data.stat().st_size / 1e6, 1),
        "distinct_words": corpus.num_words,
        "heaps_exponent": round(corpus.exponent, 3),
    }


def measure(args):
    """Print the figures of one factor."""
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder, "news.csv")
        # In another process: the memory of this one is measured.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            made = pool.apply(write_copies, (args.source, data, args.factors[0]))
        cache = pathlib.Path(folder, "cache")
        for number, num_workers in enumerate(args.workers):
            uris = {
                "data.source": str(data),
                "data.cache_dir": str(cache),
                "output": f"{folder}/run{number}",
            }
            with connect(num_cpus=os.cpu_count(), object_store_bytes=args.store_mb * 1_000_000):
                figures = run(uris, num_workers)
            train_files = cache.rglob("train*.parquet")
            made["train_files_mb"] = round(sum(f.stat().st_size for f in train_files) / 1e6, 1)
            load = [round(each, 1) for each in psutil.getloadavg()]
            print(json.dumps({**made, **figures, "load": load}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 10, 30])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--store-mb", type=int, default=100)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        measure(args)
        return
    for factor in args.factors:
        size = ["--store-mb", str(args.store_mb), "--workers", *map(str, args.workers)]
        command = [sys.executable, __file__, str(args.source), "--factors", str(factor), *size]
        subprocess.run([*command, "--here"], check=True)


if __name__ == "__main__":
    main()
