"""Methods of `replay.py` with a model over settings and epochs, or over quantiles.

`Surface` is a Gaussian process over (settings, epoch), lists of numbers ordered: with ASHA that
promotes it is MOBSTER (https://arxiv.org/abs/2003.10865), and `Thawing` lets it choose at each
epoch among new and paused trials, as freeze-thaw does (https://arxiv.org/abs/1406.3896).
`Quantiles` draws from conformal quantiles of the last score of each trial, as CQR with ASHA does
(https://arxiv.org/abs/2305.03623). Models are scikit-learn's.
"""

import warnings
from typing import Any

import numpy as np
from replay import Curves, Replay
from scipy.stats import norm
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.optuna_space import distribution, to_param

_METRIC = "validation_accuracy"
_STARTUP = 4
_REFIT = 6


class _Settings:
    """Settings of a table as float (configurations, features) in [0, 1].

    Numbers of lists are in their order, logarithms where the space has them, names one-hot.
    """

    def __init__(self) -> None:
        self._features: np.ndarray | None = None

    def features(self, curves: Curves) -> np.ndarray:
        """The settings of a table, always of the same one."""
        if self._features is None:
            columns = [_column(curves, dimension) for dimension in curves.space.dimensions]
            self._features = np.column_stack(columns)
        return self._features


def _column(curves: Curves, dimension: Any) -> np.ndarray:
    spread = distribution(dimension)
    params = [to_param(dimension, values[dimension.name]) for values in curves.values]
    inner = np.array([spread.to_internal_repr(param) for param in params], dtype=float)
    if hasattr(spread, "choices"):
        return np.eye(len(spread.choices))[inner.astype(int)] / np.sqrt(2)
    low, high = float(spread.low), float(spread.high)
    if spread.log:
        inner, low, high = np.log(inner), np.log(low), np.log(high)
    return ((inner - low) / (high - low))[:, None]


class Surface(_Settings):
    """A Gaussian process over settings and epochs.

    Args:
        by_loss: learn the loss of the validation rows, in place of the metric.
    """

    def __init__(self, *, by_loss: bool = False) -> None:
        super().__init__()
        self.by_loss = by_loss
        self._kernel: Any = None
        self._fitted = 0

    def gain(self, replay: Replay, rows: np.ndarray) -> np.ndarray:
        """Expected improvement of each row's score after its last epoch."""
        curves, features = replay.curves, self.features(replay.curves)
        last = curves.num_epochs
        seen = [(r, h) for r, t in zip(replay.rows, replay.trials, strict=True) for h in t.history]
        name = "validation_loss" if self.by_loss else _METRIC
        sign = -1 if self.by_loss else 1
        y = sign * np.array([h[name] for _, h in seen])
        x = np.array([[*features[r], h["epoch"] / last] for r, h in seen])
        mean, spread = y.mean(), y.std() or 1.0
        y = (y - mean) / spread
        refit = self._kernel is None or len(y) - self._fitted >= _REFIT
        kernel = self._kernel
        if kernel is None:
            scale = np.ones(x.shape[1])
            kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(scale, (0.1, 20), nu=2.5)
            kernel += WhiteKernel(0.01, (1e-4, 0.3))
        process = GaussianProcessRegressor(
            kernel, optimizer="fmin_l_bfgs_b" if refit else None, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(x, y)
        if refit:
            self._kernel, self._fitted = process.kernel_, len(y)
        at = np.column_stack([features[rows], np.ones(len(rows))])
        expected, deviation = process.predict(at, return_std=True)
        z = (expected - y.max()) / deviation
        gained: np.ndarray = deviation * (z * norm.cdf(z) + norm.pdf(z))
        return gained

    def row(self, replay: Replay) -> int:
        """The row to try next."""
        if self.starts(replay):
            return replay.random_row()
        free = replay.free_rows
        return int(free[np.argmax(self.gain(replay, free))])

    @staticmethod
    def starts(replay: Replay) -> bool:
        """Whether there are too few trials to learn from."""
        return sum(bool(t.history) for t in replay.trials) < _STARTUP


class Thawing:
    """At each epoch the trial, new or paused, that is expected to gain most at its end.

    Args:
        surface: the model.
        default_first: start with the first row.
    """

    def __init__(self, surface: Surface, *, default_first: bool) -> None:
        self.surface, self.default_first = surface, default_first

    def next(self, replay: Replay) -> int | None:
        """The trial to train on now."""
        if self.default_first and not replay.trials:
            return replay.new_trial(0)
        running = replay.running
        paused = [
            t.number
            for t in replay.trials
            if t.state is not TrialState.FINISHED and t.number not in running
        ]
        free = replay.free_rows
        if self.surface.starts(replay) and len(free):
            return replay.new_trial(replay.random_row())
        rows = np.array([*(replay.rows[n] for n in paused), *free], dtype=int)
        if not len(rows):
            return None
        best = int(np.argmax(self.surface.gain(replay, rows)))
        return paused[best] if best < len(paused) else replay.new_trial(int(rows[best]))

    def goes_on(self, replay: Replay, trial: Trial, epoch: int, score: float) -> bool:  # noqa: ARG002
        """No trial goes on without being chosen."""
        return False


class Quantiles(_Settings):
    """Draws a score of each free row from conformal quantiles, and takes the best."""

    _LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)

    def row(self, replay: Replay) -> int:
        """The row to try next."""
        seen = [(r, t) for r, t in zip(replay.rows, replay.trials, strict=True) if t.history]
        if len(seen) < 2 * _STARTUP:
            return replay.random_row()
        random = np.random.default_rng([replay.seed, len(replay.trials)])
        free, features = replay.free_rows, self.features(replay.curves)
        x = np.array([features[r] for r, _ in seen])
        y = np.array([t.history[-1][_METRIC] for _, t in seen])
        held = np.zeros(len(y), dtype=bool)
        if len(y) >= 16:  # a split to see by how much the quantiles are off
            held[random.choice(len(y), len(y) // 5, replace=False)] = True
        columns = []
        for level in self._LEVELS:
            model = GradientBoostingRegressor(
                loss="quantile", alpha=level, n_estimators=40, max_depth=3, random_state=0
            ).fit(x[~held], y[~held])
            shift = 0.0
            if held.any():
                shift = float(np.quantile(y[held] - model.predict(x[held]), level))
            columns.append(model.predict(features[free]) + shift)
        drawn = random.integers(len(columns), size=len(free))
        scores = np.stack(columns, axis=1)[np.arange(len(free)), drawn]
        return int(free[np.argmax(scores + 1e-9 * random.random(len(free)))])
