import math

import pytest

from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.errors import ConfigError
from rnntune.tuning.gaussian_process import comparable_scores
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.optuna_space import distribution, to_param
from rnntune.tuning.sampler import check_searcher, propose
from rnntune.tuning.space import Dimension
from rnntune.tuning.space_parser import parse_space

ACCURACY = Metric("validation_accuracy")


def trial(number: int, *scores: float, state=TrialState.STOPPED, **values) -> Trial:
    history = [
        {"epoch": epoch, "validation_accuracy": score} for epoch, score in enumerate(scores, 1)
    ]
    return Trial(number=number, values=values, history=history, state=state, epochs=3)


def test_trials_of_few_epochs_are_compared_by_what_others_gained():
    whole = trial(0, 0.5, 0.6, 0.7, state=TrialState.FINISHED)
    better_at_first, worse = trial(1, 0.55), trial(2, 0.4, 0.65)
    scores = comparable_scores([whole, better_at_first, worse], ACCURACY)
    # Gains are 0.175 and 0.1 in the mean, so that they come to 0.7, 0.825 and 0.75.
    assert scores[1] > scores[2] > scores[0]
    assert scores[2] == pytest.approx(0.0, abs=1e-9)


def test_a_trial_that_failed_is_the_worst_and_one_that_begins_is_unknown():
    failed, begins = trial(1, state=TrialState.FAILED), trial(2, state=TrialState.RUNNING)
    diverged = trial(3, math.nan, state=TrialState.DIVERGED)
    scores = comparable_scores([trial(0, 0.1), failed, begins, diverged], ACCURACY)
    assert scores[2] is None
    assert scores[0] > scores[1] == scores[3]


def test_a_smaller_loss_is_better():
    trials = [trial(0), trial(1)]
    for each, loss in zip(trials, (0.4, 0.9), strict=True):
        each.history.append({"epoch": 1, "validation_loss": loss})
    scores = comparable_scores(trials, Metric("validation_loss"))
    assert scores[0] > scores[1]


def test_numbers_of_a_list_are_in_their_order_and_other_values_in_none():
    sizes = Dimension(name="model.hidden_size", kind="choice", args=(64, 16, 256))
    assert [to_param(sizes, value) for value in (16, 64, 256)] == [0, 1, 2]
    assert (distribution(sizes).low, distribution(sizes).high) == (0, 2)
    either = Dimension(name="model.bidirectional", kind="choice", args=(False, True))
    assert not either.is_ordered
    assert distribution(either).choices == (0, 1)


def test_it_learns_what_is_good_and_proposes_the_same_again():
    config = Config.load(
        None,
        {
            "tune.space": {
                "model.hidden_size": {"choice": [64, 16, 256]},
                "train.learning_rate": {"loguniform": [0.0001, 0.1]},
            },
            "tune.searcher": "gp",
            "tune.num_trials": 16,
        },
    )
    space = parse_space(config)
    trials: list[Trial] = []
    for number in range(24):
        values = propose(config.tune, space, number, trials)
        assert values == propose(config.tune, space, number, trials)
        distance = abs(math.log10(values["train.learning_rate"]) + 2)
        score = 0.9 - 0.1 * distance - 0.1 * (values["model.hidden_size"] != 256)
        one = trial(number, score, **values, state=TrialState.FINISHED)
        one.values = values
        trials.append(one)
    last = [t.values for t in trials[-8:]]
    assert sum(values["model.hidden_size"] == 256 for values in last) >= 5
    assert sum(0.002 < values["train.learning_rate"] < 0.05 for values in last) >= 5


def test_it_sweeps_no_grid():
    config = Config.load(None, {"tune.searcher": "gp"})
    swept = config.override({"tune.space": {"model.dropout": {"grid": [0.1, 0.2]}}})
    with pytest.raises(ConfigError, match="gp cannot sweep a grid"):
        check_searcher(swept.tune, parse_space(swept))
