"""Seconds of whole commands on this machine against a bare script that does the same work.

    python tests/benchmarks/local.py DATA_DIR [--rounds 3]

The bare script reads the prepared rows, builds the same network, trains it in a plain loop and
scores the test rows. It and the commands (`train` with a warm cache, `evaluate`, `predict`) take
turns, so that a noisy machine disturbs all alike; medians are compared, and CPU seconds are told
for machines that are busy with other work. `train` with an empty cache comes first, once. Prints
a JSON line, with the load of the machine beside it.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

SETTINGS = {
    "data.max_length": 256,
    "data.min_frequency": 2,
    "data.tokenizer": "basic_english",
    "data.extra_words": 0,
    "batching.batch_rows": 64,
    "model.embedding_dim": 64,
    "model.hidden_size": 32,
    "model.bidirectional": False,
    "model.pooling": "last",
    "model.embedding_dropout": 0.0,
    "model.embedding_std": 0.01,
    "model.dropout": 0.0,
    "model.word_dropout": 0.0,
    "model.row_dropout": 0.0,
    "model.word_vectors": None,
    "model.recurrent_length": None,
    "model.recurrent_weight": 1.0,
    "model.ngrams": 0,
    "train.epochs": 1,
    "train.learning_rate": 0.001,
    "train.warmup_fraction": 0.0,
    "train.label_smoothing": 0.05,
    "train.average_weights": False,
    "train.patience": 0,
}


def bare_epoch(model: Any, batches: Any, optimizer: Any) -> float:
    """Seconds of an epoch in a plain loop."""
    from torch.nn.functional import cross_entropy

    start = time.perf_counter()
    done = 0
    for batch in batches.epoch(0):
        optimizer.zero_grad()
        (logits,) = model(batch.ids, batch.lengths, same_length=batch.same_length)
        cross_entropy(logits, batch.labels, label_smoothing=0.05).backward()
        done += len(batch.labels)
        optimizer.step(done / batches.num_rows)
    return time.perf_counter() - start


def bare(cache: str, threads: int) -> None:
    """What a script would do that trains this one network on these rows, and nothing else."""
    import torch

    from rnntune.config.load import Config
    from rnntune.data.batching import EncodedRows
    from rnntune.data.encoded_files import read_encoded
    from rnntune.data.loader import Shard, TrainBatches, scoring_batches
    from rnntune.data.prepared import prepared_from_manifest
    from rnntune.model.network import Classifier
    from rnntune.training.optim import Optimizer

    begin = time.perf_counter()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = Config.load(None, SETTINGS)
    manifest, *_ = pathlib.Path(cache).glob("prepared/*/manifest.json")  # two names, one data
    prepared = prepared_from_manifest(json.loads(manifest.read_text()), from_cache=True)
    rows: dict[str, list[Shard]] = {}
    for name, split in prepared.splits.items():
        whole = EncodedRows.concatenate([read_encoded(file) for file in split.files])
        rows[name] = [Shard(num_rows=len(whole), load=lambda whole=whole: whole)]
    model = Classifier(config.model, prepared.num_words, len(prepared.classes), sparse=True)
    batches = TrainBatches(rows["train"], config.batching, seed=0)
    optimizer = Optimizer(model, config.train)
    train_s = bare_epoch(model, batches, optimizer)
    model.eval()
    correct = {}
    with torch.inference_mode():
        for name in ("validation", "test"):
            scored = scoring_batches(rows[name])
            correct[name] = sum(
                int(
                    (model(b.ids, b.lengths, same_length=b.same_length).argmax(1) == b.labels).sum()
                )
                for b in scored
            )
    accuracy = correct["test"] / prepared.splits["test"].num_rows
    whole_s = time.perf_counter() - begin
    rate = batches.num_rows / train_s
    print(json.dumps({"test_accuracy": accuracy, "train_rows_per_s": rate, "inside_s": whole_s}))


def flags(settings: dict[str, object]) -> list[str]:
    """Settings as they stand on a command line."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in settings.items()
    ]


def timed(command: list[str]) -> tuple[float, float, dict]:
    """Wall and CPU seconds of a Python command, and the JSON line that it printed last."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return round(wall_s, 2), round(cpu_s, 2), json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the bare script")
    parser.add_argument("--bare", action="store_true", help="DATA_DIR is a cache; run the script")
    args = parser.parse_args()
    if args.bare:
        bare(args.data, args.threads)
        return
    given = flags(SETTINGS)
    seconds: dict[str, list[float]] = {}
    cpu_seconds: dict[str, list[float]] = {}
    results: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = f"{folder}/cache"
        train = ["-m", "rnntune", "train", f"--data={args.data}", f"--data.cache_dir={cache}"]
        train += [*given, "--json", "--overwrite", f"--output={folder}/run"]
        test = str(pathlib.Path(args.data) / "test.csv")
        commands = {
            "bare": [__file__, cache, "--bare", f"--threads={args.threads}"],
            "train": train,
            "evaluate": ["-m", "rnntune", "evaluate", f"{folder}/run", f"--data={test}", "--json"],
            "predict": ["-m", "rnntune", "predict", f"{folder}/run", f"--input={test}", "--json"],
        }
        commands["predict"] += [f"--output={folder}/out", "--overwrite"]
        cold_s, cold_cpu_s, cold = timed(train)
        for _ in range(args.rounds):
            for name, command in commands.items():
                wall_s, cpu_s, result = timed(command)
                seconds.setdefault(name, []).append(wall_s)
                cpu_seconds.setdefault(name, []).append(cpu_s)
                results.setdefault(name, []).append(result)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {
        name: [round(result["train_rows_per_s"]) for result in results[name]]
        for name in ("bare", "train")
    }
    printed = {
        "cold_s": cold_s,
        "cold_cpu_s": cold_cpu_s,
        "cold_seconds": cold["seconds"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "train_seconds": results["train"][-1]["seconds"],
        "train_over_bare": round(median["train"] / median["bare"], 2),
        "train_over_bare_cpu": round(
            statistics.median(cpu_seconds["train"]) / statistics.median(cpu_seconds["bare"]), 2
        ),
        "train_rows_per_s": rates,
        "test_accuracy": {n: results[n][-1]["test_accuracy"] for n in ("bare", "train")},
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
