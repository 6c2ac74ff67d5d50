"""The search space in Optuna's terms, and what a sampler of Optuna's proposes in it."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from rnntune.config.schema import TuneConfig
from rnntune.tuning.space import Dimension, Space

__all__ = ["ask", "distribution", "seed_of", "silence_optuna", "to_param"]


def distribution(dimension: Dimension) -> Any:
    """The distribution of Optuna's for a dimension; a list of numbers is a range of their ranks."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if dimension.is_ordered:
        return IntDistribution(0, len(dimension.args) - 1)
    if dimension.is_list:
        return CategoricalDistribution(range(len(dimension.args)))
    low, high = dimension.args[:2]
    if dimension.is_log:  # Optuna has no steps on a logarithmic scale; `nearest` makes them
        return FloatDistribution(low, high, log=True)
    if dimension.is_integer:
        return IntDistribution(low, dimension.nearest(high), step=int(dimension.step or 1))
    return FloatDistribution(low, dimension.nearest(high), step=dimension.step)


def to_param(dimension: Dimension, value: Any) -> Any:
    """A value as Optuna has it: of a list its number, of a list of numbers its rank."""
    if dimension.is_ordered:
        return sorted(dimension.args).index(value)
    return dimension.index(value) if dimension.is_list else value


def _from_param(dimension: Dimension, param: Any) -> Any:
    if dimension.is_ordered:
        return sorted(dimension.args)[param]
    return dimension.args[param] if dimension.is_list else dimension.nearest(param)


def seed_of(config: TuneConfig, number: int) -> int:
    """The seed of a sampler that proposes one trial."""
    return int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])


def ask(
    sampler: Any,
    directions: Sequence[Literal["maximize", "minimize"]],
    space: Space,
    trials: Sequence[Any],
) -> dict[str, Any]:
    """The settings that a sampler of Optuna's proposes.

    Args:
        sampler: asked once.
        directions: of the trials' values, 'maximize' or 'minimize'.
        space: what is searched.
        trials: of Optuna, in the order of their numbers.
    """
    import optuna

    with silence_optuna():
        study = optuna.create_study(sampler=sampler, directions=directions)
        study.add_trials(trials)
        distributions = {d.name: distribution(d) for d in space.dimensions}
        asked = study.ask(fixed_distributions=distributions)
    return {d.name: _from_param(d, asked.params[d.name]) for d in space.dimensions}


@contextlib.contextmanager
def silence_optuna() -> Iterator[None]:
    """Keep Optuna's logs and warnings from the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
