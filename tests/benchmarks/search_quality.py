"""ASHA with TPE against plain random search that trains the same number of epochs.

    python tests/benchmarks/search_quality.py --data FOLDER [--rows N] [--seeds 5] [--trials 12]

For each seed the guided search runs first; the random one then gets as many full trials as the
epochs of the first allow. Prints one JSON object with every best validation accuracy.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rnntune.cluster.session import connect
from rnntune.config.load import Config
from rnntune.tuning.api import tune


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="sample")
    parser.add_argument("--rows", type=int, default=0, help="first rows of train.csv; 0: all")
    parser.add_argument("--validation-fraction", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--cache", default="~/.cache/rnntune")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connect(num_cpus=2):
        base = {
            "data.source": cut(args.data, args.rows, folder),
            "data.cache_dir": args.cache,
            "data.validation_fraction": args.validation_fraction,
            "train.epochs": args.epochs,
            "train.resources_per_worker": {"CPU": 1},
        }
        found = [compare(base, args.trials, seed, folder) for seed in range(args.seeds)]
    guided = [pair["guided"]["best"] for pair in found]
    plain = [pair["random"]["best"] for pair in found]
    print(
        json.dumps(
            {
                "guided": summary(guided),
                "random": summary(plain),
                "guided_is_better_or_equal": sum(
                    a >= b for a, b in zip(guided, plain, strict=True)
                ),
                "seeds": found,
            },
            indent=1,
        )
    )


def cut(source: str, rows: int, folder: str) -> str:
    """A folder with the first rows of a folder in AG News form."""
    if not rows:
        return source
    target = Path(folder, "data")
    target.mkdir()
    with Path(source, "train.csv").open(encoding="utf-8") as file:
        lines = [line for line, _ in zip(file, range(rows), strict=False)]
    (target / "train.csv").write_text("".join(lines), encoding="utf-8")
    for name in ("test.csv", "classes.txt"):
        if Path(source, name).exists():
            (target / name).write_bytes(Path(source, name).read_bytes())
    return str(target)


def compare(base: dict[str, Any], trials: int, seed: int, folder: str) -> dict[str, Any]:
    guided = one(base, "tpe", "asha", trials, seed, f"{folder}/guided-{seed}")
    epochs = base["train.epochs"]
    same = max(1, round(guided["epochs"] / epochs))
    plain = one(base, "random", "none", same, seed, f"{folder}/random-{seed}")
    return {"seed": seed, "guided": guided, "random": plain}


def one(
    base: dict[str, Any], searcher: str, scheduler: str, trials: int, seed: int, output: str
) -> dict[str, Any]:
    done = tune(
        Config.load(
            None,
            {
                **base,
                "output": output,
                "tune.searcher": searcher,
                "tune.scheduler": scheduler,
                "tune.num_trials": trials,
                "tune.seed": seed,
            },
        )
    )
    return {
        "best": done.result["validation_accuracy"],
        "test": done.result["test_accuracy"],
        "trials": done.result["num_trials"],
        "epochs": done.result["trained_epochs"],
        "seconds": done.result["seconds"]["total"],
    }


def summary(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(statistics.mean(values), 5),
        "sd": round(statistics.stdev(values), 5) if len(values) > 1 else None,
        "min": round(min(values), 5),
        "max": round(max(values), 5),
    }


if __name__ == "__main__":
    main()
