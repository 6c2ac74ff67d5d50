"""What the defaults reach on data sets, beside baselines that need no tuning.

    python tests/benchmarks/sets.py FOLDER [FOLDER ...] [--seeds 0,1,2]
        [--baseline linear.py --python PYTHON]

FOLDER is whatever `rnntune train --data FOLDER` takes, with a test split of its own. Prints a JSON
line a set: accuracy and macro F1 on its test rows (means over the seeds, and each), the seconds of
the run and the CPU seconds of its threads (which other programs disturb less), the settings that
`auto` chose. `--baseline` names a script that prints a JSON line a folder; `--python` has what it
needs.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from rnntune import Config, train


def main() -> None:
    """Run the defaults on each folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--seeds", type=_numbers, default=[0], metavar="N,N,...")
    parser.add_argument("--baseline")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    overrides = dict(item.split("=", 1) for item in args.set)
    for folder in args.folders:
        runs = [_run(folder, seed, overrides) for seed in args.seeds]
        line = {
            "set": pathlib.Path(folder).name,
            "rows": runs[0]["train_rows"],
            "accuracy": _mean(runs, "test_accuracy"),
            "macro_f1": _mean(runs, "test_macro_f1"),
            "seconds": _mean(runs, "wall_s"),
            "cpu_seconds": _mean(runs, "cpu_s"),
            "runs": [
                {name: run[name] for name in ("test_accuracy", "test_macro_f1", "wall_s", "cpu_s")}
                for run in runs
            ],
            "auto": {name: value for name, (value, _) in runs[0]["auto"].items()},
        }
        if args.baseline:
            done = subprocess.run(
                [args.python, args.baseline, folder], capture_output=True, text=True, check=True
            )
            line["baseline"] = json.loads(done.stdout.strip().splitlines()[-1])
        print(json.dumps(line), flush=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _run(folder: str, seed: int, overrides: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as aside:
        given = {
            "data.source": folder,
            "data.cache_dir": f"{aside}/cache",
            "output": f"{aside}/run",
            "train.seed": seed,
            **overrides,
        }
        start, cpu_start = time.perf_counter(), time.process_time()
        result = train(Config.load(None, given)).result
        seconds = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu_start}
        return {**result, **{name: round(value, 1) for name, value in seconds.items()}}


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return round(statistics.mean(run[name] for run in runs), 4)


if __name__ == "__main__":
    main()
