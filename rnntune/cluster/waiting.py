"""What a command says while the cluster has no room for it yet."""

import contextlib
import time
from collections.abc import Callable, Mapping

__all__ = ["await_room", "missing_room"]
_FIRST_S = 3.0
_EVERY_S = 10.0
_EVERY_LATER_S = 30.0
_POLL_S = 1


def await_room(
    workers: int,
    each: Mapping[str, float],
    tell: Callable[[str], None],
    *,
    spread: bool = False,
) -> None:
    """Wait until the connected cluster has room, and say now and then what is waited for.

    What is asked for is held for a moment and given back, so that an autoscaler brings nodes
    for it and whoever asked takes it next.

    Args:
        workers: how many are to start at once.
        each: resources of one of them, by Ray's names.
        tell: called with a line: after a few seconds, then every ten, later every thirty.
        spread: whether they go to different nodes where they can.

    Source: https://docs.ray.io/en/latest/ray-core/scheduling/placement-group.html
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    bundle = {name: amount for name, amount in each.items() if amount} or {"CPU": 1.0}
    begin = told = time.monotonic()
    asked = placement_group([bundle] * workers, strategy="SPREAD" if spread else "PACK")
    try:
        while not asked.wait(_POLL_S):
            now = time.monotonic()
            if now - begin >= _FIRST_S and (told == begin or now - told >= _pause_s(now - begin)):
                told = now
                tell(_line(workers, bundle, now - begin))
    finally:
        with contextlib.suppress(ray.exceptions.RayError):
            remove_placement_group(asked)


def missing_room(workers: int, each: Mapping[str, float], waited_s: float) -> str | None:
    """What is waited for if the cluster lost so many nodes that it cannot hold the workers.

    Args:
        workers: the fewest that go on.
        each: resources of one of them, by Ray's names.
        waited_s: so far.

    Returns:
        A line; None: all nodes together have what the workers need.
    """
    import ray

    try:
        total = ray.cluster_resources()
    except ray.exceptions.RayError:  # the connection is another's to mend
        return None
    needed = {name: amount for name, amount in each.items() if amount}
    if all(total.get(name, 0.0) >= workers * amount for name, amount in needed.items()):
        return None
    return "nodes are lost: " + _line(workers, needed, waited_s)


def _pause_s(waited_s: float) -> float:
    return _EVERY_S if waited_s < 60 else _EVERY_LATER_S


def _line(workers: int, each: Mapping[str, float], waited_s: float) -> str:
    import ray

    free, total = ray.available_resources(), ray.cluster_resources()
    asked = " and ".join(f"{amount:g} {name}" for name, amount in each.items())
    who = f"{workers} workers with {asked} each" if workers > 1 else asked
    have = ", ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}" for name in each)
    return f"waiting for {who}: {have} free; {waited_s:.0f} s so far"
