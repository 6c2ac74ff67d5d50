"""The search space: dotted names of settings and the values that each may take.

    choice: [a, b, ...]            one of these            grid: [a, b, ...]   each of these
    uniform: [low, high]           loguniform: [low, high]
    quniform: [low, high, step]    qloguniform: [low, high, step]
    randint: [low, high]           lograndint: [low, high]
    qrandint: [low, high, step]

Both ends belong to a range; steps are counted from its low end.
"""

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np

from rnntune.errors import ConfigError

__all__ = ["LIST_KINDS", "Dimension", "Space", "grid_point", "same_value"]
LIST_KINDS = ("choice", "grid")
"""Distributions whose values are listed; the others are ranges."""
_MAX_PREPARED = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dimension:
    """One setting and the values it may take.

    Args:
        name: dotted name of the setting.
        kind: of the distribution.
        args: values of a list; low, high and, for a stepped range, step.
    """

    name: str
    kind: str
    args: tuple[Any, ...]

    @property
    def is_list(self) -> bool:
        """Whether the values are listed, not a range."""
        return self.kind in LIST_KINDS

    @property
    def is_ordered(self) -> bool:
        """Whether the values are a list of numbers, so that some are nearer to each other."""
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.args)
        return self.is_list and numbers

    @property
    def is_log(self) -> bool:
        """Whether the logarithm is what is uniform."""
        return "log" in self.kind

    @property
    def is_integer(self) -> bool:
        """Whether the values are integers of a range."""
        return self.kind.endswith("randint")

    @property
    def step(self) -> float | int | None:
        """Distance of neighbouring values of a range; None: any value."""
        if self.kind.startswith("q"):
            return self.args[2]  # type: ignore[no-any-return]
        return 1 if self.is_integer else None

    @property
    def size(self) -> int | None:
        """Number of values; None: without end."""
        if self.is_list:
            return len(self.args)
        return None if self.step is None else self._num_steps() + 1

    @property
    def highest(self) -> Any:
        """The largest value."""
        return max(self.args) if self.is_list else self.nearest(self.args[1])

    def _num_steps(self) -> int:
        low, high = self.args[:2]
        assert self.step is not None
        return int((high - low) / self.step + 1e-9)

    def value(self, index: int) -> Any:
        """A value by its number, of a dimension with an end."""
        if self.is_list:
            return self.args[index]
        assert self.step is not None
        value = self.args[0] + index * self.step
        return value if self.is_integer else round(value, 12)

    def quantile(self, quantile: float) -> Any:
        """The value at a quantile, from 0 to 1, of the distribution."""
        if self.is_list:
            return self.args[min(int(quantile * len(self.args)), len(self.args) - 1)]
        low, high = self.args[:2]
        half = 0.0 if self.step is None else self.step / 2  # so that the ends have their share
        first, last = (low, high) if self.step is None else (low - half, self._last() + half)
        if self.is_log:
            first = max(first, low / 2)
            value = math.exp(math.log(first) + quantile * (math.log(last) - math.log(first)))
        else:
            value = first + quantile * (last - first)
        return self.nearest(value)

    def _last(self) -> Any:
        return self.value(self._num_steps())

    def nearest(self, value: float) -> Any:
        """The value of a range that is nearest to a number."""
        low, high = self.args[:2]
        if self.step is None:
            return min(max(float(value), float(low)), float(high))
        return self.value(min(max(round((value - low) / self.step), 0), self._num_steps()))

    def index(self, value: Any) -> int:
        """The number of a listed value."""
        return next(n for n, v in enumerate(self.args) if same_value(v, value))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of this dimension's."""
        if self.is_list:
            return any(same_value(v, value) for v in self.args)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isclose(self.nearest(value), value, rel_tol=1e-9, abs_tol=1e-12)

    def describe(self) -> str:
        """The distribution as a configuration file writes it."""
        return f"{self.kind} [{', '.join(map(str, self.args))}]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """All settings that are searched.

    Args:
        dimensions: in the order of the configuration.
    """

    dimensions: tuple[Dimension, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Dotted names of the settings."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def size(self) -> int | None:
        """Number of configurations; None: without end."""
        sizes = [dimension.size for dimension in self.dimensions]
        return None if None in sizes else math.prod(s for s in sizes if s is not None)

    def highest(self, name: str, default: Any) -> Any:
        """The largest value of a setting, which is the default if it is not searched."""
        return next((d.highest for d in self.dimensions if d.name == name), default)

    @property
    def num_swept(self) -> int:
        """Number of combinations of the dimensions of kind `grid`."""
        return math.prod(dimension.size or 1 for dimension in self.swept)

    @property
    def swept(self) -> tuple[Dimension, ...]:
        """The dimensions of kind `grid`."""
        return tuple(d for d in self.dimensions if d.kind == "grid")

    def sample(self, random: np.random.Generator) -> dict[str, Any]:
        """Draw a configuration: dotted names to values."""
        return {d.name: d.quantile(float(random.random())) for d in self.dimensions}

    def point(self, number: int) -> dict[str, Any]:
        """A configuration by its number, of a space with an end; the last setting turns fastest."""
        return grid_point(self.dimensions, number)

    def finite(self, prefix: str) -> list[dict[str, Any]]:
        """Every combination of the settings that begin with a prefix.

        Raises:
            ConfigError: there are too many to prepare data for each.
        """
        chosen = [d for d in self.dimensions if d.name.startswith(prefix)]
        sizes = [math.inf if d.size is None else d.size for d in chosen]
        if math.prod(sizes) > _MAX_PREPARED:
            named = ", ".join(f"{d.name} {d.describe()}" for d in chosen)
            raise ConfigError(
                f"tune.space: {named}: {math.prod(sizes):,} combinations, and data is prepared "
                f"for each before the search; use choice, at most {_MAX_PREPARED} in all"
            )
        values = [[d.value(n) for n in range(d.size or 0)] for d in chosen]
        names = [d.name for d in chosen]
        return [dict(zip(names, row, strict=True)) for row in itertools.product(*values)]


def grid_point(dimensions: tuple[Dimension, ...], number: int) -> dict[str, Any]:
    """One combination of dimensions with an end, by its number."""
    values = {}
    for dimension in reversed(dimensions):
        assert dimension.size is not None
        number, index = divmod(number, dimension.size)
        values[dimension.name] = dimension.value(index)
    return {dimension.name: values[dimension.name] for dimension in dimensions}


def same_value(one: Any, other: Any) -> bool:
    """Whether two listed values are the same; true and 1 are not."""
    return json.dumps(one, default=str) == json.dumps(other, default=str)
