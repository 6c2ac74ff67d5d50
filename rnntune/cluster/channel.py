"""What workers tell the driver while they run: values by key, in a small actor beside the driver.

An actor without CPUs starts while the workers do, so that nobody waits for it. On the driver's
node it lives as long as whoever reads it.
"""

import contextlib
from typing import Any

__all__ = ["KeyValueChannel"]
_READ_S = 10.0


class _Values:
    """The actor: the latest value of each key."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def put(self, key: str, value: Any) -> None:
        self._values[key] = value

    def read(self) -> dict[str, Any]:
        return self._values


class KeyValueChannel:
    """Values that workers leave for the driver. It travels to the workers as it is.

    Source: https://docs.ray.io/en/latest/ray-core/actors/actor-utils.html (an actor's handle can
        be passed to tasks and actors).
    """

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor: Any = (
            ray.remote(_Values).options(num_cpus=0, scheduling_strategy=here).remote()
        )
        self._reading: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_actor": self._actor, "_reading": None}

    def put(self, key: str, value: Any, *, wait: bool = False) -> None:
        """Leave a value, over any older one.

        Args:
            key: its name.
            value: what Ray can send.
            wait: return only when it has arrived.
        """
        import ray

        sent = self._actor.put.remote(key, value)
        if wait:
            ray.get(sent)

    def poll(self) -> dict[str, Any]:
        """The latest values, as far as they are here already; it never waits."""
        import ray

        if self._reading is None:
            self._reading = self._actor.read.remote()
        if not ray.wait([self._reading], timeout=0)[0]:
            return {}
        reading, self._reading = self._reading, None
        return self._read(reading, _READ_S)

    def read(self) -> dict[str, Any]:
        """The latest values; empty if the actor is gone."""
        return self._read(self._actor.read.remote(), _READ_S)

    @staticmethod
    def _read(reading: Any, timeout_s: float) -> dict[str, Any]:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            values: dict[str, Any] = ray.get(reading, timeout=timeout_s)
            return values
        return {}
