import os
import sys

import pytest
from clusters import free_port

from rnntune import cluster
from rnntune.errors import ClusterError


def test_nothing_listens_at_the_address(monkeypatch):
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    message = rf"no Ray cluster at {address} \(RAY_ADDRESS\): .*refused"
    with pytest.raises(ClusterError, match=message), cluster.connect():
        pass


def test_a_refused_token_is_told_in_one_line(monkeypatch, capfd):
    def init(**_):
        os.write(2, b"gcs_client.cc:210: InvalidAuthToken: missing or incorrect\n" * 20)
        raise ConnectionError("Failed to connect")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    message = "it refused the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    with pytest.raises(ClusterError, match=message), cluster.connect():
        pass
    print("afterwards", file=sys.stderr)
    assert capfd.readouterr().err == "afterwards\n"
