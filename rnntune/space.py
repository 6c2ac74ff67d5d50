"""The search space: dotted names of settings to distributions, checked before the first trial.

    choice: [a, b, ...]            one of these            grid: [a, b, ...]   each of these
    uniform: [low, high]           loguniform: [low, high]
    quniform: [low, high, step]    qloguniform: [low, high, step]
    randint: [low, high]           lograndint: [low, high]
    qrandint: [low, high, step]

Both ends belong to a range; steps are counted from its low end.
"""

import contextlib
import dataclasses
import difflib
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnntune.config import Config, flatten
from rnntune.errors import ConfigError

__all__ = ["Dimension", "Space", "parse"]

_LISTS = ("choice", "grid")
_MAX_PREPARED = 16
_RANGES = {
    "uniform": 2,
    "loguniform": 2,
    "quniform": 3,
    "qloguniform": 3,
    "randint": 2,
    "lograndint": 2,
    "qrandint": 3,
}
_NOT_SEARCHED = {
    "data.source": "trials are compared on the same rows",
    "data.test_source": "trials are compared on the same rows",
    "data.test_fraction": "trials are compared on the same rows",
    "data.validation_fraction": "trials are compared on the same rows",
    "data.seed": "trials are compared on the same rows",
    "data.format": "trials are compared on the same rows",
    "data.text_columns": "trials are compared on the same rows, which their text deals out",
    "data.label_column": "trials are compared on the same rows",
    "data.on_bad_rows": "trials are compared on the same rows",
    "data.cache_dir": "it belongs to the run",
    "train.num_workers": "use tune.workers_per_trial",
    "train.use_gpu": "it belongs to the run",
    "train.resources_per_worker": "it belongs to the run",
    "train.placement": "it belongs to the run",
    "train.keep_checkpoints": "it belongs to the run",
    "train.max_failures": "it belongs to the run",
    "train.checkpoint_every_steps": "it belongs to the run",
}


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
        return self.kind in _LISTS

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

    def at(self, place: float) -> Any:
        """The value at a place from 0 to 1 of the distribution's quantiles."""
        if self.is_list:
            return self.args[min(int(place * len(self.args)), len(self.args) - 1)]
        low, high = self.args[:2]
        half = 0.0 if self.step is None else self.step / 2  # so that the ends have their share
        first, last = (low, high) if self.step is None else (low - half, self._last() + half)
        if self.is_log:
            first = max(first, low / 2)
            found = math.exp(math.log(first) + place * (math.log(last) - math.log(first)))
        else:
            found = first + place * (last - first)
        return self.nearest(found)

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
        return next(n for n, v in enumerate(self.args) if _same(v, value))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of this dimension's."""
        if self.is_list:
            return any(_same(v, value) for v in self.args)
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
        return {d.name: d.at(float(random.random())) for d in self.dimensions}

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


def parse(config: Config) -> Space:
    """The search space of a configuration, checked down to each value.

    Raises:
        ConfigError: an unknown name or distribution, a range that is none, a value that the
            setting refuses; the message names the key.
    """
    if not config.tune.space:
        raise ConfigError("tune.space is empty; give it dotted names of settings")
    valid = [name for name in flatten(Config().to_dict()) if "." in name]
    dimensions = []
    for name, spec in config.tune.space.items():
        _check_name(name, valid)
        dimension = _dimension(name, spec)
        _check_values(dimension, config)
        dimensions.append(dimension)
    space = Space(dimensions=tuple(dimensions))
    space.finite("data.")
    space.finite("model.word_vectors")
    for number, point in enumerate(config.tune.points_to_evaluate):
        _check_point(f"tune.points_to_evaluate[{number}]", point, space)
    return space


