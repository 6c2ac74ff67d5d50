"""The configuration that a search tries first: what `train` would do, moved into the space."""

from pathlib import Path

import pytest

from rnntune.config.load import Config
from rnntune.tuning.default_point import default_point
from rnntune.tuning.journal import Journal, Trial
from rnntune.tuning.sampler import propose
from rnntune.tuning.search import Search
from rnntune.tuning.space_parser import parse_space

SETTINGS = {
    "train.epochs": 3,
    "model.cell": "gru",
    "model.hidden_size": 50,
    "model.embedding_dim": 16,
    "model.dropout": 0.5,
    "model.embedding_dropout": 0.2,
    "train.learning_rate": 0.003,
}
SPACE = {
    "model.cell": {"choice": ["lstm", "gru"]},
    "model.hidden_size": {"qrandint": [8, 128, 20]},
    "model.embedding_dim": {"choice": [128, 64, 32]},
    "model.dropout": {"uniform": [0.0, 0.4]},
    "model.embedding_dropout": {"quniform": [0.0, 0.5, 0.15]},
    "train.learning_rate": {"loguniform": [0.0005, 0.01]},
}
NEAREST = {
    "model.cell": "gru",
    "model.hidden_size": 48,
    "model.embedding_dim": 32,
    "model.dropout": 0.4,
    "model.embedding_dropout": 0.15,
    "train.learning_rate": 0.003,
}


def configured(space=SPACE, **tune) -> Config:
    settings = {f"tune.{name}": value for name, value in tune.items()}
    return Config.load(None, {**SETTINGS, "tune.space": space, **settings})


def proposals(config: Config, count: int) -> list[dict]:
    space = parse_space(config)
    default = default_point(config, space)
    return [propose(config.tune, space, n, [], None, default) for n in range(count)]


def test_each_setting_takes_the_nearest_value_of_the_space():
    config = configured()
    assert default_point(config, parse_space(config)) == NEAREST


@pytest.mark.parametrize("searcher", ["random", "tpe", "gp"])
def test_it_is_the_first_trial_and_no_other(searcher):
    first, *others = proposals(configured(searcher=searcher), 4)
    assert first == NEAREST
    assert NEAREST not in others


def test_the_trials_after_it_are_those_of_the_seed():
    config = configured(searcher="random")
    space = parse_space(config)
    without = [propose(config.tune, space, n, []) for n in range(4)]
    assert proposals(config, 4)[1:] == without[1:]


def test_a_grid_has_its_points_alone():
    space = {"model.hidden_size": {"choice": [8, 16]}, "model.cell": {"choice": ["lstm", "gru"]}}
    drawn = proposals(configured(space, searcher="grid"), 4)
    assert [tuple(values.values()) for values in drawn] == [
        (8, "lstm"), (8, "gru"), (16, "lstm"), (16, "gru"),
    ]  # fmt: skip


def test_every_swept_value_is_tried_with_it():
    space = {"model.cell": {"grid": ["rnn", "lstm", "gru"]}, "model.dropout": {"uniform": [0, 0.9]}}
    drawn = proposals(configured(space, searcher="random", num_trials=2), 6)
    assert [values["model.cell"] for values in drawn] == ["rnn", "lstm", "gru"] * 2
    assert [values["model.dropout"] for values in drawn[:3]] == [0.5] * 3
    assert 0.5 not in [values["model.dropout"] for values in drawn[3:]]


def test_points_of_the_user_come_before_it():
    point = {"model.cell": "lstm", "model.dropout": 0.1}
    drawn = proposals(configured(searcher="tpe", points_to_evaluate=[point]), 2)
    assert point.items() <= drawn[0].items()
    assert drawn[1] == NEAREST


def test_it_is_not_tried_twice():
    config = configured(searcher="random", points_to_evaluate=[NEAREST, {"model.dropout": 0.1}])
    drawn = proposals(config, 3)
    assert drawn[0] == NEAREST
    assert drawn[1]["model.dropout"] == 0.1
    assert drawn[2] != NEAREST


def test_what_is_near_to_nothing_in_the_space_is_drawn():
    space = {"model.cell": {"choice": ["rnn", "lstm"]}, "model.dropout": {"choice": [0.1, 0.3]}}
    config = configured(space, searcher="random")
    assert default_point(config, parse_space(config)) == {"model.dropout": 0.3}
    (drawn,) = proposals(config, 1)
    assert drawn["model.cell"] in ("rnn", "lstm")
    assert drawn["model.dropout"] == 0.3


def opened(folder: Path, config: Config) -> Search:
    folder.mkdir(exist_ok=True)
    journal = Journal(str(folder / "trials.jsonl"))
    search = Search(config, parse_space(config), journal, str(folder / "search"), 1)
    search.begin()
    return search


def test_a_search_that_goes_on_keeps_the_trials_that_its_journal_has(tmp_path):
    config = configured(searcher="random", num_trials=3)
    spec = opened(tmp_path / "new", config).next()
    assert spec is not None
    assert spec.values == NEAREST
    # The journal of a search that began without it.
    space = parse_space(config)
    (tmp_path / "old").mkdir()
    journal = Journal(str(tmp_path / "old" / "trials.jsonl"))
    drawn = [propose(config.tune, space, n, []) for n in range(3)]
    journal.start(0, drawn[0], 3)
    search = opened(tmp_path / "old", config)
    specs = [search.next()]
    search.on_complete(0)
    specs.append(search.next())
    trials: list[Trial] = search.journal.trials
    assert [trial.values for trial in trials] == drawn[:2]
    assert [each.values for each in specs if each] == drawn[:2]
