"""A proof, before a run starts, that all nodes write and read the same storage."""

import contextlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rnntune import storage
from rnntune.errors import ClusterError, RnntuneError

__all__ = ["PREFIX", "probe"]

PREFIX = ".probe-"
"""What the names of folders begin with that a probe makes, and a killed one leaves."""

_DRIVER = "driver"
_ANSWER_S = 60.0
_MEND = "all nodes need the same storage, a shared folder or a URI such as s3://bucket/run"


def probe(places: Sequence[str]) -> None:
    """Prove that this process and every node can write and read some folders, and share them.

    Each node writes a file of its own and reads the driver's; the driver reads each node's.
    What was made is deleted again. Nodes that join later are not asked.

    Args:
        places: folders or URIs.

    Raises:
        ClusterError: a node cannot use a place, or has a place of its own there; both are named.
        RnntuneError: this process cannot use a place.

    Source: https://docs.ray.io/en/latest/train/user-guides/persistent-storage.html (a run on
        several nodes needs storage that all of them reach).
    """
    import ray

    name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    folders = {place: storage.join(place, name) for place in places}
    made = [path for place in places for path in _absent(place)]
    nodes = _nodes()
    strangers: list[str] = []
    try:
        for folder in folders.values():
            _write(folder, _DRIVER)
        if len(nodes) < 2:
            return
        asked = {node: _pinned(node, _visit).remote(folders, node) for node in nodes}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
        found = {node: _problem(node, folders, answer) for node, answer in asked.items()}
        strangers = [node for node, problem in found.items() if problem]
        for node in strangers:
            raise ClusterError(f"node {nodes[node]} {found[node]}")
    finally:
        for folder in folders.values():
            with contextlib.suppress(RnntuneError):
                storage.delete(folder)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        for node in strangers:
            _forget(node, list(folders.values()))


def _absent(place: str) -> list[Path]:
    """The local folders on the way to a place that are yet to be made, the innermost first."""
    if storage.is_remote(place):
        return []
    path = Path(storage.locate(place)[1])
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def _nodes() -> dict[str, str]:
    """Ids and addresses of the nodes that are up."""
    import ray

    return {
        node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
        for node in ray.nodes()
        if node["Alive"]
    }


def _pinned(node: str, function: Callable[..., Any]) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task: Any = ray.remote(function)
    return task.options(num_cpus=0, max_retries=0, scheduling_strategy=there)


def _visit(folders: dict[str, str], node: str) -> dict[str, str]:
    """What a node does: write its own file in each place and read the driver's.

    Returns:
        What went wrong, by place.
    """
    problems = {}
    for place, folder in folders.items():
        try:
            _write(folder, node)
        except RnntuneError as error:
            problems[place] = str(error)
            continue
        if not _seen(folder, _DRIVER):
            problems[place] = "what the driver writes there does not reach it"
    return problems


def _problem(node: str, folders: dict[str, str], answer: Any) -> str | None:
    """What keeps a node from the run; None if nothing does."""
    import ray

    try:
        problems: dict[str, str] = ray.get(answer, timeout=0)
    except ray.exceptions.RayError as error:
        if node not in _nodes():
            return None  # it left meanwhile, and takes no part in the run
        line = str(error).strip().splitlines()[-1]
        if isinstance(error, ray.exceptions.GetTimeoutError):
            line = f"no answer within {_ANSWER_S:g} s"
        return f"cannot be asked about its storage: {line}"
    for place, folder in folders.items():
        if place in problems:
            return f"cannot use {place}: {problems[place]}; {_MEND}"
        if not _seen(folder, node):
            return f"cannot use {place}: what it writes there does not reach the driver; {_MEND}"
    return None


def _write(folder: str, name: str) -> None:
    storage.write_text(storage.join(folder, name), name)


def _seen(folder: str, name: str) -> bool:
    try:
        return storage.read_text(storage.join(folder, name)) == name
    except RnntuneError:
        return False


def _forget(node: str, folders: list[str]) -> None:
    """Delete what a node wrote where the driver does not see it."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(_pinned(node, _delete).remote(folders), timeout=_ANSWER_S)


def _delete(folders: list[str]) -> None:
    for folder in folders:
        with contextlib.suppress(RnntuneError):
            storage.delete(folder)
