"""A run that loses a worker, its driver or a checkpoint, and goes on to the same weights."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml
from clusters import (
    end,
    ended,
    latest,
    reached,
    rnntune,
    session_of,
    tiny,
    until_checkpoint,
    wait_until,
)

from rnntune.config.load import Config
from rnntune.training.api import train
from rnntune.training.checkpoint import verify

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SLOW = {  # seconds an epoch, with many checkpoints in it
    "batching__batch_rows": 8,
    "train__epochs": 2,
    "train__checkpoint_every_steps": 100,
}

AGENTS = {"ray::DashboardAgent", "ray::DashboardAg", "ray::RuntimeEnvAgent", "ray::RuntimeEnv"}
"""Ray's own, which notice within a minute that their node is gone."""


def settings_of(output, cache_dir):
    return [*tiny(**SLOW), f"--output={output}", f"--data.cache_dir={cache_dir}"]


def weights(uri):
    return (Path(uri) / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(ray_session, cache_dir, tmp_path_factory):
    """The weights of a run to which nothing happens, with the settings of the others."""
    uri = str(tmp_path_factory.mktemp("undisturbed") / "run")
    train(config_of(uri, cache_dir))
    return weights(uri)


def config_of(output, cache_dir):
    flags = (flag.removeprefix("--").partition("=") for flag in settings_of(output, cache_dir))
    given = {name: yaml.safe_load(value) for name, _, value in flags}
    given["train.resources_per_worker"] = {"CPU": 1}
    return Config.load(None, given)


def test_a_killed_worker_starts_again_where_it_was(undisturbed, cache_dir, tmp_path):
    uri = str(tmp_path / "run")
    done = []
    thread = threading.Thread(target=lambda: done.append(train(config_of(uri, cache_dir))))
    thread.start()
    wait_until(lambda: latest(uri), timeout_s=180)
    (worker,) = train_workers()
    stopped = latest(uri)
    worker.kill()
    thread.join(timeout=240)
    assert done
    assert done[0].result["epochs"] == 2
    assert stopped["epoch"] == 1
    assert weights(uri) == undisturbed


def train_workers():
    """The workers of Ray Train that this process started."""
    children = psutil.Process().children(recursive=True)
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "RayTrainWorker" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def killed(cache_dir, tmp_path_factory):
    """A run whose driver was killed in mid-epoch, and that left no process behind."""
    uri = str(tmp_path_factory.mktemp("killed") / "run")
    run = rnntune("train", *settings_of(uri, cache_dir))
    try:
        until_checkpoint(run, uri)
        run.kill()
        run.communicate()
        wait_until(lambda: not {p.name() for p in session_of(run)} - AGENTS, timeout_s=120)
    finally:
        end(run)
    assert reached(uri) == 1
    assert not (Path(uri) / "result.json").exists()
    return uri


def test_a_truncated_checkpoint_is_refused(killed, tmp_path):
    uri = tmp_path / "run"
    shutil.copytree(killed, uri)
    file = uri / "checkpoints" / latest(str(uri))["name"] / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)
    _, err = ended(rnntune("train", "--resume", uri), status=2)
    (line,) = err.splitlines()
    assert line.startswith(f"rnntune: {file}: truncated checkpoint, ")


def test_a_killed_driver_leaves_a_run_that_goes_on(killed, undisturbed):
    folder = Path(killed) / "checkpoints" / latest(killed)["name"]
    position = verify(folder)["state"]["position"]
    out, _ = ended(rnntune("train", "--resume", killed, "--json"))
    assert position > 0
    assert json.loads(out.splitlines()[-1])["epochs"] == 2
    assert weights(killed) == undisturbed


def test_ctrl_c_says_how_to_go_on(cache_dir, tmp_path):
    uri = str(tmp_path / "run")
    run = rnntune("train", *settings_of(uri, cache_dir))
    try:
        until_checkpoint(run, uri)
        start = time.monotonic()
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does it, to all of the group
        _, err = ended(run, status=130, timeout_s=60)
        took_s = time.monotonic() - start
        assert err.splitlines()[-1] == (
            f"rnntune: stopped; go on with: rnntune train --resume {uri}"
        )
        assert "Traceback" not in err
        assert took_s < 15
        wait_until(lambda: not session_of(run), timeout_s=90)
    finally:
        end(run)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 20 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk]).returncode:
        pytest.skip("this machine does not let a process mount a disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_fills_up(small_disk, undisturbed, cache_dir):
    uri = str(small_disk / "run")
    run = rnntune("train", *settings_of(uri, cache_dir), "--train.max_failures=1")
    try:
        until_checkpoint(run, uri)
        fill(small_disk)
        _, err = ended(run, status=2)
    finally:
        end(run)
    line = err.splitlines()[-1]
    assert line.startswith("rnntune: ")
    assert "No space left on device" in line
    assert uri in line
    assert line.endswith(f"go on later with --resume {uri}")
    assert "Traceback" not in err
    folder = Path(uri) / "checkpoints" / latest(uri)["name"]
    assert verify(folder)["state"]["step"] >= 100
    (small_disk / "filler").unlink()
    ended(rnntune("train", "--resume", uri))
    assert weights(uri) == undisturbed


def fill(disk):
    """Leave no room on a disk."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
