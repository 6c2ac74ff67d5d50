"""Training rows/s on AG News: rnntune against the same model and batches in a bare loop.

    python tests/benchmarks/throughput.py DATA_DIR [--baseline notebook_loop.py] [--rounds 2]

`train` runs in this process; `ray` and `two_workers` are one and two workers of Ray Train.
The measurements alternate, so that a noisy machine disturbs all alike; the medians are compared.
Prints a JSON line.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import torch
from local import SETTINGS, bare_epoch

from rnntune.cluster.session import connect
from rnntune.config.load import Config
from rnntune.data.loader import TrainBatches
from rnntune.data.preprocess import prepare
from rnntune.data.sharing import share_split
from rnntune.model.network import Classifier
from rnntune.training.api import train
from rnntune.training.optim import Optimizer


def bare(config: Config, num_threads: int) -> float:
    """Rows/s of the same model, batches and optimizer in a plain loop."""
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    prepared = prepare(config.data)
    model = Classifier(config.model, prepared.num_words, len(prepared.classes), sparse=True)
    parts = [part.part() for part in share_split(prepared, "train", in_store=False)]
    batches = TrainBatches(parts, config.batching, seed=0)
    optimizer = Optimizer(model, config.train)
    return batches.num_rows / bare_epoch(model, batches, optimizer)


def whole(config: Config, folder: str, **overrides: object) -> dict[str, float]:
    """The result of `train`."""
    names = {name.replace("__", "."): value for name, value in overrides.items()}
    return train(config.override({**names, "output": folder}), overwrite=True).result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--baseline", type=pathlib.Path)
    parser.add_argument("--baseline-rows", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    config = Config.load(None, {"data.source": args.data, **SETTINGS})
    rates: dict[str, list[float]] = {"bare": [], "train": [], "ray": [], "two_workers": []}
    rates["notebook"] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            rates["bare"].append(bare(config, args.threads))
            rates["train"].append(whole(config, folder + "/a")["train_rows_per_s"])
            with connect():
                rates["ray"].append(whole(config, folder + "/b")["train_rows_per_s"])
                two = whole(config, folder + "/c", train__num_workers=2)
                rates["two_workers"].append(two["train_rows_per_s"])
            if args.baseline:
                command = [sys.executable, str(args.baseline), args.data, "--model", "packed"]
                command += ["--rows", str(args.baseline_rows)] if args.baseline_rows else []
                printed = subprocess.run(command, check=True, capture_output=True, text=True)
                rates["notebook"].append(json.loads(printed.stdout)["rows_per_s"])
    median = {name: statistics.median(values) for name, values in rates.items() if values}
    found = {f"{name}_rows_per_s": round(value, 1) for name, value in median.items()}
    found["train_over_bare"] = round(median["train"] / median["bare"], 3)
    found["two_workers_over_one"] = round(median["two_workers"] / median["ray"], 3)
    if "notebook" in median:
        found["train_over_notebook"] = round(median["train"] / median["notebook"], 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
