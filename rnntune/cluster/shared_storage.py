"""A proof, before a run starts, that all nodes write and read the same storage."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rnntune import storage
from rnntune.errors import ClusterError, RnntuneError
from rnntune.location import Location

__all__ = ["PROBE_PREFIX", "check_shared_storage", "check_storage"]
PROBE_PREFIX = ".probe-"
"""What the names of folders begin with that a probe makes, and a killed one leaves."""
_DRIVER = "driver"
_OLD_S = 3_600.0
_ANSWER_S = 60.0
_MEND = "all nodes need the same storage, a shared folder or a URI such as s3://bucket/run"


def check_storage(uris: Sequence[str]) -> None:
    """Prove that this process can write some folders.

    What was made is deleted again.

    Args:
        uris: folders or URIs.

    Raises:
        RnntuneError: it cannot.
    """
    with _probe(uris) as folders:
        for folder in folders.values():
            _write(folder, _DRIVER)


@contextlib.contextmanager
def _probe(uris: Sequence[str]) -> Iterator[dict[str, str]]:
    """Folders of a probe's own in each of some folders, deleted afterwards."""
    name = f"{PROBE_PREFIX}{uuid.uuid4().hex[:12]}"
    folders = {uri: storage.join(uri, name) for uri in uris}
    made = [path for uri in uris for path in _absent(uri)]
    try:
        yield folders
    finally:
        for uri, folder in folders.items():
            with contextlib.suppress(RnntuneError):
                storage.delete(folder)
                _sweep(uri)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _sweep(uri: str) -> None:
    """Delete the probes of killed processes; one takes seconds, so old ones are nobody's."""
    for name in storage.list_folder(uri):
        if not name.startswith(PROBE_PREFIX):
            continue
        probe = storage.join(uri, name)
        _, newest = storage.folder_size(probe)
        if newest and time.time() - newest > _OLD_S:  # an empty one is just begun
            storage.delete(probe)


def check_shared_storage(uris: Sequence[str]) -> None:
    """Prove that this process and every node can write and read some folders, and share them.

    Each node writes a file of its own and reads the driver's; the driver reads each node's.
    What was made is deleted again. Nodes that join later are not asked.

    Args:
        uris: folders or URIs.

    Raises:
        ClusterError: a node cannot use a folder, or has another one of that name; both are named.
        RnntuneError: this process cannot use a folder.

    Source: https://docs.ray.io/en/latest/train/user-guides/persistent-storage.html (a run on
        several nodes needs storage that all of them reach).
    """
    import ray

    nodes = _nodes()
    strangers: list[str] = []
    with _probe(uris) as folders:
        try:
            for folder in folders.values():
                _write(folder, _DRIVER)
            if len(nodes) < 2:
                return
            asked = {node: _pinned(node, _visit).remote(folders, node) for node in nodes}
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
            problems = {node: _problem(node, folders, answer) for node, answer in asked.items()}
            strangers = [node for node, problem in problems.items() if problem]
            for node in strangers:
                raise ClusterError(f"node {nodes[node]} {problems[node]}")
        finally:
            for node in strangers:
                _forget(node, list(folders.values()))


def _absent(uri: str) -> list[Path]:
    """The local folders on the way to a path that are yet to be made, the innermost first."""
    location = Location.parse(uri)
    if location.is_remote:
        return []
    path = Path(location.absolute().path)
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

    on_node = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task: Any = ray.remote(function)
    return task.options(num_cpus=0, max_retries=0, scheduling_strategy=on_node)


def _visit(folders: dict[str, str], node: str) -> dict[str, str]:
    """What a node does: write its own file in each folder and read the driver's.

    Returns:
        What went wrong, by folder.
    """
    problems = {}
    for uri, folder in folders.items():
        try:
            _write(folder, node)
        except RnntuneError as error:
            problems[uri] = str(error)
            continue
        if not _seen(folder, _DRIVER):
            problems[uri] = "what the driver writes there does not reach it"
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
    for uri, folder in folders.items():
        if uri in problems:
            return f"cannot use {uri}: {problems[uri]}; {_MEND}"
        if not _seen(folder, node):
            return f"cannot use {uri}: what it writes there does not reach the driver; {_MEND}"
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
