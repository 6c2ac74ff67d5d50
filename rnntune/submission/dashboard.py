"""The dashboard of a Ray cluster: reaching it, being let in, and following the log of a job."""

import asyncio
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rnntune.cluster.releases import NEWEST_RELEASE, OLDEST_RELEASE, is_supported
from rnntune.errors import ClusterError

__all__ = ["DEFAULT_ADDRESS", "connect", "follow", "one_line"]
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where a cluster's dashboard is on its head node."""
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_CHATTY = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_TOKEN_FILE = "~/.ray/auth_token"
_ANSWER_TIMEOUT_S = 10.0
_LOST_CONNECTIONS = 5


def connect(address: str | None) -> tuple[Any, str]:
    """Reach a cluster of a release that the package runs on, and be let in.

    Args:
        address: the dashboard, `http://HEAD:8265`; None: `RAY_API_SERVER_ADDRESS`,
            `RAY_ADDRESS` or this machine.

    Returns:
        Ray's client, and the dashboard's URL.

    Raises:
        ClusterError: the cluster is not reachable, refuses the token, or is another release.
    """
    url = _url(address)
    _expect_answer(url)
    _check_token_file()
    from ray.job_submission import JobSubmissionClient

    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    headers = _headers()
    with one_line(url), _without(*_ADDRESS_VARIABLES):
        try:
            client = JobSubmissionClient(url, headers=headers)
        except (KeyError, TypeError, ValueError) as error:  # the answer is not what Ray tells
            raise _not_ray(url) from error
    _check_release(url, headers)
    return client, url


def _check_release(url: str, headers: Mapping[str, str]) -> None:
    """Refuse a cluster whose Ray the package does not run on.

    Source: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html
        (`/api/version`), https://docs.ray.io/en/latest/ray-security/token-auth.html (its header).
    """
    token = _token()
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/api/version", headers={**bearer, **headers})
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_TIMEOUT_S) as answer:
            version = str(json.load(answer)["ray_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_ray(url) from error
    if not is_supported(version):
        oldest, newest = (".".join(map(str, r)) for r in (OLDEST_RELEASE, NEWEST_RELEASE))
        raise ClusterError(
            f"{url} runs Ray {version}; rnntune runs on Ray {oldest} to {newest}: "
            "install one of them on the cluster"
        )


def _token() -> str:
    """The token of a cluster that asks for one, where Ray takes it from; empty without."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or _TOKEN_FILE).expanduser()
    with suppress(OSError):
        return file.read_text(encoding="utf-8").strip()
    return ""


def _url(address: str | None) -> str:
    given = [("--address", address)]
    given += [(name, os.environ.get(name)) for name in _ADDRESS_VARIABLES]
    source, url = next(((name, value) for name, value in given if value), ("", DEFAULT_ADDRESS))
    if "@" in url:
        raise ClusterError(
            f"{source} holds a user or a password; give them as a header in RAY_JOB_HEADERS"
        )
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return url.rstrip("/")
    raise ClusterError(
        f"{source} is {url!r}; jobs go to the cluster's dashboard, written http://HEAD:8265, "
        "not to its port 6379 or a ray:// address"
    )


def _expect_answer(url: str) -> None:
    """Fail soon and in one line: Ray's client waits for minutes for a host that is down."""
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=_ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            raise _not_ray(url) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ClusterError(f"no Ray dashboard answers at {url}: {reason}") from error
    except HTTPException as error:
        raise _not_ray(url) from error


def _not_ray(url: str) -> ClusterError:
    return ClusterError(f"{url} answers, but not as a Ray dashboard")


def _check_token_file() -> None:
    """Ray aborts the process when `RAY_AUTH_TOKEN_PATH` names a file that it cannot read."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not path or os.environ.get("RAY_AUTH_TOKEN"):
        return
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClusterError(f"RAY_AUTH_TOKEN_PATH is {path}: {error.strerror}") from error
    if not token:
        raise ClusterError(f"RAY_AUTH_TOKEN_PATH is {path}: the file is empty")


def _headers() -> dict[str, str]:
    text = os.environ.get("RAY_JOB_HEADERS", "{}")
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict):
        raise ClusterError('RAY_JOB_HEADERS must be a JSON object such as {"Name": "value"}')
    return headers


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Hide environment variables: to Ray's client they go before the address it is given."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def one_line(url: str, job_id: str = "") -> Iterator[None]:
    """Turn what Ray's client raises within into one clear line.

    Args:
        url: of the dashboard.
        job_id: the job that is spoken of, if any.

    Raises:
        ClusterError: no such job, no connection, or the token is refused.
    """
    import ray.exceptions

    # Ray 2.51 knows no tokens.
    refused: type[Exception] = getattr(ray.exceptions, "AuthenticationError", PermissionError)
    try:
        yield
    except refused as error:
        problem = "refuses the token" if "failed" in str(error) else "wants a token"
        raise ClusterError(
            f"{url} {problem}; set RAY_AUTH_MODE=token and the cluster's token in "
            "RAY_AUTH_TOKEN, in the file of RAY_AUTH_TOKEN_PATH or in ~/.ray/auth_token"
        ) from error
    except (OSError, RuntimeError) as error:
        if job_id and "does not exist" in str(error):
            raise ClusterError(f"{url} knows no job {job_id}; see jobs list") from error
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ClusterError(f"{url}: {line}") from error


def follow(client: Any, url: str, job_id: str) -> int:
    """Print a job's log to its end; a lost connection is taken up again where it broke.

    Returns:
        The job's exit status; 1 if it ended without one.

    Raises:
        ClusterError: the connection stays lost.
    """
    import aiohttp

    shown = 0  # characters

    async def read() -> None:
        nonlocal shown
        position = 0
        async for text in client.tail_job_logs(job_id):
            print(text[max(0, shown - position) :], end="", flush=True)
            position += len(text)
            shown = max(shown, position)

    lost = 0
    while lost < _LOST_CONNECTIONS:
        before = shown
        try:
            asyncio.run(read())
            details = client.get_job_info(job_id)
            if details.status.is_terminal():
                return _exit_status(details)
        except (aiohttp.ClientError, OSError, RuntimeError):
            pass
        lost = 1 if shown > before else lost + 1
        time.sleep(lost)
    raise ClusterError(
        f"lost the connection to {url}; {job_id} may go on: rnntune jobs logs {job_id}"
    )


def _exit_status(details: Any) -> int:
    outcome = details.status.value.lower()
    code = details.driver_exit_code or 0
    status = int(code) if code >= 0 else 128 - code  # killed by a signal, as a shell counts it
    if outcome == "failed":
        reason = (details.message or "no reason known").strip().splitlines()[0]
        outcome += f" with exit status {status}" if status else f": {reason}"
    print(f"{details.submission_id} {outcome}", file=sys.stderr)
    return 0 if outcome == "succeeded" else status or 1
