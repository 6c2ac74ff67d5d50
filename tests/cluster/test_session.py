import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from clusters import end, ended, free_port, rnntune, tiny

from rnntune.cluster.session import connect
from rnntune.errors import ClusterError


def test_nothing_listens_at_the_address(monkeypatch):
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    message = rf"no Ray cluster at {address} \(RAY_ADDRESS\): .*refused"
    with pytest.raises(ClusterError, match=message), connect():
        pass


def test_a_refused_token_is_told_in_one_line(monkeypatch, capfd):
    def init(**_):
        os.write(2, b"gcs_client.cc:210: InvalidAuthToken: missing or incorrect\n" * 20)
        raise ConnectionError("Failed to connect")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    message = "it refused the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    with pytest.raises(ClusterError, match=message), connect():
        pass
    print("afterwards", file=sys.stderr)
    assert capfd.readouterr().err == "afterwards\n"


def test_a_cluster_of_ones_own_asks_no_state_api(monkeypatch):
    seen = []
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)

    def init(**given):
        seen.append((given["address"], os.environ["RAY_API_SERVER_ADDRESS"]))

    monkeypatch.setattr("ray.init", init)
    with connect():
        pass
    assert seen == [("local", "http://127.0.0.1:9")]
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


@pytest.mark.ray
@pytest.mark.slow
def test_the_address_of_a_dead_cluster_costs_no_time(cache_dir, tmp_path):
    settings = [*tiny(), f"--data.cache_dir={cache_dir}", f"--output={tmp_path / 'run'}", "--json"]
    with tempfile.TemporaryDirectory() as short:  # sockets have short paths
        (Path(short) / "ray").mkdir()
        (Path(short) / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
        run = rnntune("train", *settings, RAY_ADDRESS="local", RAY_TMPDIR=short)
        try:
            out, _ = ended(run)
        finally:
            end(run)
    assert json.loads(out)["seconds"]["finish"] < 5  # 12 s and more while Ray looked for it
