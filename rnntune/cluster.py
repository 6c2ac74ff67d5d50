"""The Ray cluster that a run uses: starting or joining one, calmly, and what it offers."""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rnntune.errors import ClusterError

__all__ = ["Board", "Resources", "connect", "quiet", "resources"]

# Ray's own chatter; each is read when Ray is imported or a process starts.
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TQDM": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
}

_REACH_S = 10.0


@contextlib.contextmanager
def connect(
    *, verbose: bool = False, num_cpus: int | None = None, object_store_bytes: int | None = None
) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine for the time being.

    A process that is connected already stays so, and stays connected afterwards.

    Args:
        verbose: let Ray log.
        num_cpus: CPUs of a cluster that is started here; None: all.
        object_store_bytes: size of its object store; None: Ray's choice.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    quiet(verbose)
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or None
    local: dict[str, Any] = {}
    if address is None:
        # Ray would run workers at 15, and whatever else runs on the machine would stall them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        local = {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": num_cpus,
            "object_store_memory": object_store_bytes,
        }
    else:
        _reach(address)
    level = logging.INFO if verbose else logging.CRITICAL
    with _held_back(verbose) as said:
        try:
            with warnings.catch_warnings():
                if not verbose:
                    warnings.simplefilter("ignore")
                ray.init(logging_level=level, log_to_driver=verbose, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = ClusterError.reason(error)
            if "InvalidAuthToken" in said():
                reason = "it refused the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            where = address or "this machine"
            raise ClusterError(f"no Ray cluster at {where}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray would try a wrong address for two minutes."""
    host, separator, port = address.rpartition(":")
    if not separator or "/" in address or not port.isdecimal():
        return  # 'auto', 'local' or a ray:// address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address} (RAY_ADDRESS): {error}") from error


@contextlib.contextmanager
def _held_back(verbose: bool) -> Iterator[Callable[[], str]]:
    """Keep what Ray's C++ part writes to the standard error from the terminal.

    Yields:
        What was written up to now.
    """
    if verbose:
        yield lambda: ""
        return
    with tempfile.TemporaryFile("w+") as aside:

        def said() -> str:
            aside.seek(0)
            return aside.read()

        sys.stderr.flush()
        before = os.dup(2)
        try:
            os.dup2(aside.fileno(), 2)
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)


def quiet(verbose: bool) -> None:
    """Keep Ray's logs and warnings from the terminal.

    Call it before Ray is imported, and again after one of its libraries was: each sets up its
    own logger.
    """
    if verbose:
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


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


def resources() -> Resources:
    """What the connected cluster has."""
    import ray

    nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
    stores = [int(node.get("object_store_memory", 0)) for node in nodes]
    return Resources(
        nodes=nodes, object_store_bytes=min(stores, default=0), autoscales=_autoscales()
    )


def spilled_bytes() -> int:
    """What the object stores of the connected cluster have moved to disk since it started."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.internal_api import get_memory_info_reply
    from ray._private.state import state

    with contextlib.suppress(grpc.RpcError):
        return int(get_memory_info_reply(state).store_stats.spilled_bytes_total)
    return 0


def _autoscales() -> bool:
    """Whether the second version of Ray's autoscaler answers; it does not tell how far it goes.

    Source: `ray.autoscaler.v2.sdk.get_cluster_status`, which reads the same reply.
    """
    from ray._private import worker
    from ray.core.generated import autoscaler_pb2

    messages: Any = autoscaler_pb2
    driver: Any = worker.global_worker
    reply = messages.GetClusterStatusReply()
    reply.ParseFromString(driver.gcs_client.get_cluster_status())
    return bool(reply.autoscaling_state.autoscaler_state_version > 0)


class Board:
    """A small notice board in the cluster's key-value store: no process, no waiting.

    Source: `ray.experimental.internal_kv`; Ray's own libraries pass small state this way.

    Args:
        name: of the board; whoever knows it can write and read.
    """

    def __init__(self, name: str) -> None:
        self._name = f"rnntune/{name}/".encode()

    def put(self, key: str, value: Any) -> None:
        """Pin up a value that JSON can hold, over any older one."""
        from ray.experimental import internal_kv

        internal_kv._internal_kv_put(self._name + key.encode(), json.dumps(value).encode())

    def get(self, key: str) -> Any:
        """The value, or None."""
        from ray.experimental import internal_kv

        found = internal_kv._internal_kv_get(self._name + key.encode())
        return None if found is None else json.loads(found)

    def clear(self) -> None:
        """Take everything down."""
        from ray.experimental import internal_kv

        internal_kv._internal_kv_del(self._name, del_by_prefix=True)
