import io

import numpy as np
import pytest
from rich.console import Console

from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.importance import importance, importance_interval, undecided
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.leaderboard import leaderboard
from rnntune.tuning.results import trials_table

ACCURACY = Metric("validation_accuracy")
NAMES = ["train.learning_rate", "model.dropout", "model.cell"]


def trials(num: int, noise: float, effect: float = 0.5) -> list[Trial]:
    random = np.random.default_rng(0)
    made = []
    for number in range(num):
        values = {
            "train.learning_rate": float(random.uniform()),
            "model.dropout": float(random.uniform()),
            "model.cell": ("lstm", "gru")[number % 2],
        }
        accuracy = effect * values["train.learning_rate"] + noise * float(random.uniform())
        epoch = {
            "epoch": 1, "validation_accuracy": accuracy, "validation_loss": 1.0,
            "validation_macro_f1": accuracy, "train_s": 1.0, "validation_s": 0.1,
        }  # fmt: skip
        made.append(Trial(number=number, values=values, state=TrialState.FINISHED, history=[epoch]))
    return made


def test_what_decides_alone_is_told_and_its_interval_is_apart():
    made = trials(32, noise=0.02)
    shares = importance(made, NAMES, ACCURACY, 0)
    intervals = importance_interval(made, NAMES, ACCURACY, 0)
    assert next(iter(shares)) == "train.learning_rate"
    assert set(shares) == set(intervals) == set(NAMES)
    low, high = intervals["train.learning_rate"]
    assert 0.5 < low <= high <= 1
    assert undecided(shares, intervals) == ()
    assert intervals == importance_interval(made, NAMES, ACCURACY, 0)


def test_noise_cannot_be_told_apart():
    made = trials(10, noise=0.5, effect=0.0)
    shares = importance(made, NAMES, ACCURACY, 0)
    tied = undecided(shares, importance_interval(made, NAMES, ACCURACY, 0))
    assert tied[0] == next(iter(shares))
    assert len(tied) > 1


@pytest.mark.parametrize("num", [0, 3])
def test_of_few_trials_nothing_is_said(num):
    made = trials(num, noise=0.1)
    assert importance(made, NAMES, ACCURACY, 0) == {}
    assert importance_interval(made, NAMES, ACCURACY, 0) == {}
    assert undecided({}, {}) == ()


def test_the_leaderboard_says_what_cannot_be_told():
    made = trials(8, noise=0.1)
    table = trials_table(made, NAMES, Aims((ACCURACY,)))
    console = Console(width=120, record=True, file=io.StringIO())
    shares = {"model.dropout": 0.5, "model.cell": 0.3, "train.learning_rate": 0.2}
    intervals = {
        "model.dropout": (0.4, 0.6), "model.cell": (0.1, 0.45), "train.learning_rate": (0.0, 0.3),
    }  # fmt: skip
    console.print(leaderboard(table, shares, intervals))
    text = console.export_text()
    assert "0.40 to 0.60" in text
    assert "cannot tell which of these mattered most: model.dropout, model.cell\n" in text
