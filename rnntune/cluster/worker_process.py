"""The process of a worker: where it runs, and its end from afar where nothing else ends it."""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterable

from rnntune.cluster.owner import start_ticks

__all__ = ["WorkerProcess", "kill_workers"]
_ANSWER_S = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerProcess:
    """A process of a cluster.

    Args:
        node: id of its node.
        pid: its number there.
        started: when it started, in the machine's ticks: numbers are used again.
    """

    node: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> "WorkerProcess":
        """This process, on the connected cluster."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return cls(node=node, pid=os.getpid(), started=start_ticks(os.getpid()) or 0)


def kill_workers(workers: Iterable[WorkerProcess]) -> int:
    """Kill processes on their nodes: also those that are stopped or wait in native code.

    `ray.kill` asks a process to end itself, which one that is stopped never does.

    Returns:
        How many of them were alive.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(_kill)
    asked = []
    for worker in workers:
        there = NodeAffinitySchedulingStrategy(node_id=worker.node, soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        asked.append(task.options(**options).remote(worker.pid, worker.started))
    killed = 0
    for answer in asked:
        with contextlib.suppress(ray.exceptions.RayError):  # its node is gone, and it too
            killed += int(ray.get(answer, timeout=_ANSWER_S))
    return killed


def _kill(pid: int, started: int) -> bool:
    if start_ticks(pid) != started:
        return False
    os.kill(pid, signal.SIGKILL)
    return True
