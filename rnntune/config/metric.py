"""What epochs and trials are compared by, and which way each of these is better."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal, get_args

__all__ = ["COSTS", "Metric", "MetricName", "aim_names"]
MetricName = Literal[
    "validation_accuracy", "validation_macro_f1", "validation_micro_f1", "validation_loss"
]
"""Metrics of the validation rows, which every epoch has."""
COSTS = ("latency_ms", "num_parameters")
"""What a trial's model costs, whatever it has learned; a search may name them beside a metric."""
_SMALLER_IS_BETTER = frozenset({"validation_loss", *COSTS})


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of the validation rows, or a cost of the model.

    Args:
        name: as the metrics of an epoch have it; 'auto', where it is not yet known that rows have
            several labels: that of one label a row.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name == "auto":
            object.__setattr__(self, "name", "validation_accuracy")

    @property
    def mode(self) -> Literal["max", "min"]:
        """'max' where larger values are better, else 'min'."""
        return "min" if self.name in _SMALLER_IS_BETTER else "max"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The same in Optuna's words."""
        return "minimize" if self.mode == "min" else "maximize"

    @property
    def short_name(self) -> str:
        """The name without its split, for tables."""
        return self.name.removeprefix("validation_")

    def score(self, value: float) -> float:
        """The value with the sign that makes larger better."""
        return -value if self.mode == "min" else value

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value is better than another."""
        return self.score(value) > self.score(than)

    def best(self, values: Iterable[float]) -> float | None:
        """The best of the finite values; None without one."""
        finite = [value for value in values if math.isfinite(value)]
        return max(finite, key=self.score, default=None)


def aim_names(value: object) -> str | tuple[str, ...]:
    """The name of what a search aims at, or the names of several, checked.

    Args:
        value: a name, names with commas between them, or a list of names.

    Raises:
        ValueError: another value, a name twice, or no metric of the validation rows at first.
    """
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise ValueError("must be a name or a list of names")
    names = tuple(name.strip() if isinstance(name, str) else name for name in names)
    metrics: tuple[str, ...] = get_args(MetricName)
    if names == ("auto",):
        return "auto"
    for name in names:
        if name not in (*metrics, *COSTS):
            valid = ", ".join((*metrics, *COSTS))
            raise ValueError(f"must be auto, or one or several of {valid}")
    if names[0] in COSTS:
        raise ValueError(
            "the first must be a metric of the validation rows, by which epochs are compared, "
            "such as validation_accuracy"
        )
    if len(set(names)) < len(names):
        raise ValueError("names something twice")
    return names[0] if len(names) == 1 else names