def _check_name(name: str, valid: list[str]) -> None:
    searched = [v for v in valid if not v.startswith("tune.") and v not in _NOT_SEARCHED]
    if name in _NOT_SEARCHED:
        raise ConfigError(f"tune.space: {name} cannot be searched: {_NOT_SEARCHED[name]}")
    if name not in searched:
        close = difflib.get_close_matches(name, searched, 1)
        group = [v for v in searched if v.split(".")[0] == name.split(".")[0]]
        hint = f" (did you mean {close[0]}?)" if close else ""
        names = ", ".join(group or searched)
        raise ConfigError(f"tune.space: unknown setting {name}{hint}; valid: {names}")


def _dimension(name: str, spec: Any) -> Dimension:
    kinds = [*_LISTS, *_RANGES]
    where = f"tune.space: {name}"
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise ConfigError(
            f"{where}: must be one distribution such as {{choice: [...]}}, not {spec!r}"
        )
    kind, args = next(iter(spec.items()))
    if kind not in kinds:
        close = difflib.get_close_matches(str(kind), kinds, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"{where}: unknown distribution {kind}{hint}; valid: {', '.join(kinds)}")
    if not isinstance(args, list | tuple):
        raise ConfigError(f"{where}: {kind} must be a list, not {args!r}")
    if kind in _LISTS:
        _check_list(where, kind, args)
    else:
        args = [_number(value) for value in args]
        _check_range(where, kind, args)
    return Dimension(name=name, kind=kind, args=tuple(args))


def _number(value: Any) -> Any:
    """The number that a text is: to YAML 1e-4, without a point, is a text."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _check_list(where: str, kind: str, args: list[Any] | tuple[Any, ...]) -> None:
    if not args:
        raise ConfigError(f"{where}: {kind} is empty")
    for number, value in enumerate(args):
        if any(_same(value, other) for other in args[:number]):
            raise ConfigError(f"{where}: {kind} has {value!r} twice")


def _check_range(where: str, kind: str, args: list[Any] | tuple[Any, ...]) -> None:
    form = "[low, high, step]" if _RANGES[kind] == 3 else "[low, high]"
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in args)
    if len(args) != _RANGES[kind] or not numbers or not all(map(math.isfinite, args)):
        raise ConfigError(f"{where}: {kind} must be {form} in numbers, not {list(args)!r}")
    if kind.endswith("randint") and not all(isinstance(v, int) for v in args):
        raise ConfigError(f"{where}: {kind} must be {form} in integers, not {list(args)!r}")
    if args[0] >= args[1]:
        raise ConfigError(f"{where}: {kind}: {args[0]} is not less than {args[1]}")
    if "log" in kind and args[0] <= 0:
        raise ConfigError(f"{where}: {kind}: {args[0]} must be more than 0 to have a logarithm")
    if len(args) == 3 and not 0 < args[2] <= args[1] - args[0]:
        raise ConfigError(f"{where}: {kind}: the step {args[2]} must lie within the range")


def _check_values(dimension: Dimension, config: Config) -> None:
    """Refuse values that the setting would refuse: all of a list, ends and inside of a range."""
    inside = () if dimension.is_list else (0.0, 0.387, 1.0)
    values = dimension.args if dimension.is_list else [dimension.at(place) for place in inside]
    for value in values:
        _check_value(dimension, value, config)


def _check_value(dimension: Dimension, value: Any, config: Config) -> None:
    try:
        config.override({dimension.name: value})
    except ConfigError as error:
        whole = not dimension.is_list and not dimension.is_integer and "integer" in str(error)
        hint = "; use randint, lograndint or qrandint" if whole else ""
        raise ConfigError(f"tune.space: {error} in {dimension.describe()}{hint}") from error


def _check_point(where: str, point: Mapping[str, Any], space: Space) -> None:
    by_name = {dimension.name: dimension for dimension in space.dimensions}
    for name, value in point.items():
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"{where}: {name} is not in tune.space{hint}")
        if not by_name[name].holds(value):
            raise ConfigError(f"{where}: {name}: {value!r} is not in {by_name[name].describe()}")


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, default=str) == json.dumps(other, default=str)
