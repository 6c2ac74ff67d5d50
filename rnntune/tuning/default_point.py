"""The configuration that a search tries first: what `train` would do with the same settings."""

import math
from typing import Any

from rnntune.config.load import Config, flatten
from rnntune.tuning.space import Dimension, Space

__all__ = ["default_point"]


def default_point(config: Config, space: Space) -> dict[str, Any]:
    """The settings of a configuration, moved to the nearest ones that a space has.

    Args:
        config: with `auto` resolved, so that it says what `train` would do.
        space: what is searched.

    Returns:
        Dotted names to values. Settings of kind `grid` are missing, which have every value anyway,
        and so are those that are near to nothing in the space.
    """
    settings = flatten(config.to_dict())
    swept = {dimension.name for dimension in space.swept}
    return {
        dimension.name: value
        for dimension in space.dimensions
        if dimension.name not in swept
        for value in _nearest(dimension, settings[dimension.name])
    }


def _nearest(dimension: Dimension, value: Any) -> tuple[Any, ...]:
    """The value of a dimension that is nearest to one, or nothing."""
    if dimension.is_list and dimension.holds(value):
        return (dimension.args[dimension.index(value)],)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ()
    if not dimension.is_list:
        return (dimension.nearest(value),)
    if not dimension.is_ordered:
        return ()
    return (min(dimension.args, key=lambda other: abs(other - value)),)
