"""Memory of the driver, the trial processes and the object store over many trials.

    python tests/benchmarks/search_memory.py [--trials 50] [--cache FOLDER]

Prints one JSON object with a curve: a point each time a trial ends.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rnntune.cluster.session import connect
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.tuning.api import tune


class Curve(Terminal):
    """Notes memory whenever more trials are over."""

    def __init__(self, output: str) -> None:
        super().__init__(silent=True)
        self._output = output
        self.points: list[dict[str, Any]] = []

    def update(self, text: str, drawn: Any = None) -> None:  # noqa: ARG002
        over = int(text.split(" ", 1)[0])
        if self.points and self.points[-1]["over"] == over:
            return
        self.points.append(
            {
                "over": over,
                "driver_mb": round(resident_mb("self"), 1),
                "trials_mb": [round(resident_mb(pid), 1) for pid in self._trial_pids()],
                "object_store_mb": round(store_mb(), 2),
            }
        )

    def _trial_pids(self) -> list[str]:
        pids = set()
        for log in Path(self._output, "search").glob("trial-*/log.txt"):
            pid = str(json.loads(log.read_text().splitlines()[0])["pid"])
            if Path("/proc", pid).exists():
                pids.add(pid)
        return sorted(pids)


def resident_mb(pid: str) -> float:
    for line in Path("/proc", pid, "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def store_mb() -> float:
    import ray

    free = ray.available_resources().get("object_store_memory", 0)
    return float(ray.cluster_resources().get("object_store_memory", 0) - free) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--cache", default="~/.cache/rnntune")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connect(num_cpus=2):
        output = f"{folder}/run"
        curve = Curve(output)
        config = Config.load(
            None,
            {
                "output": output,
                "data.cache_dir": args.cache,
                "train.epochs": 1,
                "train.resources_per_worker": {"CPU": 1},
                "model.embedding_dim": 16,
                "tune.space": {
                    "model.hidden_size": {"choice": [16, 32, 64]},
                    "train.learning_rate": {"loguniform": [0.001, 0.02]},
                },
                "tune.num_trials": args.trials,
            },
        )
        tune(config, terminal=curve)
    points = [point for point in curve.points if point["over"] >= 2]
    print(
        json.dumps(
            {
                "trials": args.trials,
                "driver_growth_mb": round(points[-1]["driver_mb"] - points[0]["driver_mb"], 1),
                "object_store_growth_mb": round(
                    points[-1]["object_store_mb"] - points[0]["object_store_mb"], 2
                ),
                "curve": curve.points,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
