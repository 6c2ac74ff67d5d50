"""The methods that `replay.py` compares: who proposes, and who goes on.

A name has the searcher, then the scheduler: `tpe+asha`. Searchers: `random`; `tpe`; `tpe-lists`,
with lists of numbers as categories; `gp`, Optuna's; `tpe-loss` and `gp-loss`, which learn from the
loss of first epochs; `tpe-budget`, which learns from the most epochs that enough trials have, as
BOHB's model does; `surface`, `surface-loss` and `cqr` of `replay_surfaces.py`. Schedulers: none;
`asha`; `hyperband`, whose brackets stop after a third of the epochs or never
(`tpe-budget+hyperband` is BOHB, https://arxiv.org/abs/1807.01774); `oneepoch`, one epoch for all,
then the best few to their end (https://arxiv.org/abs/2307.15422); `lossepoch`, the same with the
best by their loss; `semifinal`, the same with three of sixteen that go on to half of the epochs and
the best third of these to the end (`semifinal2`: to the second epoch first), in wall time from 32
on; `thaw`, which chooses anew at each epoch; `halving`, synchronous successive halving that goes on
where a trial was left; `promote`, the same without waiting (ASHA as its paper has it). A `default`
in front starts with the settings that `auto` chooses. The default of `tune` is
`default+tpe-loss+semifinal`.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from replay import Curves, Replay
from replay_surfaces import Quantiles, Surface, Thawing

from rnntune.config.schema import TuneConfig
from rnntune.tuning import sampler
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.scheduler import Asha
from rnntune.tuning.space import Dimension, Space

_METRIC = "validation_accuracy"
_ETA = 3


class Guided:
    """A searcher of rnntune's that chooses among the free rows of a table."""

    def __init__(self, searcher: str, num_trials: int, form: str = "") -> None:
        self.searcher, self.num_trials = searcher, num_trials
        self.as_lists, self.by_loss = form == "lists", form == "loss"
        self.by_budget = form == "budget"

    def row(self, replay: Replay) -> int:
        """The row to try next."""
        space, number = replay.curves.space, len(replay.trials)
        trials = replay.trials
        if self.as_lists:
            space, trials = _texts(space), [_with_texts(t, space) for t in trials]
        if self.by_budget:
            trials = _at_budget(trials, replay.curves.num_epochs, len(space.dimensions) + 2)
        config = TuneConfig(
            searcher=self.searcher,  # type: ignore[arg-type]
            num_trials=self.num_trials,
            seed=replay.seed,
            metric=_METRIC,
        )
        with _pool(replay, space) as chosen:
            sampler.propose(config, space, number, trials, by_loss=self.by_loss)
        return chosen[0]


