"""What to try next, and when to stop: functions of the trials so far, with no state of their own.

Trial n of a search draws from a generator seeded with (seed, n), so a random search or a grid
proposes the same trials however often it was interrupted. TPE and the Gaussian process look at
the trials so far: with several at once they depend on which of them end first.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnntune.config.metric import Metric
from rnntune.config.schema import TuneConfig
from rnntune.errors import ConfigError
from rnntune.tuning.aims import Aims
from rnntune.tuning.first_epochs import compared_by_loss
from rnntune.tuning.gaussian_process import propose_gp
from rnntune.tuning.journal import Trial, TrialState, best_score
from rnntune.tuning.optuna_space import ask, distribution, seed_of, to_param
from rnntune.tuning.prior import Observation, first_points, normal_scores, observations
from rnntune.tuning.space import Space, grid_point, same_value
from rnntune.tuning.warm_start import WarmStart

__all__ = ["check_searcher", "count_trials", "propose"]
_GUIDED = ("tpe", "gp")
_MIN_STARTUP, _MAX_STARTUP = 4, 10


def check_searcher(config: TuneConfig, space: Space) -> None:
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
    if config.searcher in _GUIDED and space.swept:
        raise ConfigError(
            f"tune.space: {space.swept[0].name}: {config.searcher} cannot sweep a grid; use "
            "choice, or tune.searcher random or grid"
        )
    if config.searcher == "grid" and config.warm_start:
        raise ConfigError(
            "tune.warm_start: a grid tries every point, whatever was tried before; leave it out, "
            "or use another tune.searcher"
        )
    metric = Metric(config.metrics[0])
    if config.mode not in (None, metric.mode):
        raise ConfigError(
            f"tune.mode: {config.mode} of {metric.name} would choose the worst; leave mode out"
        )


def count_trials(config: TuneConfig, space: Space) -> int:
    """Trials of a whole search: those asked for, or every point of a grid (and extra points)."""
    if config.searcher == "grid":
        assert space.size is not None
        return space.size + len(config.points_to_evaluate)
    return config.num_trials * space.num_swept


def propose(
    config: TuneConfig,
    space: Space,
    number: int,
    trials: Sequence[Trial],
    warm: WarmStart | None = None,
    default: Mapping[str, Any] | None = None,
    *,
    by_loss: bool = False,
) -> dict[str, Any]:
    """The settings of a trial.

    First come the points that the user names, then the best of earlier searches, then the default,
    once with each combination of swept settings; a grid has only its own points and the user's.

    Args:
        config: searcher, seed and points to try first.
        space: what is searched.
        number: of the trial, from 0.
        trials: all trials so far; only TPE and the Gaussian process look at them.
        warm: what earlier searches tried.
        default: the settings without a search, where the space has them.
        by_loss: whether a search with one aim learns from the loss of first epochs.
    """
    random = np.random.default_rng([config.seed, number])
    points: list[Mapping[str, Any]] = list(config.points_to_evaluate)
    if warm is not None:
        points += first_points(warm, space, Aims.of(config))
    if default and config.searcher != "grid" and not _is_among(default, points):
        points += [default] * space.num_swept
    if config.searcher == "grid":
        after = number - len(points)
        return space.point(after) if after >= 0 else {**space.sample(random), **points[number]}
    if config.searcher in _GUIDED and number >= len(points):
        aims = Aims.of(config)
        earlier: Sequence[Observation] = []
        if warm is not None:
            earlier = observations(warm, space, aims, config.seed, number)
        if by_loss and not aims.are_several:
            aims, trials, earlier = compared_by_loss(aims, trials, earlier, config.grace_epochs)
        startup = min(max(count_trials(config, space) // 4, _MIN_STARTUP), _MAX_STARTUP)
        search = propose_gp if config.searcher == "gp" else _propose_tpe
        return search(config, aims, space, number, trials, earlier, startup)
    values = space.sample(random)
    if space.swept:
        values |= grid_point(space.swept, number % space.num_swept)
    if number < len(points):
        values |= points[number]
    return values


def _is_among(default: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        all(name in point and same_value(point[name], value) for name, value in default.items())
        for point in points
    )


def _propose_tpe(
    config: TuneConfig,
    aims: Aims,
    space: Space,
    number: int,
    trials: Sequence[Trial],
    earlier: Sequence[Observation],
    startup: int,
) -> dict[str, Any]:
    """Optuna's tree-structured Parzen estimator, given all trials so far, for one aim or several.

    Source: Bergstra et al. 2011; running trials count as bad ones (constant liar), and those
    that were stopped early are ranked by the epoch they reached.
    """
    import optuna

    sampler = optuna.samplers.TPESampler(
        seed=seed_of(config, number),
        n_startup_trials=startup,
        constant_liar=True,
        multivariate=True,
    )
    distributions = {d.name: distribution(d) for d in space.dimensions}
    frozen = [_earlier_trial(each, space, distributions) for each in earlier]
    scores = _own_scores(trials, aims) if earlier else {}
    frozen += [
        _frozen_trial(trial, aims, trials, space, distributions, scores.get(trial.number))
        for trial in trials
    ]
    return ask(sampler, [metric.direction for metric in aims.metrics], space, frozen)


def _own_scores(trials: Sequence[Trial], aims: Aims) -> dict[int, list[float]]:
    """The scores of a search's own trials in the form of those of earlier ones."""
    scored = {t.number: values for t in trials if _is_known(t) and (values := aims.values(t))}
    columns = [normal_scores([v[name] for v in scored.values()]) for name in aims.names]
    rows = zip(*columns, strict=True)
    return {number: list(row) for number, row in zip(scored, rows, strict=True)}


