"""Which models make an ensemble."""

import numpy as np
import pytest

from rnntune.config.load import Config
from rnntune.errors import ConfigError
from rnntune.tuning.ensemble_selection import check_ensemble, num_candidates, select_members
from rnntune.tuning.space_parser import parse_space


def given(*columns):
    """Probabilities of the second of two classes, a column a model."""
    return [np.stack([1 - np.array(c), np.array(c)], axis=1).astype(np.float32) for c in columns]


def test_models_that_mend_each_other_are_chosen():
    labels = np.array([1, 1, 1, 0, 0, 0])
    models = given(
        [0.9, 0.9, 0.4, 0.1, 0.1, 0.4],
        [0.4, 0.9, 0.9, 0.1, 0.4, 0.1],
        [0.4, 0.4, 0.4, 0.6, 0.6, 0.6],
    )
    counts = select_members(models, labels, 3)
    assert set(counts) == {0, 1}
    mean = np.average([models[n] for n in counts], axis=0, weights=list(counts.values()))
    assert (mean.argmax(axis=1) == labels).all()


def test_no_more_models_than_are_wanted_and_no_worse_than_the_best():
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 60)
    models = given(*[np.clip(labels * 0.3 + random.uniform(0, 0.7, 60), 0, 1) for _ in range(6)])
    for most in (1, 2, 4):
        counts = select_members(models, labels, most)
        assert 1 <= len(counts) <= most
        assert list(counts.values()) == sorted(counts.values(), reverse=True)
    mean = np.average([models[n] for n in counts], axis=0, weights=list(counts.values()))

    def loss(model):
        return -np.log(model[np.arange(60), labels]).mean()

    assert loss(mean) < min(map(loss, models))


def test_a_model_alone_stays_alone():
    labels = np.array([0, 1])
    assert select_members(given([0.0, 1.0]), labels, 5) == {0: 1}


def test_sets_of_labels():
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, dtype=np.float32)
    right = np.where(labels > 0, 0.9, 0.1).astype(np.float32)
    wrong = np.where(labels > 0, 0.2, 0.7).astype(np.float32)
    assert select_members([wrong, right], labels, 2) == {1: 1}


def test_an_ensemble_keeps_twice_as_many_models():
    assert num_candidates(Config.load(None, {}).tune) == 1
    assert num_candidates(Config.load(None, {"tune.ensemble": 4}).tune) == 8


def test_models_of_other_words_are_refused():
    space = {"data.min_frequency": {"choice": [1, 2]}, "model.hidden_size": {"choice": [8, 16]}}
    config = Config.load(None, {"tune.space": space, "tune.ensemble": 3})
    with pytest.raises(ConfigError, match=r"tune\.ensemble: .* has data\.min_frequency"):
        check_ensemble(config.tune, parse_space(config))
    alone = config.override({"tune.ensemble": 1})
    check_ensemble(alone.tune, parse_space(alone))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune.distill": True}, "distill: there is no ensemble"),
        ({"tune.ensemble": 3, "tune.folds": 4}, "ensemble: .*folds is 4"),
        ({"tune.ensemble": 3, "tune.refit": True}, "ensemble: .*set refit to false"),
        (
            {"tune.ensemble": 3, "tune.metric": "validation_accuracy,latency_ms"},
            "ensemble: it is chosen by one metric",
        ),
        ({"tune.ensemble": 0}, r"tune\.ensemble"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config.load(None, settings)
