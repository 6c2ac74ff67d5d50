import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from clusters import free_port

from rnntune.errors import ClusterError
from rnntune.submission import dashboard
from rnntune.submission.submit import list_jobs

pytestmark = pytest.mark.usefixtures("no_cluster_in_the_shell")


@contextmanager
def server(status=200, body=None):
    """A server that answers every GET alike, and the headers that it was sent."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            received.append(dict(self.headers))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}", received
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


@pytest.mark.parametrize(
    "address", ["10.0.0.1:6379", "localhost:8265", "ray://head:10001", "auto", "http://head:port"]
)
def test_an_address_of_another_kind(address):
    with pytest.raises(ClusterError, match=r"written http://HEAD:8265, not to its port 6379"):
        list_jobs(address=address)


def test_the_variable_that_holds_a_wrong_address_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ClusterError, match=r"^RAY_ADDRESS is '10\.0\.0\.1:6379'"):
        list_jobs()


def test_nothing_listens():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match=f"no Ray dashboard answers at {url}: .*refused"):
        list_jobs(address=url)


@pytest.mark.parametrize(("status", "body"), [(404, None), (200, "hello"), (200, {"a": 1})])
def test_something_else_listens(status, body):
    with server(status, body) as (url, _), pytest.raises(ClusterError) as error:
        list_jobs(address=url)
    assert str(error.value) == f"{url} answers, but not as a Ray dashboard"


def test_a_cluster_of_another_version():
    with (
        server(body={"ray_version": "2.9.3"}) as (url, _),
        pytest.raises(
            ClusterError, match=rf"{url} runs Ray 2\.9\.3; rnntune runs on Ray 2\.51 to 2\.60"
        ),
    ):
        list_jobs(address=url)


def test_headers_are_sent_and_the_given_address_goes_before_the_variables(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"X-Team": "news"}')
    with (
        server(body={"ray_version": "2.9.3"}) as (url, received),
        pytest.raises(ClusterError, match=r"2\.9\.3"),
    ):
        list_jobs(address=url)
    assert received[-1]["X-Team"] == "news"
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


def test_headers_that_are_not_json(monkeypatch):
    monkeypatch.setenv("RAY_JOB_HEADERS", "X-Team: news")
    with (
        server(body={"ray_version": "2.9.3"}) as (url, _),
        pytest.raises(ClusterError, match="RAY_JOB_HEADERS must be a JSON object"),
    ):
        list_jobs(address=url)


def test_token_file_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with (
        server(status=401) as (url, _),
        pytest.raises(ClusterError, match=r"RAY_AUTH_TOKEN_PATH is .*: No such file"),
    ):
        list_jobs(address=url)


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(ClusterError, match="--address holds a user or a password") as error:
        list_jobs(address="https://me:secret@head:8265")
    assert "secret" not in str(error.value)


# The end of a job


@pytest.mark.parametrize(
    ("status", "code", "expected", "line"),
    [
        ("SUCCEEDED", 0, 0, "succeeded"),
        ("FAILED", 2, 2, "failed with exit status 2"),
        ("FAILED", -9, 137, "failed with exit status 137"),
        ("FAILED", None, 1, "failed: no room"),
        ("STOPPED", None, 1, "stopped"),
    ],
)
def test_exit_status(capsys, status, code, expected, line):
    details = SimpleNamespace(
        status=SimpleNamespace(value=status),
        driver_exit_code=code,
        message="no room\nhere",
        submission_id="job-1",
    )
    assert dashboard._exit_status(details) == expected
    assert capsys.readouterr().err == f"job-1 {line}\n"


class BreakingClient:
    """Loses the connection in the middle of the log, as many times as there are breaks."""

    log = ("one\n", "two\n", "three\n")

    def __init__(self, breaks):
        self.breaks = list(breaks)

    async def tail_job_logs(self, _job_id):
        last = self.breaks.pop(0) if self.breaks else len(self.log)
        for lines in self.log[:last]:
            yield lines
        if last < len(self.log):
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, job_id):
        status = SimpleNamespace(value="SUCCEEDED", is_terminal=lambda: True)
        return SimpleNamespace(
            status=status, driver_exit_code=0, message=None, submission_id=job_id
        )


def test_a_lost_connection_is_taken_up_where_it_broke(monkeypatch, capsys):
    monkeypatch.setattr(dashboard.time, "sleep", lambda _: None)
    assert dashboard.follow(BreakingClient([0, 2, 1]), "http://head", "job-1") == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_connection_that_stays_lost(monkeypatch):
    monkeypatch.setattr(dashboard.time, "sleep", lambda _: None)
    with pytest.raises(ClusterError, match="lost the connection to http://head; job-1 may go on"):
        dashboard.follow(BreakingClient([1] * 20), "http://head", "job-1")
