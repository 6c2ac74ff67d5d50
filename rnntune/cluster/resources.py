"""What the nodes of a cluster have, and how many workers fit on them."""

import dataclasses
from collections.abc import Mapping

from rnntune.cluster.ray_internals import has_autoscaler
from rnntune.errors import ClusterError

__all__ = ["Resources", "cluster_resources"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """What a cluster has.

    Args:
        nodes: resources of each live node, by Ray's names.
        object_store_bytes: memory of the smallest object store; what all workers read is copied
            to the node of each.
        autoscales: whether an autoscaler adds nodes for what waits.
    """

    nodes: tuple[Mapping[str, float], ...]
    object_store_bytes: int
    autoscales: bool = False

    def total(self, name: str) -> float:
        """How much of a resource all nodes have together."""
        return sum(node.get(name, 0.0) for node in self.nodes)

    def room(self, each: Mapping[str, float]) -> int:
        """How many workers with such resources the nodes hold."""
        needed = {name: amount for name, amount in each.items() if amount}
        return sum(
            min((_times(name, node.get(name, 0.0), needed[name]) for name in needed), default=0)
            for node in self.nodes
        )

    def require(self, workers: int, each: Mapping[str, float]) -> int:
        """How many workers with such resources the nodes hold, where some must fit.

        Raises:
            ClusterError: they do not, and no autoscaler may bring nodes for them.
        """
        room = self.room(each)
        if room < workers and not self.autoscales:
            asked = ", ".join(f"{amount:g} {name}" for name, amount in each.items())
            have = ", ".join(f"{self.total(name):g} {name}" for name in each)
            raise ClusterError(
                f"{workers} worker{'s' * (workers > 1)} with {asked}: the cluster has {have} "
                f"on {len(self.nodes)} node{'s' * (len(self.nodes) > 1)}, room for {room}"
            )
        return room


def _times(name: str, have: float, each: float) -> int:
    if name == "GPU" and each < 1:  # a part is of one GPU
        return int(have) * int(1 / each + 1e-9)
    return int(have / each + 1e-9)


def cluster_resources() -> Resources:
    """What the connected cluster has."""
    import ray

    nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
    stores = [int(node.get("object_store_memory", 0)) for node in nodes]
    return Resources(
        nodes=nodes, object_store_bytes=min(stores, default=0), autoscales=has_autoscaler()
    )
