"""Search by a Gaussian process, which learns from trials that were stopped early as well."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rnntune.config.metric import COSTS, Metric
from rnntune.config.schema import TuneConfig
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Trial
from rnntune.tuning.optuna_space import ask, distribution, seed_of, to_param
from rnntune.tuning.prior import Observation, normal_scores
from rnntune.tuning.space import Space

__all__ = ["comparable_scores", "propose_gp"]


def propose_gp(
    config: TuneConfig,
    aims: Aims,
    space: Space,
    number: int,
    trials: Sequence[Trial],
    earlier: Sequence[Observation],
    startup: int,
) -> dict[str, Any]:
    """What Optuna's Gaussian process proposes, given all trials so far, for one aim or several.

    Args:
        config: seed.
        aims: to propose for.
        space: what is searched.
        number: of the trial, from 0.
        trials: all trials so far; those without an epoch count with what is expected of them.
        earlier: what earlier searches tried.
        startup: trials at random before the process is asked.

    Source: `optuna.samplers.GPSampler` (logarithm of the expected improvement, Ament et al. 2023,
        https://arxiv.org/abs/2310.20708; with several aims of the improvement of the hypervolume).
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    sampler = optuna.samplers.GPSampler(
        seed=seed_of(config, number), n_startup_trials=startup, warn_independent_sampling=False
    )
    distributions = {d.name: distribution(d) for d in space.dimensions}
    observed: list[tuple[Mapping[str, Any], list[float] | None]] = [
        (each.values, [m.score(s) for m, s in zip(aims.metrics, each.scores, strict=True)])
        for each in earlier
    ]
    columns = [
        _cost_scores(trials, metric) if metric.name in COSTS else comparable_scores(trials, metric)
        for metric in aims.metrics
    ]
    for trial, *scores in zip(trials, *columns, strict=True):
        known = [score for score in scores if score is not None]
        observed.append((trial.values, known if len(known) == len(scores) else None))
    frozen = [
        create_trial(
            state=TrialState.RUNNING if scores is None else TrialState.COMPLETE,
            values=scores,
            params={d.name: to_param(d, values[d.name]) for d in space.dimensions},
            distributions=distributions,
        )
        for values, scores in observed
    ]
    return ask(sampler, ["maximize"] * len(aims.metrics), space, frozen)


def _cost_scores(trials: Sequence[Trial], metric: Metric) -> list[float | None]:
    """What models cost, in the form of `comparable_scores`; of a trial that failed the worst."""
    costs: list[float | None] = []
    for trial in trials:
        cost = trial.latency_ms if metric.name == "latency_ms" else trial.num_parameters
        costs.append(metric.score(cost) if cost else -math.inf if trial.is_over else None)
    return _deviates(costs)


def comparable_scores(trials: Sequence[Trial], metric: Metric) -> list[float | None]:
    """A number for each trial by which all can be compared, however many epochs they have.

    What a trial lacks of its epochs is made up for by what other trials gained in them in the
    mean. The result is the rank as a normal deviate, so that a trial that learned nothing does
    not hide the differences of the others.

    Returns:
        In the order of the trials, larger is better; None: it has no epoch yet.

    Source: the ranks as in Salinas et al. 2020, https://arxiv.org/abs/1909.13595.
    """
    bests = [_best_so_far(trial, metric) for trial in trials]
    longest = max(map(len, bests), default=0)
    gains = []  # from each epoch to the next, in the mean
    for epoch in range(1, longest):
        steps = [best[epoch] - best[epoch - 1] for best in bests if len(best) > epoch]
        finite = [step for step in steps if math.isfinite(step)]
        gains.append(sum(finite) / len(finite) if finite else 0.0)
    final: list[float | None] = [
        best[-1] + sum(gains[len(best) - 1 :]) if best else (-math.inf if trial.is_over else None)
        for trial, best in zip(trials, bests, strict=True)
    ]
    return _deviates(final)


def _deviates(values: Sequence[float | None]) -> list[float | None]:
    """The ranks of what is known as normal deviates."""
    deviates = iter(normal_scores([value for value in values if value is not None]))
    return [None if value is None else next(deviates) for value in values]


def _best_so_far(trial: Trial, metric: Metric) -> list[float]:
    """The best score up to each epoch."""
    best, scores = -math.inf, []
    for metrics in trial.history:
        score = metric.score(float(metrics[metric.name]))
        best = max(best, score) if math.isfinite(score) else best
        scores.append(best)
    return scores
