"""What a search aims at: the Pareto front of its trials, and the one of them to choose.

With one metric the front is the best trial. With several, such as accuracy and latency, it is
every trial that no other beats in all of them.
"""

import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

from rnntune.config.metric import COSTS, Metric
from rnntune.config.schema import TuneConfig
from rnntune.tuning.journal import Trial, best_epoch, best_score

__all__ = ["Aims"]


@dataclasses.dataclass(frozen=True)
class Aims:
    """What a search aims at.

    Args:
        metrics: one or more; epochs are compared by the first, a metric of the validation rows.
    """

    metrics: tuple[Metric, ...]

    @classmethod
    def of(cls, tune: TuneConfig) -> "Aims":
        """The aims that a configuration names."""
        return cls(tuple(map(Metric, tune.metrics)))

    @property
    def first(self) -> Metric:
        """By what epochs, and trials in training, are compared."""
        return self.metrics[0]

    @property
    def are_several(self) -> bool:
        """Whether there is more than one."""
        return len(self.metrics) > 1

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(metric.name for metric in self.metrics)

    def values(self, trial: Trial) -> dict[str, float] | None:
        """A trial's values by name, at its best epoch by the first; None: it must not be chosen."""
        if best_score(trial, self.first) is None:
            return None
        costs = {"latency_ms": trial.latency_ms, "num_parameters": trial.num_parameters}
        assert set(costs) == set(COSTS)
        known = {**best_epoch(trial, self.first), **costs}
        values = {name: known.get(name) for name in self.names}
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values.values()):
            return None
        return {name: value for name, value in values.items() if value is not None}

    def front(self, trials: Iterable[Trial]) -> list[Trial]:
        """The trials that no other beats in all aims, the best by the first aim first.

        Of trials with equal values the one with the lower validation loss counts, then the first.
        A trial that is not on the front of some trials is not on that of more trials either.
        """
        scored = [(trial, scores) for trial in trials if (scores := self._scores(trial))]
        front: list[tuple[Trial, tuple[float, ...]]] = []
        for trial, scores in sorted(scored, key=lambda pair: self._rank(*pair)):
            # What comes later in this order beats nothing that came before.
            if not any(all(map(operator.ge, other, scores)) for _, other in front):
                front.append((trial, scores))
        return [trial for trial, _ in front]

    def knee(self, front: Sequence[Trial]) -> Trial | None:
        """The trial of a front that gives the most of all aims together; None of none.

        Each aim is normalised to 0 for the worst of the front and 1 for its best, and the largest
        sum wins: with two aims, the point farthest beyond the line through the two extremes. Among
        equals it is the best by the first aim.

        Source: Das 1999, https://doi.org/10.1007/s001580050111 (the knee is where the front bulges
        farthest beyond the plane through its extremes).
        """
        scores = [s for trial in front if (s := self._scores(trial))]
        if not scores:
            return None
        columns = list(zip(*scores, strict=True))
        spans = [(min(column), max(column) - min(column)) for column in columns]
        sums = [
            sum((s - low) / span for s, (low, span) in zip(row, spans, strict=True) if span)
            for row in scores
        ]
        best = max(sums)
        return next(t for t, s in zip(front, sums, strict=True) if math.isclose(s, best))

    def chosen(self, trials: Iterable[Trial]) -> Trial | None:
        """The trial whose model is the search's: the knee of the front; None: there is none."""
        return self.knee(self.front(trials))

    def _scores(self, trial: Trial) -> tuple[float, ...]:
        """A trial's values with the sign that makes larger better; none if it has none."""
        values = self.values(trial)
        return tuple(m.score(values[m.name]) for m in self.metrics) if values else ()

    def _rank(self, trial: Trial, scores: tuple[float, ...]) -> tuple[float, ...]:
        epoch: Mapping[str, float] = best_epoch(trial, self.first)
        loss = epoch.get("validation_loss", math.inf)
        return (*(-score for score in scores), loss, trial.number)