def _earlier_trial(each: Observation, space: Space, distributions: dict[str, Any]) -> Any:
    from optuna.trial import create_trial

    return create_trial(
        values=list(each.scores),
        params=_params(each.values, space),
        distributions=distributions,
    )


def _params(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Settings as Optuna has them."""
    return {d.name: to_param(d, values[d.name]) for d in space.dimensions}


def _frozen_trial(
    trial: Trial,
    aims: Aims,
    trials: Sequence[Trial],
    space: Space,
    distributions: dict[str, Any],
    scores: list[float] | None,
) -> Any:
    from optuna.trial import TrialState as optuna_states  # noqa: N813
    from optuna.trial import create_trial

    params = _params(trial.values, space)
    if aims.are_several:
        values = (scores or _values(trial, aims, trials)) if _is_known(trial) else None
        return create_trial(
            state=optuna_states.RUNNING if values is None else optuna_states.COMPLETE,
            values=values,
            params=params,
            distributions=distributions,
        )
    metric = aims.first
    worst = metric.score(-math.inf)
    steps = {h["epoch"]: h[metric.name] for h in trial.history if math.isfinite(h[metric.name])}
    state, value = optuna_states.RUNNING, None
    if trial.state is TrialState.FINISHED:
        state, value = optuna_states.COMPLETE, scores[0] if scores else best_score(trial, metric)
    elif trial.state in (TrialState.STOPPED, TrialState.PAUSED) and steps:
        state = optuna_states.PRUNED
    elif trial.is_over:
        state, value = optuna_states.COMPLETE, worst
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        intermediate_values=steps,
    )


def _is_known(trial: Trial) -> bool:
    """Whether a trial says something by now: it is over, or waits after its first epochs."""
    return trial.is_over or trial.state is TrialState.PAUSED


def _values(trial: Trial, aims: Aims, trials: Sequence[Trial]) -> list[float] | None:
    """A trial's values of several aims; of one without a score the worst that others have.

    A trial that was stopped early counts with what it reached: with several aims Optuna compares
    values alone, not how far trials came.
    """
    if (own := aims.values(trial)) is not None:
        return list(own.values())
    others = [values for each in trials if (values := aims.values(each)) is not None]
    if not others:
        return None
    return [min((o[m.name] for o in others), key=m.score) for m in aims.metrics]
