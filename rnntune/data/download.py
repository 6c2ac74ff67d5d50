"""Files from the network: resumed after a break, checked, in their place whole or not at all."""

import hashlib
import sys
import time
from pathlib import Path

import filelock
import requests
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3.util import Retry

from rnntune.errors import DataError

__all__ = ["download_file"]
_ATTEMPTS = 4
_PAUSE_S = 0.5  # doubled after each failed attempt
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16
_DIGESTS = {32: "MD5", 64: "SHA256"}
"""Names of checksums by their number of hexadecimal digits."""


def download_file(url: str, target: Path, checksum: str) -> None:
    """Download a file, unless it is there.

    What has arrived stays in `target` + '.part' for the next attempt or call to go on from; a
    file is moved to its place only when its checksum is right. Two processes may call this at
    the same time.

    Args:
        url: of the file.
        target: where it goes.
        checksum: MD5 or SHA-256 of the content, hexadecimal.

    Raises:
        DataError: no connection, an error of the server, transfers that keep breaking off, or
            a wrong checksum after two whole transfers.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            if not target.exists():
                _fetch(url, part, checksum)
                part.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}") from error


def _fetch(url: str, part: Path, checksum: str) -> None:
    name = _DIGESTS[len(checksum)]
    wrong, reason = 0, ""
    with _session() as session:
        for attempt in range(_ATTEMPTS):
            if attempt and not wrong:
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            try:
                _transfer(session, url, part)
            except requests.RequestException as error:
                reason = _reason(error)
                if isinstance(error, requests.HTTPError):
                    break
                continue
            found = _digest(part, name)
            if found == checksum:
                return
            part.unlink()
            wrong, reason = wrong + 1, f"its {name} is {found}, not {checksum}"
            if wrong == 2:
                break
    raise DataError(f"cannot download {url}: {reason}")


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"  # byte ranges are those of the file
    retry = Retry(total=2, backoff_factor=_PAUSE_S, status_forcelist=[429, 500, 502, 503, 504])
    adapter = HTTPAdapter(max_retries=retry)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _transfer(session: requests.Session, url: str, part: Path) -> None:
    """Fetch what is missing of a file."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing, or the file is another one: the checksum tells
        answer.raise_for_status()
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the whole file
        total = int(answer.headers.get("Content-Length", 0)) + have
        with part.open("ab" if have else "wb") as file, _progress() as progress:
            task = progress.add_task(url.rpartition("/")[2], total=total or None, completed=have)
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                progress.advance(task, len(chunk))


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    return Progress(
        *columns,
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}".strip()
    if isinstance(error, requests.Timeout):
        return f"no answer within {_TIMEOUT_S} s"
    cause: BaseException = error
    while cause.args and isinstance(cause.args[-1], BaseException):
        cause = cause.args[-1]
    cause = getattr(cause, "reason", None) or cause
    return DataError.reason(cause).rpartition(">: ")[2] or type(error).__name__


def _digest(file: Path, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
