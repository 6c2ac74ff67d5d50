"""What a trial costs beyond its own steps and evaluations, ours and the plain pattern's.

    python tests/benchmarks/trial_overhead.py [--trials 16] [--plain-trials 4] [--cache FOLDER]

Ours: a search of short trials, two at a time. The plain pattern: Ray Tune over a function that
starts a `TorchTrainer` of one worker for each trial, which reads its own Parquet files.
Prints one JSON object.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from local import SETTINGS

from rnntune.cluster.session import connect
from rnntune.config.load import Config, flatten
from rnntune.data.preprocess import prepare
from rnntune.tuning.api import tune

SPACE = {
    "model.hidden_size": {"choice": [8, 12, 16]},
    "train.learning_rate": {"loguniform": [0.003, 0.03]},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--plain-trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--cache", default="~/.cache/rnntune")
    args = parser.parse_args()
    config = Config.load(
        None,
        {
            **SETTINGS,
            "data.cache_dir": args.cache,
            "model.embedding_dim": 8,
            "train.epochs": args.epochs,
            "train.resources_per_worker": {"CPU": 1},
            "tune.space": SPACE,
            "tune.searcher": "random",
            "tune.scheduler": "none",
            "tune.num_trials": args.trials,
        },
    )
    with connect(num_cpus=2):
        prepare(config.data)
    found = ours(config)
    found["plain"] = plain(config, args.plain_trials)
    found["times_less"] = round(found["plain"]["overhead_s"] / found["ours"]["overhead_s"], 1)
    print(json.dumps(found, indent=1))


def ours(config: Config) -> dict[str, Any]:

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = tune(config.override({"output": f"{folder}/run"}))
        wall_s = time.perf_counter() - start
        overheads = done.trials.sort_values("trial")["overhead_s"].tolist()
        return {
            "ours": {
                "trials": len(overheads),
                "overhead_s": done.result["trial_overhead_s"],
                "each_s": overheads,
                "wall_s": round(wall_s, 1),
                "seconds": done.result["seconds"],
            }
        }


def plain(config: Config, num_trials: int) -> dict[str, Any]:
    import ray
    from ray import tune

    with tempfile.TemporaryDirectory() as folder, connect(num_cpus=2):
        prepared = prepare(config.data)
        settings = {
            "config": config.to_dict(),
            "files": {name: list(split.files) for name, split in prepared.splits.items()},
            "num_words": prepared.num_words,
            "num_classes": len(prepared.classes),
            "folder": folder,
            "hidden_size": tune.choice([8, 12, 16]),
        }
        start = time.perf_counter()
        tuner = tune.Tuner(
            tune.with_resources(_plain_trial, {"CPU": 0.1}),
            param_space=settings,
            tune_config=tune.TuneConfig(num_samples=num_trials, max_concurrent_trials=2),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        wall_s = time.perf_counter() - start
        assert ray.is_initialized()
        overheads = [r.metrics["time_total_s"] - r.metrics["own_s"] for r in results]
        started = wall_s / -(-num_trials // 2)
        own = sum(r.metrics["own_s"] for r in results) / num_trials
    return {
        "trials": num_trials,
        "overhead_s": round(sum(overheads) / num_trials, 2),
        "each_s": [round(value, 2) for value in overheads],
        "overhead_with_actor_start_s": round(started - own, 2),
        "wall_s": round(wall_s, 1),
    }


def _plain_trial(settings: dict[str, Any]) -> None:
    import ray.data
    from ray import tune
    from ray.train import DataConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
        _plain_worker,
        train_loop_config=settings,
        datasets={
            name: ray.data.read_parquet(settings["files"][name]) for name in ("train", "validation")
        },
        dataset_config=DataConfig(datasets_to_split=[]),
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.4}),
        run_config=RunConfig(
            name=tune.get_context().get_trial_id(),
            storage_path=settings["folder"],
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


def _plain_worker(settings: dict[str, Any]) -> None:
    import numpy as np
    import ray.train
    import torch

    from rnntune.data.batching import EncodedRows
    from rnntune.data.loader import Shard, TrainBatches, scoring_batches
    from rnntune.model.network import Classifier
    from rnntune.training.checkpoint import save_snapshot
    from rnntune.training.loop import fit

    torch.set_num_threads(1)
    config = Config().override(flatten(settings["config"]))
    config = config.override({"model.hidden_size": settings["hidden_size"]})
    parts = {}
    for name in ("train", "validation"):
        rows = ray.train.get_dataset_shard(name).iter_batches(batch_size=None)
        ids, labels = [], []
        for block in rows:
            ids += list(block["ids"])
            labels.append(block["label"])
        encoded = EncodedRows(
            ids=np.concatenate(ids).astype(np.int32),
            lengths=np.array([len(row) for row in ids], dtype=np.int32),
            labels=np.concatenate(labels).astype(np.int64),
        )
        parts[name] = [Shard(num_rows=len(encoded), load=lambda e=encoded: e)]
    model = Classifier(config.model, settings["num_words"], settings["num_classes"], sparse=True)
    own = {"validation_s": 0.0}

    def report(event: Any) -> None:
        if event.kind != "epoch":
            return
        own["validation_s"] += event.metrics["validation_s"]
        with tempfile.TemporaryDirectory() as folder:
            save_snapshot(Path(folder), event.snapshot())
            ray.train.report(
                {**event.metrics, "own_s": event.metrics["train_s"] + own["validation_s"]},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
            )

    batches = TrainBatches(parts["train"], config.batching, seed=0)
    validation = parts["validation"]
    fit(
        model,
        batches,
        lambda: scoring_batches(validation),
        config.train,
        device=torch.device("cpu"),
        report=report,
    )


if __name__ == "__main__":
    main()
