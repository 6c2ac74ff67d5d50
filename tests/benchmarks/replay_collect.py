"""Learning curves of random configurations of the default search space, for `replay.py`.

    OMP_NUM_THREADS=1 python tests/benchmarks/replay_collect.py curves.jsonl --work FOLDER
        NAME=FOLDER:TRAIN_ROWS:VALIDATION_ROWS:EPOCHS[:SETTING=VALUE...] ... [--minutes 100]

FOLDER holds a `train.csv` in a form that `rnntune` reads; its test rows are never opened. Of each
set a part trains and another part validates, both drawn from the training rows once. The sets take
turns, so that each has as many configurations whenever it is stopped; configuration n of a set is
the same whenever it is drawn, number 0 is the defaults. All epochs are trained, on one thread, in
this process, as a trial of one worker does it. What the file holds already is skipped. A line has
numbers and settings, no text.
"""

import argparse
import csv
import dataclasses
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.loader import scoring_batches
from rnntune.data.preprocess import prepare
from rnntune.data.summary import resolve_config
from rnntune.training.loop import Event, fit
from rnntune.training.shared_dataset import SharedDataset, hold_dataset
from rnntune.training.worker import train_batches
from rnntune.tuning.constraints import build_within_limits
from rnntune.tuning.default_point import default_point
from rnntune.tuning.plan import median_length
from rnntune.tuning.space import Space
from rnntune.tuning.space_parser import parse_space

_KEPT = ("validation_accuracy", "validation_macro_f1", "validation_loss")


@dataclasses.dataclass(frozen=True)
class TextSet:
    """A data set of which configurations are trained.

    Args:
        name: of the set.
        config: without `auto`.
        space: of configurations.
        rows: training and validation rows in memory.
        text_length: tokens of the text whose latency is measured.
    """

    name: str
    config: Config
    space: Space
    rows: SharedDataset
    text_length: int

    @classmethod
    def prepare(cls, argument: str, work: Path, seed: int) -> "TextSet":
        """Cut and prepare the set that an argument of the command line names."""
        name, _, rest = argument.partition("=")
        folder, *numbers = rest.split(":")
        train_rows, validation_rows, epochs = map(int, numbers[:3])
        pairs = (setting.split("=", 1) for setting in numbers[3:])
        settings = {key: yaml.safe_load(text) for key, text in pairs}
        part = work / name
        if not (part / "validation.csv").exists():
            cut(Path(folder), part, train_rows, validation_rows, seed)
        given = {
            "data.source": str(part / "train.csv"),
            "data.validation_source": str(part / "validation.csv"),
            "data.test_fraction": 0,
            "data.cache_dir": str(work / "cache"),
            "train.epochs": epochs,
            "train.patience": 0,
            "train.refit": False,
            "train.num_threads": 1,
            "train.use_gpu": False,
        }
        if (part / "classes.txt").exists():
            given["data.format"] = "ag_news"
        config = Config.load(None, {**given, **settings})
        prepared = prepare(config.data, require_test=False)
        config, _ = resolve_config(config, prepared)
        rows = hold_dataset(config, prepared, Terminal(silent=True), ("train", "validation"))
        return cls(name, config, parse_space(config), rows, median_length(prepared))

    def values(self, number: int, seed: int) -> dict[str, Any]:
        """The settings of a configuration; those of number 0 are the defaults."""
        if number:
            return self.space.sample(np.random.default_rng([seed, number]))
        return default_point(self.config, self.space)

    def train(self, number: int, seed: int) -> dict[str, Any]:
        """Train a configuration; its line."""
        values = self.values(number, seed)
        config = self.config.override(values)
        device = torch.device("cpu")
        model, size = build_within_limits(config, self.rows, self.text_length, device)
        torch.set_num_threads(1)
        parts = [part.part() for part in self.rows.parts["validation"]]
        epochs: list[list[float]] = []
        start = time.process_time()

        def report(event: Event) -> None:
            if event.kind == "epoch":
                scores = [round(event.metrics[name], 5) for name in _KEPT]
                epochs.append([*scores, round(time.process_time() - start, 3)])

        fit(
            model,
            train_batches(config, self.rows.parts["train"], device, 0, 1),
            lambda: scoring_batches(parts, padding=config.model.packed),
            config.train,
            device=device,
            report=report,
            class_weights=self.rows.class_weights,
        )
        return {
            "set": self.name,
            "number": number,
            "values": values,
            "epochs": epochs,
            "num_parameters": size.num_parameters,
            "latency_ms": size.latency_ms,
        }


def cut(folder: Path, part: Path, train_rows: int, validation_rows: int, seed: int) -> None:
    """Draw the part of a set's training rows that trains, and the one that validates."""
    part.mkdir(parents=True, exist_ok=True)
    with (folder / "train.csv").open(encoding="utf-8", newline="") as file:
        records = list(csv.reader(file))
    classes = folder / "classes.txt"
    head = []
    if classes.exists():
        (part / "classes.txt").write_bytes(classes.read_bytes())
    else:
        head = [records.pop(0)]
    unique = list({tuple(record): record for record in records}.values())
    random.Random(seed).shuffle(unique)
    rows = {"train": unique[:train_rows]}
    rows["validation"] = unique[train_rows : train_rows + validation_rows]
    for split, chosen in rows.items():
        with (part / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([*head, *chosen])


def main() -> None:
    """Train configurations until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", type=Path)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--most", type=int, default=400, help="configurations of a set")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * args.minutes
    sets = [TextSet.prepare(argument, args.work, args.seed) for argument in args.sets]
    held = set()
    if args.curves.exists():
        lines = map(json.loads, args.curves.read_text(encoding="utf-8").splitlines())
        held = {(line["set"], line["number"]) for line in lines}
    with args.curves.open("a", encoding="utf-8") as file:
        for number in range(args.most):
            for each in sets:
                if time.monotonic() > until:
                    return
                if (each.name, number) not in held:
                    print(json.dumps(each.train(number, args.seed)), file=file, flush=True)


if __name__ == "__main__":
    main()
