"""Trainings that share a machine: beside another training, and beside a core that is busy.

    python tests/benchmarks/neighbours.py DATA_DIR [--rounds 2] [--hidden-size 64]

`side_by_side_over_in_turn`: seconds of two commands `train` that run at the same time, over those
of the same two one after the other. `busy_over_one_thread`: rows/s of a training while an endless
loop takes a core, over those of a training on one thread without it. The data is prepared before.
What is compared takes turns; the median of the rounds' ratios is told. Prints a JSON line, with
the load of the machine before.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from local import SETTINGS, flags, timed


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """An endless loop in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def together(commands: list[list[str]]) -> float:
    """Seconds of commands that run at the same time."""
    start = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        for command in commands
    ]
    if any([process.wait() for process in running]):
        raise SystemExit("a training failed")
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    load = [round(value, 1) for value in os.getloadavg()]
    settings = {**SETTINGS, "model.hidden_size": args.hidden_size, "train.epochs": args.epochs}
    given = flags(settings)
    found: dict[str, list[float]] = {"side_by_side": [], "in_turn": [], "busy": [], "one": []}
    with tempfile.TemporaryDirectory() as folder:
        train = ["-m", "rnntune", "train", f"--data={args.data}", "--json", "--overwrite"]
        train += [f"--data.cache_dir={folder}/cache", *given]
        first, second = ([*train, f"--output={folder}/{name}"] for name in "ab")
        timed(first)  # prepares the data
        for _ in range(args.rounds):
            found["side_by_side"].append(together([first, second]))
            found["in_turn"].append(together([first]) + together([second]))
            with busy_core():
                found["busy"].append(timed(first)[2]["train_rows_per_s"])
            found["one"].append(timed([*first, "--train.num_threads=1"])[2]["train_rows_per_s"])

    def ratio(one: str, other: str) -> float:
        pairs = zip(found[one], found[other], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    printed = {
        "hidden_size": args.hidden_size,
        "side_by_side_over_in_turn": ratio("side_by_side", "in_turn"),
        "busy_over_one_thread": ratio("busy", "one"),
        "seconds_and_rows_per_s": {name: [round(v, 2) for v in vs] for name, vs in found.items()},
        "load": load,
    }
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
