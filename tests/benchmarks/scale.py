"""Preparation and one epoch of training on more and more rows, with a small object store.

    python tests/benchmarks/scale.py train.csv [--factors 1 10 30] [--store-mb 100]

The rows, in AG News form, are repeated; the last word of a row is its copy's own. Each factor
runs in a process and a cluster of its own. Memory is what a process does not share with others,
which leaves out the object store. Prints a JSON line for each factor.
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

import ray
from memory import Memory
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from rnntune.cluster.session import connect
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.training.api import train

MODEL = {
    "model.embedding_dim": 32,
    "model.hidden_size": 32,
    "train.epochs": 1,
    "train.resources_per_worker": {"CPU": 1},
}


def repeat(source, factor, target):
    """Write the rows of a file so many times, and give their number."""
    with source.open(newline="") as read, target.open("w", newline="") as write:
        rows = list(csv.reader(read))
        writer = csv.writer(write, quoting=csv.QUOTE_ALL)
        for copy in range(factor):
            writer.writerows([*row[:-1], f"{row[-1]} copy{copy}"] for row in rows)
    return len(rows) * factor


def measure(source, factor, store_bytes):
    """The figures of one factor."""
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder, "news.csv")
        num_rows = repeat(source, factor, data)
        uris = {"data.cache_dir": f"{folder}/cache", "output": f"{folder}/run"}
        config = Config.load(None, {"data.source": str(data), **uris, **MODEL})
        told = []
        terminal = Terminal(silent=True)
        terminal.line = told.append
        memory = Memory()
        with connect(num_cpus=os.cpu_count(), object_store_bytes=store_bytes):
            memory.start()
            start = time.perf_counter()
            result = train(config, terminal=terminal).result
            took_s = time.perf_counter() - start
            used = memory.stop()
            state = get_state_from_address(ray.get_runtime_context().gcs_address)
            store = get_memory_info_reply(state).store_stats
        seconds = result["seconds"]
        return {
            "factor": factor,
            "rows": num_rows,
            "csv_mb": round(data.stat().st_size / 1e6, 1),
            "prepare_s": seconds["prepare"],
            "prepare_rows_per_s": round(num_rows / seconds["prepare"]),
            "train_s": seconds["train"],
            "train_rows_per_s": round(result["train_rows_per_s"]),
            "total_s": round(took_s, 1),
            "driver_mb": used["driver_mb"],
            "worker_mb": used["worker_mb"],
            "spilled_mb": round(store.spilled_bytes_total / 1e6),
            "restored_mb": round(store.restored_bytes_total / 1e6),
            "test_accuracy": result["test_accuracy"],
            "told": [line for line in told if "store" in line],
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 10, 30])
    parser.add_argument("--store-mb", type=int, default=100)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.source, args.factors[0], args.store_mb * 1_000_000)))
        return
    for factor in args.factors:
        size = ["--factors", str(factor), "--store-mb", str(args.store_mb)]
        command = [sys.executable, __file__, str(args.source), *size, "--here"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
