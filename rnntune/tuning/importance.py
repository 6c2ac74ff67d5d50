"""Which settings mattered in a search, and how far that can be told."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnntune.config.metric import Metric
from rnntune.tuning.journal import Trial, best_score
from rnntune.tuning.optuna_space import silence_optuna

__all__ = ["importance", "importance_interval", "undecided"]
_FEWEST = 4
_RESAMPLES, _TREES = 20, 16


def importance(
    trials: Sequence[Trial], names: Sequence[str], metric: Metric, seed: int
) -> dict[str, float]:
    """How much of the spread of scores each setting explains; the most important first.

    Returns:
        Setting to a share of 1; empty with fewer than four scores or equal ones.

    Source: Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html (fANOVA), with
    each value given to the regression forest by its rank or its number.
    """
    codes, scores = _scored(trials, names, metric)
    if (shares := _shares(codes, scores, seed)) is None:
        return {}
    found = {name: round(shares.get(name, 0.0), 4) for name in names}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def importance_interval(
    trials: Sequence[Trial], names: Sequence[str], metric: Metric, seed: int
) -> dict[str, list[float]]:
    """Between which shares a setting's importance lies, if the trials had been others.

    Forests of other seeds, each on trials that are drawn from these with replacement.

    Returns:
        Setting to the 2.5% and 97.5% quantiles; empty where `importance` is.

    Source: Efron 1979, https://doi.org/10.1214/aos/1176344552 (the bootstrap).
    """
    codes, scores = _scored(trials, names, metric)
    if len(scores) < _FEWEST:
        return {}
    random = np.random.default_rng(seed)
    found: list[list[float]] = []
    for number in range(_RESAMPLES):
        rows = random.integers(len(scores), size=len(scores))
        drawn = {name: codes[name][rows] for name in names}
        if (shares := _shares(drawn, scores[rows], seed + number, trees=_TREES)) is not None:
            found.append([shares.get(name, 0.0) for name in names])
    if not found:
        return {}
    low, high = np.quantile(np.array(found), [0.025, 0.975], axis=0)
    return {
        name: [round(float(low[column]), 4), round(float(high[column]), 4)]
        for column, name in enumerate(names)
    }


def undecided(
    shares: Mapping[str, float], intervals: Mapping[str, Sequence[float]]
) -> tuple[str, ...]:
    """The settings of which cannot be told which one mattered most; empty: the first did.

    Args:
        shares: as `importance` gives them, the largest first.
        intervals: as `importance_interval` gives them.
    """
    if not shares or not intervals:
        return ()
    first = next(iter(shares))
    least = intervals[first][0]
    reach = tuple(name for name in shares if name == first or intervals[name][1] >= least)
    return reach if len(reach) > 1 else ()


def _scored(
    trials: Sequence[Trial], names: Sequence[str], metric: Metric
) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Numbers for the values of each setting, and the scores; of the trials that have one.

    Trials whose settings changed in training say nothing of their last ones.
    """
    fixed = [trial for trial in trials if not trial.has_changed]
    scored = [(t, s) for t in fixed if (s := best_score(t, metric)) is not None]
    codes = {name: np.array(_codes([t.values[name] for t, _ in scored])) for name in names}
    return codes, np.array([score for _, score in scored])


def _shares(
    codes: Mapping[str, np.ndarray[Any, Any]],
    scores: np.ndarray[Any, Any],
    seed: int,
    *,
    trees: int = 64,
) -> dict[str, float] | None:
    """The shares of the settings that vary; None: too few scores, or nothing varies."""
    if len(scores) < _FEWEST or len(set(scores.tolist())) < 2:
        return None
    varied = [name for name, values in codes.items() if len(set(values.tolist())) > 1]
    if not varied:
        return None
    import optuna

    with silence_optuna():
        study = optuna.create_study()
        distributions: dict[str, Any] = {
            name: optuna.distributions.IntDistribution(0, int(codes[name].max())) for name in varied
        }
        for row, score in enumerate(scores):
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: int(codes[name][row]) for name in varied},
                    distributions=distributions,
                    value=float(score),
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=seed)
        weights = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(weight) for name, weight in weights.items()}


def _codes(values: Sequence[Any]) -> list[int]:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    keys = [v if numbers else json.dumps(v, default=str) for v in values]
    index = {key: number for number, key in enumerate(sorted(set(keys)))}
    return [index[key] for key in keys]
