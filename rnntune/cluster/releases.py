"""The releases of Ray that this package runs on; tests run on the oldest and the newest."""

import dataclasses
import re

__all__ = ["NEWEST_RELEASE", "OLDEST_RELEASE", "has_elastic_training", "is_supported"]
OLDEST_RELEASE, NEWEST_RELEASE = (2, 51), (2, 60)
"""Major and minor numbers; `pyproject.toml` has the same ones."""


def is_supported(version: str) -> bool:
    """Whether a version of Ray, such as '2.60.0', belongs to a release in between."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    return OLDEST_RELEASE <= (int(numbers[1]), int(numbers[2])) <= NEWEST_RELEASE


def has_elastic_training() -> bool:
    """Whether the installed Ray trains with as many workers as there happen to be; 2.51 does not.

    Source: `ray.train.ScalingConfig`, whose `num_workers` takes (min, max) since it has a field
        for how often to look for new nodes.
    """
    from ray.train import ScalingConfig

    fields = dataclasses.fields(ScalingConfig)
    return "elastic_resize_monitor_interval_s" in {field.name for field in fields}
