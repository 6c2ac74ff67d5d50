"""What a sampler learns from first epochs: their losses, and nothing of the epochs after them."""

import dataclasses

import numpy as np
import pytest

from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.first_epochs import LOSS, compared_by_loss
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.prior import Observation
from rnntune.tuning.sampler import propose
from rnntune.tuning.space_parser import parse_space

ACCURACY = Aims((Metric("validation_accuracy"),))
SPACE = {"model.dropout": {"uniform": [0.0, 0.9]}}


def trial(number: int, *losses: float, state=TrialState.PAUSED, dropout: float = 0.1) -> Trial:
    history = [
        {"epoch": epoch, "validation_accuracy": 0.5, "validation_loss": loss}
        for epoch, loss in enumerate(losses, 1)
    ]
    return Trial(number=number, values={"model.dropout": dropout}, history=history, state=state)


def test_trials_are_seen_as_they_were_after_their_first_epochs():
    given = [
        trial(0, 0.9, 0.1, state=TrialState.FINISHED),
        trial(1, 0.8),
        trial(2, state=TrialState.RUNNING),
        trial(3, 0.7, 0.2, state=TrialState.RUNNING),
        trial(4, state=TrialState.FAILED),
        trial(5, float("nan")),
    ]
    aims, seen, _ = compared_by_loss(ACCURACY, given, [], 1)
    assert aims.metrics == (LOSS,)
    assert [len(each.history) for each in seen] == [1, 1, 0, 1, 0, 1]
    assert [each.state.name for each in seen] == [
        "FINISHED", "FINISHED", "RUNNING", "FINISHED", "FAILED", "DIVERGED",
    ]  # fmt: skip


def test_without_losses_everything_stays():
    given = [trial(0, 0.9), trial(1, 0.8)]
    del given[1].history[0]["validation_loss"]
    assert compared_by_loss(ACCURACY, given, [], 1) == (ACCURACY, given, [])


@pytest.mark.parametrize(("name", "score"), [("validation_accuracy", -1.5), (LOSS.name, 1.5)])
def test_what_was_good_in_an_earlier_search_has_a_small_loss(name, score):
    earlier = [Observation(values={}, scores=(1.5,))]
    _, _, signed = compared_by_loss(Aims((Metric(name),)), [], earlier, 1)
    assert signed == [dataclasses.replace(earlier[0], scores=(score,))]


@pytest.mark.parametrize("searcher", ["tpe", "gp"])
def test_proposals_go_where_first_losses_are_small_and_ignore_later_epochs(searcher):
    config = Config.load(None, {"tune.space": SPACE, "tune.searcher": searcher})
    space = parse_space(config)
    dropouts = np.linspace(0.0, 0.9, 20)
    losses = [abs(float(dropout) - 0.7) for dropout in dropouts]
    pairs = list(zip(dropouts, losses, strict=True))
    few = [trial(n, loss, dropout=float(value)) for n, (value, loss) in enumerate(pairs)]
    more = [
        trial(n, loss, 1 - loss, dropout=float(value), state=TrialState.FINISHED)
        for n, (value, loss) in enumerate(pairs)
    ]
    drawn = [
        [
            propose(dataclasses.replace(config.tune, seed=seed), space, 20, trials, by_loss=True)
            for seed in range(5)
        ]
        for trials in (few, more)
    ]
    assert drawn[0] == drawn[1]
    assert np.mean([abs(values["model.dropout"] - 0.7) for values in drawn[0]]) < 0.15
