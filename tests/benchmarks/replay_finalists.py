"""What a search of so many random configurations loses by early stopping, by the replay table.

    python tests/benchmarks/replay_finalists.py [--seeds 400]

Each seed draws configurations of the table. All of them are trained to their end (`none`), or
rnntune's ASHA stops them with two at once (`asha`), the best k after one epoch go on (`k`), or the
semifinal of `tune` decides (`semifinal`). The
regret is the best validation accuracy of the whole table less the best one that was seen, in
points; p is that of a paired test (Wilcoxon) of 3 finalists against ASHA over the first 50 seeds.
Prints a JSON line for each set and number of configurations.
"""

import argparse
import json

import numpy as np
from replay import Curves, read_table
from scipy.stats import wilcoxon

from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.scheduler import Asha, OneEpoch

FINALISTS = (2, 3, 5)


def stopped_by_asha(scores: np.ndarray) -> tuple[float, int]:
    """The best score that is seen with two trials at once, and the epochs that were trained.

    Args:
        scores: float (configurations, epochs).
    """
    num_epochs = scores.shape[1]
    asha = Asha(grace_epochs=1, reduction_factor=3, max_epochs=num_epochs)
    waiting, running = list(range(len(scores))), dict[int, int]()
    best, spent = 0.0, 0
    while waiting or running:
        while waiting and len(running) < 2:
            running[waiting.pop(0)] = 0
        for number in list(running):
            running[number] += 1
            spent += 1
            score = float(scores[number, running[number] - 1])
            best = max(best, score)
            stop = asha.on_result(number, running[number], score)
            if stop or running[number] == num_epochs:
                del running[number]
    return best, spent


def after_semifinal(scores: np.ndarray, losses: np.ndarray) -> tuple[float, int]:
    """The best score that is seen by the rules of `tune`, and the epochs that were trained.

    Args:
        scores: float (configurations, epochs).
        losses: float (configurations, epochs).
    """
    num, num_epochs = scores.shape
    middle = (num_epochs + 1) // 2
    aims = Aims((Metric("validation_accuracy"),))
    rules = OneEpoch(grace_epochs=1, num_finalists=None, aims=aims, longest=num_epochs)
    num_on, few = rules.num_going_on(num)
    on = np.argsort(losses[:, 0], kind="stable")[:num_on]
    best = on[np.argsort(-scores[on, :middle].max(axis=1), kind="stable")[:few]]
    seen = max(scores[:, 0].max(), scores[on, :middle].max(), scores[best].max())
    return float(seen), num + len(on) * (middle - 1) + len(best) * (num_epochs - middle)


def lost(curves: Curves, num: int, seeds: int) -> dict[str, object]:
    """Mean regrets of a number of configurations, and the epochs that each way trains."""
    found: dict[str, list[float]] = {name: [] for name in ("none", "asha", "semifinal")}
    found |= {str(k): [] for k in FINALISTS}
    spent = []
    num_epochs = curves.num_epochs
    for seed in range(seeds):
        rows = np.random.default_rng(seed).choice(len(curves.scores), num, replace=False)
        scores = curves.scores[rows]
        found["none"].append(float(scores.max()))
        best, epochs = stopped_by_asha(scores)
        found["asha"].append(best)
        spent.append(epochs)
        best, with_semifinal = after_semifinal(scores, curves.losses[rows])
        found["semifinal"].append(best)
        for k in FINALISTS:
            top = np.argsort(-scores[:, 0], kind="stable")[:k]
            found[str(k)].append(float(max(scores[:, 0].max(), scores[top].max())))
    pairs = np.array(found["3"][:50]) - np.array(found["asha"][:50])
    return {
        "set": curves.name,
        "configurations": num,
        "regret_points": {
            name: round(100 * (curves.best - float(np.mean(values))), 2)
            for name, values in found.items()
        },
        "epochs": {
            "none": num * num_epochs,
            "asha": round(float(np.mean(spent)), 1),
            "semifinal": with_semifinal,
            **{str(k): num + k * (num_epochs - 1) for k in FINALISTS},
        },
        "p_3_against_asha": round(float(wilcoxon(pairs).pvalue), 4) if pairs.any() else 1.0,
    }


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=400)
    args = parser.parse_args()
    for curves in read_table().values():
        for num in (8, 16, 32):
            print(json.dumps(lost(curves, num, args.seeds)))


if __name__ == "__main__":
    main()