def _at_budget(trials: list[Trial], num_epochs: int, enough: int) -> list[Trial]:
    """Trials as they were after the most epochs, all or a third, that enough of them have."""
    for epochs in (num_epochs, num_epochs // _ETA):
        reached = [trial for trial in trials if len(trial.history) >= epochs]
        if len(reached) >= enough:
            break
    return [
        dataclasses.replace(t, history=t.history[:epochs], state=TrialState.FINISHED)
        for t in reached
    ]


class RandomRows:
    """Rows at random."""

    def row(self, replay: Replay) -> int:
        """The row to try next."""
        return replay.random_row()


@functools.lru_cache
def _texts(space: Space) -> Space:
    """The space with numbers of lists as texts, which have no order."""
    return Space(
        dimensions=tuple(
            Dimension(name=d.name, kind=d.kind, args=tuple(map(str, d.args))) if d.is_list else d
            for d in space.dimensions
        )
    )


def _with_texts(trial: Trial, space: Space) -> Trial:
    values = {
        d.name: str(trial.values[d.name]) if d.is_list else trial.values[d.name]
        for d in space.dimensions
    }
    return Trial(**{**trial.__dict__, "values": values})


@functools.lru_cache
def _params(curves_id: int, space: Space) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    curves = _CURVES[curves_id]
    distributions = {d.name: sampler.distribution(d) for d in space.dimensions}
    texts = space is not curves.space
    rows = []
    for values in curves.values:
        row = {}
        for d in space.dimensions:
            value = str(values[d.name]) if d.is_list and texts else values[d.name]
            row[d.name] = sampler.to_param(d, value)
        rows.append(row)
    return distributions, rows


_CURVES: dict[int, Curves] = {}


@contextlib.contextmanager
def _pool(replay: Replay, space: Space) -> Iterator[list[int]]:
    """Let Optuna's samplers choose among the free rows; what they chose is left in the list."""
    _CURVES[id(replay.curves)] = replay.curves
    distributions, rows = _params(id(replay.curves), space)
    free = replay.free_rows
    chosen: list[int] = []
    internal = {
        name: np.array([distribution.to_internal_repr(rows[row][name]) for row in free])
        for name, distribution in distributions.items()
    }

    def at_random() -> dict[str, Any]:
        chosen[:] = [replay.random_row()]
        return {}  # what the sampler draws by itself is not used

    class Estimator(_ParzenEstimator):
        def sample(self, rng: Any, size: int) -> dict[str, np.ndarray]:
            log = self.log_pdf(internal)
            weights = np.exp(log - log.max())
            drawn = rng.choice(len(free), size=size, p=weights / weights.sum())
            return {name: column[drawn] for name, column in internal.items()}

    class Tpe(optuna.samplers.TPESampler):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._parzen_estimator_cls = Estimator

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            params = super().sample_relative(study, trial, search_space)
            if not params:
                return at_random()
            chosen[:] = [int(r) for r in free if all(rows[r][n] == v for n, v in params.items())]
            return params

    class Gp(optuna.samplers.GPSampler):
        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return super().sample_relative(study, trial, search_space) or at_random()

        def _optimize_acqf(self, acqf: Any, best_params: Any) -> np.ndarray:  # noqa: ARG002
            points = acqf.search_space.get_normalized_params(
                [None] * len(free), [rows[row] for row in free]
            )
            best = int(np.argmax(acqf.eval_acqf_no_grad(points)))
            chosen[:] = [int(free[best])]
            return points[best]

    before = optuna.samplers.TPESampler, optuna.samplers.GPSampler
    optuna.samplers.TPESampler, optuna.samplers.GPSampler = Tpe, Gp  # type: ignore[misc]
    try:
        yield chosen
    finally:
        optuna.samplers.TPESampler, optuna.samplers.GPSampler = before  # type: ignore[misc]


class NoScheduler:
    """All trials run to their end."""

    def paused(self, replay: Replay) -> int | None:  # noqa: ARG002
        """The paused trial to go on with."""
        return None

    def is_open(self, replay: Replay) -> bool:  # noqa: ARG002
        """Whether new trials may start."""
        return True

    def goes_on(self, replay: Replay, trial: Trial, epoch: int, score: float) -> bool:  # noqa: ARG002
        """Whether a trial goes on after an epoch."""
        return True


class Stopping(NoScheduler):
    """rnntune's ASHA, which stops what is behind."""

    def __init__(self, num_epochs: int) -> None:
        self._asha = Asha(grace_epochs=1, reduction_factor=3, max_epochs=num_epochs)

    def goes_on(self, replay: Replay, trial: Trial, epoch: int, score: float) -> bool:  # noqa: ARG002
        return not self._asha.on_result(trial.number, epoch, score)


class Hyperband(NoScheduler):
    """Of five trials three are in a bracket that stops those behind after a third of the epochs.

    Source: Li et al. 2018, https://arxiv.org/abs/1603.06560, with a factor of 3 for 6 epochs.
    """

    def __init__(self, num_epochs: int) -> None:
        self._asha = Asha(
            grace_epochs=num_epochs // _ETA, reduction_factor=_ETA, max_epochs=num_epochs
        )

    def goes_on(self, replay: Replay, trial: Trial, epoch: int, score: float) -> bool:  # noqa: ARG002
        return trial.number % 5 >= 3 or not self._asha.on_result(trial.number, epoch, score)


class Halving(NoScheduler):
    """All trials to the first rung, the best to the next, and so on; waits for each rung.

    Args:
        rungs: epochs.
        keeps: part of the trials that goes on past each rung, or the number if it is 1 or more.
        share: part of the budget after which no trial starts.
        ranks: what the trials are compared by at each rung.
        enough: of fewer trials three go on from the first rung to the end.
    """

    def __init__(
        self,
        rungs: tuple[int, ...],
        keeps: tuple[float, ...],
        share: float,
        *ranks: Callable[[Trial], float],
        enough: int = 0,
    ) -> None:
        self._rungs, self._keeps, self._share = rungs, keeps, share
        self._ranks, self._enough = ranks or (_best,) * len(rungs), enough
        self._limits: dict[int, int] = {}
        self._rung = -1
        self._closed = False

    def is_open(self, replay: Replay) -> bool:
        in_flight = 0 if replay.by_time else len(replay._running)
        spent = replay.spent + in_flight / replay.budget
        self._closed = self._closed or spent >= self._share or not len(replay.free_rows)
        return not self._closed

    def paused(self, replay: Replay) -> int | None:
        waiting = [t for t in replay.trials if t.state is not TrialState.FINISHED]
        if self._closed and not replay._running and not self._ready(replay, waiting):
            self._promote(replay)
        ready = self._ready(replay, waiting)
        return max(ready, key=lambda t: _best(t)).number if ready else None

    def _ready(self, replay: Replay, waiting: list[Trial]) -> list[Trial]:
        running = replay.running
        return [
            t
            for t in waiting
            if t.number not in running and len(t.history) < self._limits.get(t.number, 0)
        ]

    def _promote(self, replay: Replay) -> None:
        self._rung += 1
        if self._rung >= len(self._rungs):
            return
        at_rung = [t for t in replay.trials if len(t.history) >= self._rungs[self._rung]]
        keep = self._keeps[self._rung]
        num = int(keep) if keep >= 1 else max(1, round(keep * len(at_rung)))
        rank = self._ranks[self._rung]
        at_rung.sort(key=lambda t: (-rank(t), t.number))
        limit = [*self._rungs[1:], replay.curves.num_epochs][self._rung]
        if len(replay.trials) < self._enough:
            num, limit = 3, replay.curves.num_epochs
        for trial in at_rung[:num]:
            self._limits[trial.number] = limit

    def goes_on(self, replay: Replay, trial: Trial, epoch: int, score: float) -> bool:  # noqa: ARG002
        return epoch < self._limits.get(trial.number, self._rungs[0])


class Promoting(NoScheduler):
    """ASHA as its paper has it: a free worker goes on with the best paused trial, if it is among
    the best 1 / `factor` of its rung."""

    def __init__(self, rungs: tuple[int, ...], factor: float) -> None:
        self._rungs, self._factor = rungs, factor
        self._limits: dict[int, int] = {}

    def paused(self, replay: Replay) -> int | None:
        running = replay.running
        rungs = [*self._rungs, replay.curves.num_epochs]
        for rung, above in reversed(list(itertools.pairwise(rungs))):
            at_rung = [t for t in replay.trials if len(t.history) >= rung]
            at_rung.sort(key=lambda t: (-_at(t, rung), t.number))
            for trial in at_rung[: int(len(at_rung) / self._factor)]:
                if len(trial.history) == rung and trial.number not in running:
                    self._limits[trial.number] = above
                    return trial.number
        return None

    def goes_on(self, replay: Replay, trial: Trial, epoch: int, score: float) -> bool:  # noqa: ARG002
        return epoch < self._limits.get(trial.number, self._rungs[0])


def _best(trial: Trial) -> float:
    return max((epoch[_METRIC] for epoch in trial.history), default=-np.inf)


def _least_loss(trial: Trial) -> float:
    return -min(epoch["validation_loss"] for epoch in trial.history)


def _at(trial: Trial, epoch: int) -> float:
    return max(metrics[_METRIC] for metrics in trial.history[:epoch])


class Combined:
    """A searcher and a scheduler."""

    def __init__(self, searcher: Any, scheduler: NoScheduler, *, default_first: bool) -> None:
        self.searcher, self.scheduler, self.default_first = searcher, scheduler, default_first

    def next(self, replay: Replay) -> int | None:
        """The trial to train on now."""
        if (number := self.scheduler.paused(replay)) is not None:
            return number
        if not self.scheduler.is_open(replay):
            return self.scheduler.paused(replay)
        if not len(replay.free_rows):
            return None
        if self.default_first and not replay.trials:
            return replay.new_trial(0)
        return replay.new_trial(self.searcher.row(replay))

    def goes_on(self, replay: Replay, trial: Trial, epoch: int, score: float) -> bool:
        """Whether a trial that reported goes on at once."""
        return self.scheduler.goes_on(replay, trial, epoch, score)


def make(
    name: str, num_trials: int, num_epochs: int, *, by_time: bool = False
) -> Combined | Thawing:
    """The method of a name, for the budget of so many whole trials.

    Of a budget in wall time the finalists have half; those of one epoch are three, as in `tune`.
    """
    parts = name.split("+")
    default_first = parts[0] == "default"
    searcher_name, scheduler_name = [*parts[default_first:], "none"][:2]
    scheduler = NoScheduler()
    budget = num_trials * num_epochs
    if scheduler_name == "asha":
        scheduler = Stopping(num_epochs)
    elif scheduler_name == "hyperband":
        scheduler = Hyperband(num_epochs)
    elif scheduler_name.startswith(("oneepoch", "lossepoch")):
        keep = int(scheduler_name[9:] or 3)
        if not by_time:  # half of the budget at least is for first epochs
            keep = min(keep, max(1, num_trials // 4))
        share = 0.5 if by_time else 1 - keep * (num_epochs - 1) / budget
        rank = _least_loss if scheduler_name.startswith("loss") else _best
        scheduler = Halving((1,), (keep,), share, rank)
        num_trials = round(budget * share)  # configurations, as `tune` counts them
    elif scheduler_name.startswith("semifinal"):  # as `tune` does
        middle = int(scheduler_name[9:] or (num_epochs + 1) // 2)
        keeps = 3 / 16, 1 / 3
        rest = keeps[0] * (middle - 1) + keeps[0] * keeps[1] * (num_epochs - middle)
        share = 0.5 if by_time else 1 / (1 + rest)
        enough = 32 if by_time else 0
        scheduler = Halving((1, middle), keeps, share, _least_loss, _best, enough=enough)
        num_trials = round(budget * share)
    elif scheduler_name == "halving":  # 1 epoch for n, 3 for a third, all for a ninth: 2 n epochs
        scheduler = Halving((1, 3), (1 / 3, 1 / 3), 1 / 2)
    elif scheduler_name == "halving2":  # 1, 2, 4 epochs: 1 + 1/2 + 2/4 + 2/8
        scheduler = Halving((1, 2, 4), (1 / 2, 1 / 2, 1 / 2), 1 / 2.25)
    elif scheduler_name == "promote":
        scheduler = Promoting((1, 3), 3)
    elif scheduler_name == "promote2":
        scheduler = Promoting((1, 2, 4), 2)
    searcher: Any = RandomRows()
    if searcher_name.startswith("surface"):
        surface = Surface(by_loss=searcher_name.endswith("-loss"))
        if scheduler_name == "thaw":
            return Thawing(surface, default_first=default_first)
        searcher = surface
    elif searcher_name == "cqr":
        searcher = Quantiles()
    elif searcher_name != "random":
        base, _, form = searcher_name.partition("-")
        searcher = Guided(base, num_trials, form)
    return Combined(searcher, scheduler, default_first=default_first)
