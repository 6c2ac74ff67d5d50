import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from rnntune.config.schema import DataConfig
from rnntune.data import ag_news
from rnntune.data import download as download_module
from rnntune.data.ag_news import download_ag_news
from rnntune.data.download import download_file
from rnntune.data.sources import read_blocks, resolve_source
from rnntune.errors import DataError

CONTENT = b"".join(b'"%d","Title %d","Text"\n' % (1 + i % 4, i) for i in range(20_000))
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes of one answer each
    status: int = 200
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[Server]

    def do_GET(self):
        state = self.server_state
        wanted = self.headers.get("Range")
        state.asked.append(wanted)
        if state.status != 200:
            self.send_error(state.status)
            return
        start = int(wanted[len("bytes=") : -1]) if wanted and state.ranges else 0
        if start >= len(state.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            total = len(state.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        body = state.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if state.break_after:
            body = body[: state.break_after.pop(0)]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    handler = type("Bound", (Handler,), {"server_state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(download_module, "_PAUSE_S", 0.0)


def files(folder):
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_downloads_once(server, tmp_path):
    target = tmp_path / "deep" / "train.csv"
    download_file(f"{server.url}/train.csv", target, MD5)
    download_file(f"{server.url}/train.csv", target, MD5)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None]
    assert files(target.parent) == ["train.csv"]


def test_broken_transfer_goes_on_where_it_broke(server, tmp_path):
    server.break_after = [100_000, 150_000]
    target = tmp_path / "train.csv"
    download_file(f"{server.url}/train.csv", target, MD5)
    assert target.read_bytes() == CONTENT
    first, second, third = server.asked
    assert first is None
    # A chunk that did not arrive whole may be lost, nothing else.
    assert 0 < int(second[6:-1]) <= 100_000
    assert int(second[6:-1]) < int(third[6:-1]) <= 250_000


def test_a_later_call_goes_on(server, tmp_path):
    target = tmp_path / "train.csv"
    server.break_after = [200_000, 1, 1, 1]
    with pytest.raises(DataError, match="cannot download"):
        download_file(f"{server.url}/train.csv", target, MD5)
    assert files(tmp_path) == ["train.csv.part"]
    server.asked.clear()
    download_file(f"{server.url}/train.csv", target, MD5)
    assert target.read_bytes() == CONTENT
    assert int(server.asked[0][6:-1]) > 100_000


def test_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    server.break_after = [100_000]
    target = tmp_path / "train.csv"
    download_file(f"{server.url}/train.csv", target, MD5)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_complete_part_is_taken(server, tmp_path):
    (tmp_path / "train.csv.part").write_bytes(CONTENT)
    download_file(f"{server.url}/train.csv", tmp_path / "train.csv", MD5)
    assert files(tmp_path) == ["train.csv"]
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_foreign_part_is_fetched_anew(server, tmp_path):
    (tmp_path / "train.csv.part").write_bytes(b"something else")
    download_file(f"{server.url}/train.csv", tmp_path / "train.csv", MD5)
    assert (tmp_path / "train.csv").read_bytes() == CONTENT
    assert server.asked == ["bytes=14-", None]


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match=f"MD5 is [0-9a-f]{{32}}, not {MD5}") as caught:
        download_file(f"{server.url}/train.csv", tmp_path / "train.csv", MD5)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []
    assert server.asked == [None, None]


def test_missing_file_is_one_line(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match=r"the server answers 404 Not Found$"):
        download_file(f"{server.url}/train.csv", tmp_path / "train.csv", MD5)
    assert server.asked == [None]
    assert files(tmp_path) == []


def test_no_connection_is_one_line(tmp_path):
    with pytest.raises(
        DataError, match=r"cannot download http://127.0.0.1:9/x: .*refused"
    ) as caught:
        download_file("http://127.0.0.1:9/x", tmp_path / "x", MD5)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 150


def test_two_at_once(server, tmp_path):
    target = tmp_path / "train.csv"
    failures = []

    def fetch():
        try:
            download_file(f"{server.url}/train.csv", target, MD5)
        except DataError as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert target.read_bytes() == CONTENT
    assert server.asked == [None]


def test_ag_news_is_a_source(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ag_news, "AG_NEWS_MD5", {"train.csv": MD5, "test.csv": MD5})
    monkeypatch.setenv("RNNTUNE_AG_NEWS_URL", server.url + "/")
    data = DataConfig(source="ag_news", cache_dir=str(tmp_path))
    for _ in range(2):  # the second time from the cache
        source = resolve_source(data)
        assert source.format == "ag_news"
        assert source.clean
        assert source.train == (f"{tmp_path}/ag_news/train.csv",)
        assert source.test == (f"{tmp_path}/ag_news/test.csv",)
    assert len(server.asked) == 2
    assert sum(t.num_rows for t in read_blocks(source, source.train[0])) == 20_000


def test_ag_news_error_says_what_to_do(server, tmp_path, monkeypatch):
    server.status = 403
    monkeypatch.setenv("RNNTUNE_AG_NEWS_URL", server.url)
    with pytest.raises(DataError, match=r"403 Forbidden.*; with the files.*--data FOLDER"):
        download_ag_news(str(tmp_path))
