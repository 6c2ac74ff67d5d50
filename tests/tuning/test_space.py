"""The search space: what is refused and why, and what is drawn."""

import itertools
import math

import numpy as np
import pytest
import yaml

from rnntune.config.load import Config
from rnntune.config.schema import TuneConfig
from rnntune.errors import ConfigError
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.sampler import check_searcher, count_trials, propose
from rnntune.tuning.space import Dimension
from rnntune.tuning.space_parser import parse_space

LR = "train.learning_rate"


def with_space(dims: dict, **tune) -> Config:
    return Config.load(
        None, {"tune.space": dims, **{f"tune.{name}": value for name, value in tune.items()}}
    )


def refused(dims: dict, **tune) -> str:
    def check() -> None:
        config = with_space(dims, **tune)
        check_searcher(config.tune, parse_space(config))

    with pytest.raises(ConfigError) as caught:
        check()
    return str(caught.value)


@pytest.mark.parametrize(
    ("dims", "told"),
    [
        ({"model.hiden_size": {"choice": [8]}}, "did you mean model.hidden_size?"),
        ({"modell.cell": {"choice": ["gru"]}}, "unknown setting modell.cell"),
        ({"tune.num_trials": {"choice": [1]}}, "unknown setting tune.num_trials"),
        ({"data.source": {"choice": ["a"]}}, "the same rows"),
        ({"data.text_columns": {"choice": [["a"], ["b"]]}}, "the same rows, which their text"),
        ({"train.num_workers": {"choice": [1]}}, "use tune.workers_per_trial"),
        ({LR: {"logunifrom": [0.1, 1]}}, "did you mean loguniform?"),
        ({LR: {"uniform": [1, 0.1]}}, "1 is not less than 0.1"),
        ({LR: {"loguniform": [0, 1]}}, "must be more than 0 to have a logarithm"),
        ({LR: {"uniform": [0.1]}}, "must be [low, high]"),
        ({LR: {"uniform": 0.1}}, "must be a list, not 0.1"),
        ({LR: {"uniform": ["low", 2]}}, "must be [low, high] in numbers"),
        ({LR: {"uniform": [True, 2]}}, "must be [low, high] in numbers"),
        ({LR: {"quniform": [0.1, 1, 2]}}, "the step 2 must lie within the range"),
        ({LR: {}}, "must be one distribution"),
        ({LR: {"choice": [0.1, -1]}}, "train.learning_rate: input should be greater than 0"),
        ({LR: {"choice": []}}, "choice is empty"),
        ({LR: {"choice": [0.1, 0.1]}}, "has 0.1 twice"),
        ({"model.cell": {"choice": ["gru", "lstn"]}}, "not 'lstn'"),
        ({"model.dropout": {"uniform": [0, 1]}}, "model.dropout"),
        ({"model.hidden_size": {"randint": [0, 8]}}, "model.hidden_size"),
        ({"model.hidden_size": {"uniform": [8, 64]}}, "use randint"),
        ({"model.hidden_size": {"randint": [8, 64.5]}}, "in integers"),
        ({}, "tune.space is empty"),
    ],
)
def test_a_wrong_space_is_refused_by_name(dims, told):
    message = refused(dims)
    assert told in message
    assert all(name in message for name in dims)


def test_a_number_that_yaml_takes_for_text_is_a_number():
    tree = yaml.safe_load("{tune: {space: {train.learning_rate: {loguniform: [1e-4, 1e-2]}}}}")
    (found,) = parse_space(Config.load(None, {"tune.space": tree["tune"]["space"]})).dimensions
    assert found.args == (1e-4, 1e-2)


@pytest.mark.parametrize(
    ("tune", "told"),
    [
        ({"searcher": "grid"}, "grid needs values with an end"),
        ({"mode": "min"}, "min of validation_accuracy would choose the worst"),
        ({"metric": "validation_loss", "mode": "max"}, "would choose the worst"),
        ({"points_to_evaluate": [{LR: 5.0}]}, "5.0 is not in uniform [0.1, 1.0]"),
        ({"points_to_evaluate": [{"train.lerning_rate": 0.5}]}, "did you mean train.learning"),
    ],
)
def test_a_searcher_that_cannot_work_is_refused(tune, told):
    assert told in refused({LR: {"uniform": [0.1, 1.0]}}, **tune)


def test_tpe_cannot_sweep_a_grid():
    assert "tpe cannot sweep a grid" in refused({LR: {"grid": [0.1, 1.0]}}, searcher="tpe")


@pytest.mark.parametrize(
    ("kind", "args", "values"),
    [
        ("randint", (2, 5), {2, 3, 4, 5}),
        ("qrandint", (2, 9, 3), {2, 5, 8}),
        ("lograndint", (1, 4), {1, 2, 3, 4}),
        ("quniform", (0.1, 0.45, 0.1), {0.1, 0.2, 0.3, 0.4}),
        ("choice", ("a", None, [1, 2]), None),
    ],
)
def test_every_value_of_a_stepped_range_is_drawn_and_no_other(kind, args, values):
    dimension = Dimension(name=LR, kind=kind, args=args)
    drawn = [dimension.quantile(q) for q in np.linspace(0, 1, 4001)]
    listed = [dimension.value(n) for n in range(dimension.size)]
    assert all(dimension.holds(value) for value in drawn)
    assert {str(v) for v in drawn} == {str(v) for v in listed}
    if values is not None:
        assert set(drawn) == values


