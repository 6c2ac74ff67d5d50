"""The search space of a configuration, read and checked before the first trial."""

import contextlib
import difflib
import math
from collections.abc import Mapping
from typing import Any

from rnntune.config.load import Config, flatten
from rnntune.errors import ConfigError
from rnntune.tuning.space import LIST_KINDS, Dimension, Space, same_value

__all__ = ["parse_space"]
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
    "data.validation_source": "trials are compared on the same rows",
    "data.test_fraction": "trials are compared on the same rows",
    "data.validation_fraction": "trials are compared on the same rows",
    "data.seed": "trials are compared on the same rows",
    "data.format": "trials are compared on the same rows",
    "data.encoding": "trials are compared on the same rows",
    "data.delimiter": "trials are compared on the same rows",
    "data.header": "trials are compared on the same rows",
    "data.text_columns": "trials are compared on the same rows, which their text deals out",
    "data.label_column": "trials are compared on the same rows",
    "data.label_delimiter": "trials are compared on the same rows",
    "data.multi_label": "trials are compared on the same rows",
    "data.on_bad_rows": "trials are compared on the same rows",
    "data.cache_dir": "it belongs to the run",
    "train.num_workers": "use tune.workers_per_trial",
    "train.use_gpu": "it belongs to the run",
    "train.resources_per_worker": "it belongs to the run",
    "train.placement": "it belongs to the run",
    "train.keep_checkpoints": "it belongs to the run",
    "train.max_failures": "it belongs to the run",
    "train.checkpoint_every_steps": "it belongs to the run",
    "train.checkpoint_every_s": "it belongs to the run",
}


def parse_space(config: Config) -> Space:
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
    kinds = [*LIST_KINDS, *_RANGES]
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
    if kind in LIST_KINDS:
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
        if any(same_value(value, other) for other in args[:number]):
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
    values = dimension.args if dimension.is_list else [dimension.quantile(q) for q in inside]
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
