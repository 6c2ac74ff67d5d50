"""What earlier searches say of a new one's trials, which fades as it gets trials of its own.

First their best configurations are tried. Then a sampler that learns sees their trials beside the
search's own, fewer with each own trial: all of them (at most 64) before the first, none from as
many on as they are (at most 16). Which they are follows from the number of the trial alone.

Scores of different data cannot be compared, ranks can: each search's, and the new one's, are given
as normal deviates of their ranks.

Source: Salinas et al. 2020, https://proceedings.mlr.press/v119/salinas20a.html (scores of each
task as normal deviates of their ranks).
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.space import Space, same_value
from rnntune.tuning.warm_start import EarlierSearch, EarlierTrial, WarmStart

__all__ = ["Observation", "first_points", "normal_scores", "observations"]
_MOST_POINTS = 3
_MOST_OBSERVATIONS = 64
_MOST_OWN_TRIALS = 16
_STREAM = 2**31
"""Keeps the draws for settings that an earlier trial lacks apart from those of own trials."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """An earlier trial as a sampler sees it.

    Args:
        values: of all settings of the space.
        scores: of each aim, the larger the number of the aim's own metric the larger.
    """

    values: Mapping[str, Any]
    scores: tuple[float, ...]


def normal_scores(values: Sequence[float]) -> list[float]:
    """Normal deviates of the ranks of some numbers; equal numbers have equal ones.

    Returns:
        In the order of the numbers, increasing with them; the middle one has 0.
    """
    normal, count = statistics.NormalDist(), len(values)
    ordered = sorted(values)
    first = {value: ordered.index(value) for value in set(values)}
    ranks = [first[value] + ordered.count(value) / 2 for value in values]
    return [normal.inv_cdf(rank / count) for rank in ranks]


def first_points(warm: WarmStart, space: Space, aims: Aims) -> list[dict[str, Any]]:
    """The best earlier configurations, of each search in turn, to try before anything else.

    Settings that the earlier search lacked are missing, and so are those of kind `grid`.
    """
    swept = {dimension.name for dimension in space.swept}
    ranked = [
        [
            {name: value for name, value in trial.values.items() if name not in swept}
            for trial, _ in _ranked(search, aims)
        ]
        for search in warm.searches
    ]
    points: list[dict[str, Any]] = []
    for place in range(max(map(len, ranked))):
        for of_search in ranked:
            point = of_search[place] if place < len(of_search) else {}
            if point and not any(same_value(point, other) for other in points):
                points.append(point)
            if len(points) == _MOST_POINTS:
                return points
    return points


def observations(
    warm: WarmStart, space: Space, aims: Aims, seed: int, number: int
) -> list[Observation]:
    """The earlier trials that count for an own trial.

    Of those that no longer count as many good ones as bad ones are gone.

    Args:
        warm: what the earlier searches tried.
        space: of the search.
        aims: of the search.
        seed: of the search; settings that an earlier trial lacks are drawn.
        number: of the own trial, from 0.
    """
    found = []
    for index, search in enumerate(warm.searches):
        for place, (trial, scores) in enumerate(_ranked(search, aims)):
            drawn = space.sample(np.random.default_rng([_STREAM, seed, index, place]))
            found.append(Observation(values={**drawn, **trial.values}, scores=scores))
    found.sort(key=lambda each: -_sum(each.scores, aims))
    most = min(len(found), _MOST_OBSERVATIONS)
    last = min(len(found), _MOST_OWN_TRIALS)
    kept = round(most * max(0.0, 1 - number / last))
    return [found[round(n * (len(found) - 1) / max(kept - 1, 1))] for n in range(kept)]


def _ranked(search: EarlierSearch, aims: Aims) -> list[tuple[EarlierTrial, tuple[float, ...]]]:
    """The trials of an earlier search with their scores, the best first."""
    columns = [
        normal_scores([trial.metrics[name] for trial in search.trials]) for name in aims.names
    ]
    pairs = list(zip(search.trials, zip(*columns, strict=True), strict=True))
    return sorted(pairs, key=lambda pair: -_sum(pair[1], aims))


def _sum(scores: Sequence[float], aims: Aims) -> float:
    metrics: tuple[Metric, ...] = aims.metrics
    return sum(m.score(s) for m, s in zip(metrics, scores, strict=True))
