"""Which settings may change while a model is trained, and how a population changes them.

They are those that a step of training reads anew: they leave the shape of the network, the rows,
the order of batches and the number of epochs as they are.

Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks",
    https://arxiv.org/abs/1711.09846 (section 4: factors of 0.8 and 1.2, or resampled).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnntune.config.load import Config
from rnntune.config.schema import AUTO, TuneConfig
from rnntune.errors import ConfigError
from rnntune.tuning.sampler import count_trials
from rnntune.tuning.space import Dimension, Space

__all__ = ["CHANGEABLE", "changed_settings", "changed_value", "check_population"]
__all__ += ["population_config"]
CHANGEABLE = (
    "train.learning_rate",
    "train.ngram_learning_rate",
    "train.weight_decay",
    "train.label_smoothing",
    "train.gradient_clip",
    "model.embedding_dropout",
    "model.dropout",
    "model.word_dropout",
    "model.row_dropout",
)
"""Dotted names of the settings that may change in training."""
FEWEST_MEMBERS = 4
"""Members of which one is behind and one ahead, a quarter each."""
_RESAMPLED = 0.25
_FACTORS = (0.8, 1.2)


def population_config(config: Config) -> Config:
    """The settings of a search as a population needs them; those of another search unchanged.

    Members are trained to their end, since what they lack may come from others; and the model
    that is kept is that of the best member, whose settings changed on the way.
    """
    if config.tune.scheduler != "pbt":
        return config
    wanted = {"train.patience": 0, "train.refit": False}
    given = {"train.patience": config.train.patience, "train.refit": config.train.refit}
    return config.override({name: wanted[name] for name in wanted if given[name] == AUTO})


def check_population(config: Config, space: Space) -> None:
    """Refuse settings that make no sense with population based training.

    Raises:
        ConfigError: with what would work.
    """
    tune, train = config.tune, config.train
    if tune.scheduler != "pbt":
        return
    names = {dimension.name for dimension in space.dimensions}
    default = TuneConfig()
    members = count_trials(tune, space)
    epochs = train.epochs
    faults = {
        "tune.metric: pbt compares members by one metric; name one": len(tune.metrics) > 1,
        "tune.folds: pbt copies the weights of one training; leave tune.folds out": tune.folds,
        "tune.ensemble: pbt's last members descend from a few; set tune.ensemble to 1": (
            tune.ensemble > 1
        ),
        "tune.refit: pbt's settings changed in training, so that no second training has them; "
        "set tune.refit to false": tune.refit,
        "train.refit: pbt's settings changed in training, so that no second training has them; "
        "set train.refit to false": train.refit not in (False, AUTO),
        "train.patience: pbt trains its members to their end; set train.patience to 0": (
            train.patience not in (0, AUTO)
        ),
        "tune.reduction_factor: pbt has none, it is asha's; leave it out": (
            tune.reduction_factor != default.reduction_factor
        ),
        "tune.finalists: pbt has none, it is one_epoch's; leave it out": (
            tune.finalists not in (None, 3)  # 3 was the default
        ),
        "tune.space: train.epochs: pbt's members exchange after the same epochs; leave it out": (
            "train.epochs" in names
        ),
        "tune.space: train.patience: pbt trains its members to their end; leave it out": (
            "train.patience" in names
        ),
        "tune.space: train.refit: pbt trains no second time; leave it out": "train.refit" in names,
        "tune.space: pbt needs a setting that may change in training: " + ", ".join(CHANGEABLE): (
            names.isdisjoint(CHANGEABLE)
        ),
        f"tune.num_trials: pbt needs at least {FEWEST_MEMBERS} members, not {members}": (
            members < FEWEST_MEMBERS
        ),
        f"tune.grace_epochs: pbt exchanges members after {tune.grace_epochs} epochs, and "
        f"train.epochs is {epochs}; have more epochs, or exchange sooner": (
            epochs != AUTO and tune.grace_epochs >= epochs
        ),
    }
    for message, is_fault in faults.items():
        if is_fault:
            raise ConfigError(message)


def changed_settings(
    space: Space, values: Mapping[str, Any], random: np.random.Generator
) -> dict[str, Any]:
    """The settings of a member that goes on from another one's.

    Args:
        space: what is searched.
        values: settings of the other one, dotted names to values.
        random: draws equally often, whatever the values are.
    """
    return {
        d.name: changed_value(d, values[d.name], random) if d.name in CHANGEABLE else values[d.name]
        for d in space.dimensions
    }


def changed_value(dimension: Dimension, value: Any, random: np.random.Generator) -> Any:
    """A value near another one, or, one time in four, any value of the dimension.

    Near is times 0.8 or 1.2, at least a step and within the range; of listed numbers the next
    smaller or larger one.
    """
    resampled, quantile, direction = random.random(3).tolist()
    if resampled < _RESAMPLED:
        return dimension.quantile(quantile)
    is_up = direction < 0.5
    if dimension.is_list:
        return _neighbour(sorted(dimension.args), value, is_up) if dimension.is_ordered else value
    moved = dimension.nearest(value * _FACTORS[is_up])
    if dimension.step is not None and moved == value:
        return dimension.nearest(value + (dimension.step if is_up else -dimension.step))
    return moved


def _neighbour(values: list[Any], value: Any, is_up: bool) -> Any:
    index = values.index(value) + (1 if is_up else -1)
    return values[min(max(index, 0), len(values) - 1)]