def test_both_ends_of_an_integer_range_have_their_share():
    dimension = Dimension(name=LR, kind="randint", args=(1, 4))
    drawn = [dimension.quantile(q) for q in np.linspace(0, 0.99999, 4000)]
    assert {value: drawn.count(value) for value in set(drawn)} == dict.fromkeys(range(1, 5), 1000)


def test_the_logarithm_of_a_loguniform_is_uniform():
    dimension = Dimension(name=LR, kind="loguniform", args=(1e-4, 1e-2))
    assert math.isclose(dimension.quantile(0.5), 1e-3, rel_tol=1e-9)
    assert math.isclose(dimension.quantile(0.0), 1e-4)
    assert math.isclose(dimension.quantile(1.0), 1e-2)


def test_a_value_outside_is_not_held():
    stepped = Dimension(name=LR, kind="quniform", args=(0.1, 0.5, 0.1))
    assert stepped.holds(0.3)
    assert not stepped.holds(0.35)
    assert not stepped.holds(0.6)
    assert not stepped.holds(True)
    assert not stepped.holds("0.3")


def test_a_grid_has_every_point_once():
    dims = {LR: {"grid": [0.1, 0.2]}, "model.num_layers": {"randint": [1, 3]}}
    config = with_space(dims, searcher="grid", num_trials=1)
    found = parse_space(config)
    total = count_trials(config.tune, found)
    drawn = [propose(config.tune, found, n, []) for n in range(total)]
    assert total == found.size == 6
    assert [tuple(point.values()) for point in drawn] == list(
        itertools.product([0.1, 0.2], [1, 2, 3])
    )


def test_a_random_search_passes_over_what_is_swept():
    dims = {LR: {"uniform": [0.1, 0.2]}, "model.num_layers": {"grid": [1, 2, 3]}}
    config = with_space(dims, searcher="random", num_trials=2)
    found = parse_space(config)
    assert count_trials(config.tune, found) == 6
    drawn = [propose(config.tune, found, n, []) for n in range(6)]
    assert [point["model.num_layers"] for point in drawn] == [1, 2, 3, 1, 2, 3]
    assert len({point[LR] for point in drawn}) == 6


def test_searched_data_settings_are_listed():
    found = parse_space(with_space({"data.max_length": {"choice": [8, 16]}, LR: {"choice": [1]}}))
    assert found.finite("data.") == [{"data.max_length": 8}, {"data.max_length": 16}]
    assert found.finite("model.") == [{}]


def test_more_data_settings_than_can_be_prepared_are_refused():
    message = refused({"data.max_length": {"randint": [8, 256]}})
    assert "data.max_length randint [8, 256]: 249 combinations" in message
    assert "at most 16" in message


def told(number: int, values: dict, value: float, state: str = "finished") -> Trial:
    epoch = {"epoch": 1, "validation_accuracy": value, "train_s": 1.0, "validation_s": 0.1}
    return Trial(number=number, values=values, state=TrialState(state), history=[epoch])


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_the_same_seed_proposes_the_same_trials(searcher):
    def search(seed: int) -> list[dict]:
        config = Config.load(None, {"tune.searcher": searcher, "tune.seed": seed}).tune
        found = parse_space(Config())
        trials: list[Trial] = []
        for number in range(14):
            values = propose(config, found, number, trials)
            state = ("finished", "stopped", "failed", "running")[number % 4]
            trials.append(told(number, values, values["model.dropout"], state))
        return [trial.values for trial in trials]

    assert search(1) == search(1)
    assert search(1) != search(2)


def test_tpe_learns_where_the_good_values_are():
    config = with_space({LR: {"loguniform": [1e-4, 1.0]}, "model.cell": {"choice": ["gru", "rnn"]}})
    found = parse_space(config)
    tune: TuneConfig = config.tune
    trials: list[Trial] = []
    for number in range(40):
        values = propose(tune, found, number, trials)
        off = abs(math.log10(values[LR]) + 2) + (values["model.cell"] == "rnn")
        trials.append(told(number, values, 1 - off / 5))
    late = [t.values for t in trials[20:]]
    assert sum(v["model.cell"] == "gru" for v in late) >= 15
    assert np.median([abs(math.log10(v[LR]) + 2) for v in late]) < 0.5


def test_points_come_first_and_what_they_leave_open_is_drawn():
    config = Config.load(None, {"tune.points_to_evaluate": [{"model.cell": "gru"}] * 3})
    found = parse_space(config)
    drawn = [propose(config.tune, found, n, []) for n in range(3)]
    assert {point["model.cell"] for point in drawn} == {"gru"}
    assert len({point["model.dropout"] for point in drawn}) == 3
