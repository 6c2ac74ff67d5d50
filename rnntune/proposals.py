"""What to try next, and when to stop: functions of the trials so far, with no state of their own.

Trial n of a search draws from a generator seeded with (seed, n), so a random search or a grid
proposes the same trials however often it was interrupted. TPE looks at the trials that have ended:
with several at once it depends on which of them end first.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnntune.config import TuneConfig
from rnntune.errors import ConfigError
from rnntune.journal import Trial, quiet_optuna, score
from rnntune.space import Dimension, Space, grid_point

__all__ = ["check", "mode_of", "num_trials", "propose"]

_MIN_STARTUP, _MAX_STARTUP = 4, 10


def mode_of(config: TuneConfig) -> str:
    """'max' or 'min', as the metric wants it; `check` refuses another `mode`."""
    return "min" if config.metric.endswith("loss") else "max"


def check(config: TuneConfig, space: Space) -> None:
    """Refuse a searcher or scheduler that cannot work on a space.

    Raises:
        ConfigError: with what would work.
    """
    if config.searcher == "grid":
        for dimension in space.dimensions:
            if dimension.size is None:
                raise ConfigError(
                    f"tune.searcher: grid needs values with an end, and {dimension.name} is "
                    f"{dimension.describe()}; use grid, choice, randint, qrandint or quniform"
                )
    if config.searcher == "tpe" and space.swept:
        raise ConfigError(
            f"tune.space: {space.swept[0].name}: tpe cannot sweep a grid; use choice, or "
            "tune.searcher random or grid"
        )
    if config.mode not in (None, mode_of(config)):
        raise ConfigError(
            f"tune.mode: {config.mode} of {config.metric} would choose the worst; leave mode out"
        )


def num_trials(config: TuneConfig, space: Space) -> int:
    """Trials of a whole search: those asked for, or every point of a grid (and extra points)."""
    if config.searcher == "grid":
        assert space.size is not None
        return space.size + len(config.points_to_evaluate)
    return config.num_trials * space.num_swept


def propose(
    config: TuneConfig, space: Space, number: int, trials: Sequence[Trial]
) -> dict[str, Any]:
    """The settings of a trial.

    Args:
        config: searcher, seed and points to try first.
        space: what is searched.
        number: of the trial, from 0.
        trials: all trials so far; only TPE looks at them.
    """
    random = np.random.default_rng([config.seed, number])
    points = config.points_to_evaluate
    if config.searcher == "grid":
        after = number - len(points)
        return space.point(after) if after >= 0 else {**space.sample(random), **points[number]}
    if config.searcher == "tpe" and number >= len(points):
        return _tpe(config, space, number, trials)
    values = space.sample(random)
    if space.swept:
        values |= grid_point(space.swept, number % space.num_swept)
    if number < len(points):
        values |= points[number]
    return values


def _tpe(config: TuneConfig, space: Space, number: int, trials: Sequence[Trial]) -> dict[str, Any]:
    """Optuna's tree-structured Parzen estimator, told all trials so far.

    Source: Bergstra et al. 2011; running trials count as bad ones (constant liar), and those
    that were stopped early are ranked by the epoch they reached.
    """
    import optuna

    startup = min(max(num_trials(config, space) // 4, _MIN_STARTUP), _MAX_STARTUP)
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    with quiet_optuna():
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, constant_liar=True, multivariate=True
        )
        maximize = mode_of(config) == "max"
        study = optuna.create_study(
            sampler=sampler, direction="maximize" if maximize else "minimize"
        )
        distributions = {d.name: _distribution(d) for d in space.dimensions}
        for trial in trials:
            study.add_trial(_told(trial, config, space, distributions))
        asked = study.ask(fixed_distributions=distributions)
    return {
        d.name: d.args[asked.params[d.name]] if d.is_list else d.nearest(asked.params[d.name])
        for d in space.dimensions
    }


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if dimension.is_list:
        return CategoricalDistribution(range(len(dimension.args)))
    low, high = dimension.args[:2]
    if dimension.is_log:  # Optuna has no steps on a logarithmic scale; `nearest` makes them
        return FloatDistribution(low, high, log=True)
    if dimension.is_integer:
        return IntDistribution(low, dimension.nearest(high), step=int(dimension.step or 1))
    return FloatDistribution(low, dimension.nearest(high), step=dimension.step)


def _told(trial: Trial, config: TuneConfig, space: Space, distributions: dict[str, Any]) -> Any:
    from optuna.trial import TrialState, create_trial

    mode = mode_of(config)
    worst = -math.inf if mode == "max" else math.inf
    params = {
        d.name: d.index(trial.values[d.name]) if d.is_list else trial.values[d.name]
        for d in space.dimensions
    }
    steps = {h["epoch"]: h[config.metric] for h in trial.history if math.isfinite(h[config.metric])}
    state, value = TrialState.RUNNING, None
    if trial.state == "finished":
        state, value = TrialState.COMPLETE, score(trial, config.metric, mode)
    elif trial.state == "stopped" and steps:
        state = TrialState.PRUNED
    elif trial.is_over:
        state, value = TrialState.COMPLETE, worst
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        intermediate_values=steps,
    )
