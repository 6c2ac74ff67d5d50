"""AG News from the network: resumed after a break, checked, and in its place whole or not at all.

*Source:* addresses and checksums are those of `torchtext.datasets.ag_news` (torchtext 0.18).
"""

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import filelock
import requests
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3.util import Retry

from rnntune import storage
from rnntune.errors import DataError

__all__ = ["AG_NEWS_MD5", "AG_NEWS_URL", "ag_news", "download"]

AG_NEWS_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
AG_NEWS_MD5 = {
    "train.csv": "b1a00f826fdfbd249f79597b59e1dc12",
    "test.csv": "d52ea96a97a2d943681189a97654912d",
}

_ATTEMPTS = 4
_PAUSE_S = 0.5  # doubled after each failed attempt
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16


def ag_news(cache_dir: str) -> str:
    """Make sure that AG News is in the cache.

    `RNNTUNE_AG_NEWS_URL` in the environment names another place with the same two files.

    Args:
        cache_dir: a folder or URI.

    Returns:
        The folder or URI with `train.csv` and `test.csv`.

    Raises:
        DataError: it cannot be downloaded, or is not the file it should be.
    """
    base = os.environ.get("RNNTUNE_AG_NEWS_URL", AG_NEWS_URL).rstrip("/")
    folder = storage.join(cache_dir, "ag_news")
    for name, md5 in AG_NEWS_MD5.items():
        target, url = storage.join(folder, name), f"{base}/{name}"
        if storage.exists(target):
            continue
        try:
            if storage.is_remote(target):
                with tempfile.TemporaryDirectory() as aside:
                    local = Path(aside) / name
                    download(url, local, md5)
                    storage.write_bytes(target, local.read_bytes())
            else:
                download(url, Path(storage.locate(target)[1]), md5)
        except DataError as error:
            raise DataError(
                f"{error}; with the files in a folder of your own, use --data FOLDER"
            ) from error
    return folder


def download(url: str, target: Path, md5: str) -> None:
    """Download a file, unless it is there.

    What has arrived stays in `target` + '.part' for the next attempt or call to go on from; a
    file is moved to its place only when its checksum is right. Two processes may call this at
    the same time.

    Raises:
        DataError: no connection, an error of the server, transfers that keep breaking off, or
            a wrong checksum after two whole transfers.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            if not target.exists():
                _fetch(url, part, md5)
                part.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}") from error


def _fetch(url: str, part: Path, md5: str) -> None:
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
            found = _md5(part)
            if found == md5:
                return
            part.unlink()
            wrong, reason = wrong + 1, f"its MD5 is {found}, not {md5}"
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


def _md5(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
