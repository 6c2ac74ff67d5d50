"""Searches with several aims, without Ray: what they try, keep and write, killed at any moment."""

import io
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from searches import drive

from rnntune.config.load import Config
from rnntune.training.checkpoint import Snapshot, State
from rnntune.training.run_folder import RunFolder
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Journal, TrialState
from rnntune.tuning.leaderboard import leaderboard, standing_line
from rnntune.tuning.pareto import front_facts, write_best
from rnntune.tuning.results import journal_table
from rnntune.tuning.sampler import propose
from rnntune.tuning.search import Search
from rnntune.tuning.space_parser import parse_space
from rnntune.tuning.trial_loop import trial_store

SPACE = {
    "model.hidden_size": {"randint": [1, 200]},
    "train.learning_rate": {"loguniform": [0.0001, 0.1]},
}


def objective(values):
    """Larger models are better and slower; the learning rate is for accuracy alone."""
    size = values["model.hidden_size"]
    away = math.log10(values["train.learning_rate"]) + 2
    return 0.5 + 0.4 * (1 - math.exp(-size / 40)) - 0.05 * away**2, 0.1 + size / 100, 10 * size


def configured(**tune) -> Config:
    given = {"metric": ["validation_accuracy", "latency_ms"], "space": SPACE, "num_trials": 10}
    return Config.load({"tune": {**given, **tune}, "train.epochs": 2})


def opened(config: Config, folder: Path) -> Search:
    journal = Journal(str(folder / "trials.jsonl"))
    return Search(config, parse_space(config), journal, str(folder / "search"), 1)


@pytest.mark.parametrize(("searcher", "num_trials", "step"), [
    ("tpe", 10, 3), ("random", 10, 3), ("gp", 5, 16),
])  # fmt: skip
def test_a_search_that_was_killed_anywhere_has_the_same_front(tmp_path, searcher, num_trials, step):
    tune = {"searcher": searcher, "num_trials": num_trials}
    config = configured(**tune, scheduler="asha", reduction_factor=2)
    search = opened(config, tmp_path)
    drive(search, objective, epochs=2)
    whole = journal_table(config, search.journal.trials)
    front = front_facts(search.aims, search.journal.trials)
    assert len(front["front"]) > 1
    lines = (tmp_path / "trials.jsonl").read_text().splitlines(keepends=True)
    for number in range(0, len(lines), step):
        again = tmp_path / str(number)
        again.mkdir()
        (again / "trials.jsonl").write_text("".join(lines[:number]) + lines[number][:9])
        resumed = opened(config, again)
        drive(resumed, objective, epochs=2)
        assert front_facts(resumed.aims, resumed.journal.trials) == front
        table = journal_table(config, resumed.journal.trials)
        for name in ("trial", "front", "is_knee", *SPACE):
            assert table[name].equals(whole[name])


@pytest.mark.parametrize("searcher", ["tpe", "gp"])
def test_it_goes_by_all_aims(tmp_path, searcher):
    """Where size costs time and gives nothing, it tries small models if time is an aim."""
    search = opened(configured(searcher="random", num_trials=16, scheduler="none"), tmp_path)
    drive(search, lambda v: (objective({**v, "model.hidden_size": 99})[0], *objective(v)[1:]))

    def mean_size(metric) -> float:
        sizes = []
        for seed in range(2):
            config = configured(metric=metric, searcher=searcher, seed=seed)
            proposed = propose(config.tune, search.space, 16, search.journal.trials)
            sizes.append(proposed["model.hidden_size"])
        return sum(sizes) / len(sizes)

    assert mean_size(["validation_accuracy", "latency_ms"]) < mean_size("validation_accuracy") / 2


def test_the_front_keeps_its_checkpoints(tmp_path):
    search = opened(configured(searcher="random", scheduler="none"), tmp_path)
    state, weights = State(epoch=1, step=1), {"w": torch.zeros(1)}
    for number in range(10):
        trial_store(search.uri, f"trial-{number:04d}").save(
            Snapshot(state=state, model=weights, optimizer={}, best=None, identity={})
        )
    drive(search, objective)
    front = {trial.name for trial in search.aims.front(search.journal.trials)}
    assert 1 < len(front) < 10
    assert {path.parent.name for path in Path(search.uri).rglob("checkpoint_*")} == front


def test_what_a_search_leaves_to_train_from(tmp_path):
    config = configured(searcher="random", scheduler="none")
    search = opened(config, tmp_path)
    drive(search, objective)
    trials = search.journal.trials
    write_best(config, RunFolder(str(tmp_path)), search.aims, trials)
    points = yaml.safe_load((tmp_path / "pareto.yaml").read_text())
    front = search.aims.front(trials)
    assert [point["trial"] for point in points] == [trial.number for trial in front]
    assert [point["metrics"] for point in points] == [search.aims.values(t) for t in front]
    accuracies = [point["metrics"]["validation_accuracy"] for point in points]
    assert accuracies == sorted(accuracies, reverse=True)
    for number, (point, trial) in enumerate(zip(points, front, strict=True), 1):
        loaded = Config.load(f"{tmp_path}/pareto.yaml#{number}")
        assert loaded.model.hidden_size == trial.values["model.hidden_size"]
        assert set(point["config"]) == {"data", "batching", "model", "train", "output"}
    (knee,) = [n for n, point in enumerate(points, 1) if point["is_knee"]]
    best = Config.load(str(tmp_path / "best.yaml"))
    assert best == Config.load(f"{tmp_path}/pareto.yaml#{knee}")
    assert points[knee - 1]["trial"] == search.aims.chosen(trials).number


def test_with_one_aim_there_is_no_front(tmp_path):
    config = configured(metric="validation_accuracy", scheduler="none")
    search = opened(config, tmp_path)
    drive(search, objective)
    write_best(config, RunFolder(str(tmp_path)), search.aims, search.journal.trials)
    assert not (tmp_path / "pareto.yaml").exists()
    assert front_facts(search.aims, search.journal.trials) == {}
    assert "front" not in journal_table(config, search.journal.trials)
    assert Aims.of(config.tune).knee([]) is None


@pytest.mark.parametrize("width", [80, 200])
def test_the_leaderboard_shows_the_whole_front(tmp_path, width):
    config = configured(searcher="random", scheduler="none", num_trials=40)
    search = opened(config, tmp_path)
    drive(search, objective)
    table = journal_table(config, search.journal.trials)
    console = Console(width=width, file=io.StringIO())
    console.print(leaderboard(table, {}, most=12))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    front = search.aims.front(search.journal.trials)
    numbers = [line.split()[1] for line in lines[1:] if re.match(r" *\d+ +\d+\*? +0\.\d{4}", line)]
    assert [number.rstrip("*") for number in numbers] == [
        str(number) for number in range(1, len(front) + 1)
    ]
    assert sum(number.endswith("*") for number in numbers) == 1
    assert any(line.startswith("front: N of pareto.yaml#N") for line in lines)
    standing = standing_line(search.journal.trials, 40, search.aims, None)
    assert f"{len(front)} on the front" in standing


def test_a_knee_that_was_stopped_early_is_told(tmp_path):
    config = configured(searcher="random", scheduler="none")
    search = opened(config, tmp_path)
    drive(search, objective)

    def shown() -> str:
        console = Console(width=80, file=io.StringIO())
        console.print(leaderboard(journal_table(config, search.journal.trials), {}))
        return console.file.getvalue()

    assert "was stopped early" not in shown()
    search.aims.chosen(search.journal.trials).state = TrialState.STOPPED
    assert "* was stopped early; train --config RUN/best.yaml" in shown()
