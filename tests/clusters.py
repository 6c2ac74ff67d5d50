"""Clusters of Ray processes of their own, for tests."""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from rnntune import storage
from rnntune.config.flags import add_settings, parse_overrides
from rnntune.errors import StorageError
from rnntune.training.recovery import CHECKPOINTS, CheckpointStore

ROOT = Path(__file__).parents[1]

TINY = {
    "model.embedding_dim": 16,
    "model.hidden_size": 16,
    "model.ngrams": 0,
    "model.word_vectors": None,
    "data.extra_words": 0,
    "batching.batch_rows": 32,
    "train.learning_rate": 0.01,
    "train.average_weights": False,
    "train.resources_per_worker": "{CPU: 1}",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Head(NamedTuple):
    """Where a head node is: of its dashboard, for jobs, and of Ray itself, for drivers."""

    url: str
    address: str


@contextmanager
def ray_head(num_cpus=2, autoscaler=None, **env):
    """A head node in processes of its own, which do not see this source tree.

    `autoscaler` is the text of its configuration, in which {address} is the head's.
    """
    folder = tempfile.mkdtemp(prefix="rn", dir="/tmp")  # Ray's sockets want a short path
    port, dashboard, agent, client = (free_port() for _ in range(4))
    head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}")
    options = f"""--port={port} --dashboard-port={dashboard} --dashboard-agent-listen-port={agent}
        --ray-client-server-port={client} --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1
        --num-cpus={num_cpus} --object-store-memory=200000000 --temp-dir={folder}/ray""".split()
    if autoscaler:
        config = Path(folder, "autoscaler.yaml")
        config.write_text(autoscaler.replace("{address}", head.address))
        options.append(f"--autoscaling-config={config}")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *options],
        env={**inherited, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: answers(head.url) or process.poll() is not None, timeout_s=180)
        assert process.poll() is None, "the head node ended at once"
        yield head
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


class Node:
    """A further node of a cluster, in a process group of its own.

    Args:
        head: the head node.
        num_cpus: its CPUs.
        wrapper: words of a command that runs the node's.
    """

    def __init__(self, head, num_cpus=1, wrapper=(), **env):
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))
        }
        options = f"""--address={head.address} --num-cpus={num_cpus} --node-ip-address=127.0.0.1
            --object-store-memory=100000000 --dashboard-agent-listen-port={free_port()}""".split()
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        self.process = subprocess.Popen(
            [*wrapper, *ray, *options],
            env={**inherited, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self):
        """Take the power away: no process of the node lives on."""
        end(self.process)


def end(process):
    """Kill a process with all that it started, whatever session that is in."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    for left in session_of(process):
        with suppress(psutil.NoSuchProcess):
            left.kill()
    process.kill()
    process.wait()


def session_of(process):
    """The processes that are alive of those that one began, its own session."""
    found = []
    for other in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other)
    return found


def num_nodes(head):
    """Nodes that are up, the head among them."""
    return sum(node["state"] == "ALIVE" for node in _listed(head.url, "nodes"))


def num_workers(url):
    """Workers that train, by the URL of the cluster's dashboard."""
    actors = _listed(url, "actors")
    return sum(a["class_name"] == "RayTrainWorker" and a["state"] == "ALIVE" for a in actors)


def _listed(url, what):
    with urllib.request.urlopen(f"{url}/api/v0/{what}", timeout=10) as answer:
        return json.load(answer)["data"]["result"]["result"]


def answers(url):
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401
    except OSError:
        return False
    return True


def wait_until(true, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not so within {timeout_s} s"
        time.sleep(0.2)


def rnntune(*arguments, program=("-m", "rnntune"), **env):
    """A process of the command line, or of a program around it, in a session of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until_checkpoint(process, uri, timeout_s=240):
    """Wait for the first checkpoint of a run that a process makes."""
    try:
        wait_until(lambda: latest(uri) or process.poll() is not None, timeout_s)
    except AssertionError:
        end(process)
        raise AssertionError(process.stderr.read()) from None
    assert latest(uri), process.stderr.read()


def ended(process, status=0, timeout_s=240):
    """What a process printed, on its two streams, until it ended with a status."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == status, err[-4000:]
    return out, err


def tiny(**settings):
    """Arguments that make a small model, with other settings."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return [f"--{name}={_written(value)}" for name, value in {**TINY, **dotted}.items()]


def _written(value):
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value


def settings_of(flags):
    """The settings that flags of the command line give."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--output")
    parser.add_argument("--resume", action="store_true")
    add_settings(parser, ("data", "batching", "model", "train", "tune"))
    return parse_overrides(parser.parse_args(flags))


def latest(uri):
    """The latest checkpoint of a run: its name, step and epoch, from 1; None without one."""
    folder = storage.join(str(uri), CHECKPOINTS)
    for name in reversed(CheckpointStore(folder).names()):
        with suppress(StorageError):  # deleted meanwhile
            state = json.loads(storage.read_text(storage.join(folder, name, "state.json")))["state"]
            epoch = state["epoch"] + bool(state["position"])
            return {"name": name, "step": state["step"], "epoch": epoch}
    return None


def reached(uri):
    """The epoch, from 1, of a run's latest checkpoint; 0 without one."""
    found = latest(uri)
    return found["epoch"] if found else 0
