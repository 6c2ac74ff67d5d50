"""The Ray cluster that a run uses: starting or joining one, calmly, and what it offers."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rnntune.cluster.ray_internals import silence_node_messages
from rnntune.errors import ClusterError, DataError, RnntuneError

__all__ = ["connect", "is_connected", "silence_ray_logging", "user_error"]


def user_error(error: BaseException) -> BaseException:
    """The user's mistake that a failed task ran into, if it was one, else the error itself."""
    inner: BaseException | None = error
    while inner is not None:
        cause = getattr(inner, "cause", None)
        if isinstance(cause, RnntuneError):
            return DataError(RnntuneError.reason(cause))
        inner = inner.__cause__ or (cause if isinstance(cause, BaseException) else None)
    return error


def is_connected() -> bool:
    """Whether this process is connected to a cluster; it does not import Ray to find out."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


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
_API_ADDRESS = "RAY_API_SERVER_ADDRESS"
_REFUSING = "http://127.0.0.1:9"


@contextlib.contextmanager
def connect(
    *, verbose: bool = False, num_cpus: int | None = None, object_store_bytes: int | None = None
) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine for the time being.

    A process that is connected already stays so, and stays connected afterwards. The address
    'local' starts a cluster, too.

    Args:
        verbose: let Ray log.
        num_cpus: CPUs of a cluster that is started here; None: all.
        object_store_bytes: size of its object store; None: Ray's choice.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    silence_ray_logging(verbose)
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or None
    address = None if address == "local" else address
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
    with _redirect_stderr(verbose) as stderr_text:
        try:
            with warnings.catch_warnings():
                if not verbose:
                    warnings.simplefilter("ignore")
                with _no_state_api() if local else contextlib.nullcontext():
                    ray.init(logging_level=level, log_to_driver=verbose, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = ClusterError.reason(error)
            if "InvalidAuthToken" in stderr_text():
                reason = "it refused the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            where = address or "this machine"
            raise ClusterError(f"no Ray cluster at {where}: {reason}") from error
    with contextlib.nullcontext() if verbose else silence_node_messages():
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _no_state_api() -> Iterator[None]:
    """Have the processes of a cluster that is started meanwhile ask nobody about its state.

    Without a dashboard nobody would answer. When training ends, Ray Train waits for a helper that
    looks for one for ten seconds, in the first cluster that it sees on this machine, dead or
    alive. An address that refuses at once spares the time, and the other cluster the question.

    Source: `ray.dashboard.utils.get_address_for_submission_client`, which reads the variable of
        https://docs.ray.io/en/latest/cluster/running-applications/job-submission/quickstart.html
    """
    before = os.environ.get(_API_ADDRESS)
    os.environ[_API_ADDRESS] = _REFUSING
    try:
        yield
    finally:
        if before is None:
            del os.environ[_API_ADDRESS]
        else:
            os.environ[_API_ADDRESS] = before


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
def _redirect_stderr(verbose: bool) -> Iterator[Callable[[], str]]:
    """Keep what Ray's C++ part writes to the standard error from the terminal.

    Yields:
        What was written up to now.
    """
    if verbose:
        yield lambda: ""
        return
    with tempfile.TemporaryFile("w+") as aside:

        def stderr_text() -> str:
            aside.seek(0)
            return aside.read()

        sys.stderr.flush()
        before = os.dup(2)
        try:
            os.dup2(aside.fileno(), 2)
            yield stderr_text
        finally:
            os.dup2(before, 2)
            os.close(before)


def silence_ray_logging(verbose: bool) -> None:
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
