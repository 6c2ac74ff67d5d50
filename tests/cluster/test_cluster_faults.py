"""Training on several nodes, one of which is lost without warning and replaced."""

import json
import os
from pathlib import Path

import pytest
import ray
from clusters import (
    ROOT,
    end,
    ended,
    latest,
    rnntune,
    tiny,
    wait_until,
)
from ray._private.worker import global_worker
from ray.cluster_utils import Cluster
from ray.experimental import internal_kv

from rnntune.training.checkpoint import verify
from rnntune.tuning.journal import Journal

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(800)]

EPOCHS = 4
SLOW = {
    "batching__batch_rows": 8,
    "train__epochs": EPOCHS,
    "train__checkpoint_every_steps": 50,
}


class Nodes:
    """A head without CPUs, where the driver is, and nodes of one CPU."""

    def __init__(self):
        store = {"object_store_memory": 100 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
        self.nodes = [self.add(), self.add()]

    def add(self):
        node = self.cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        self.cluster.wait_for_nodes()
        return node

    def run(self, verb, folder, cache, **settings):
        uris = [f"--output={folder}", f"--data.cache_dir={cache}", "--json"]
        arguments = [*tiny(**{**SLOW, **settings}), *uris]
        program = ["-c", QUICK]
        # A local cluster of an earlier test turns token authentication on for this process.
        mode = os.environ.get("RAY_AUTH_MODE", "disabled")
        where = {"RAY_ADDRESS": self.cluster.address, "RAY_AUTH_MODE": mode}
        return rnntune(verb, *arguments, program=program, **where)


# Ray looks for new nodes every minute; a test has not so much time.
QUICK = """
import dataclasses, sys
import ray.train
from rnntune.cli.main import main

@dataclasses.dataclass
class Quick(ray.train.ScalingConfig):
    elastic_resize_monitor_interval_s: float = 3.0

ray.train.ScalingConfig = Quick
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        nodes = Nodes()
        yield nodes
        nodes.cluster.shutdown()
        if ray.is_initialized():  # the shutdown forgot the store of the session's cluster too
            internal_kv._initialize_internal_kv(global_worker.gcs_client)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(nodes, cache, tmp_path_factory):
    """The result of a run to which nothing happens."""
    run = nodes.run("train", tmp_path_factory.mktemp("runs") / "calm", cache, train__num_workers=2)
    out, _ = ended(run, timeout_s=200)
    return json.loads(out.splitlines()[-1])


# Ray counts the nodes anew every 20 s; the elastic run must be there when it grows again.
@pytest.mark.parametrize(
    ("num_workers", "epochs"), [("2", EPOCHS), ("[1, 2]", 5 * EPOCHS)], ids=["fixed", "elastic"]
)
def test_a_node_is_lost_and_another_comes(nodes, cache, undisturbed, tmp_path, num_workers, epochs):
    uri = tmp_path / "run"
    settings = {"train__num_workers": num_workers, "train__epochs": epochs}
    run = nodes.run("train", uri, cache, **settings)
    try:
        wait_until(lambda: latest(str(uri)) or run.poll() is not None, timeout_s=120)
        nodes.cluster.remove_node(nodes.nodes.pop(), allow_graceful=False)
        stopped = latest(str(uri))
        if num_workers != "2":  # goes on with one worker; otherwise it waits for a second
            wait_until(
                lambda: (latest(str(uri)) or stopped)["step"] > stopped["step"] + 50, timeout_s=120
            )
        nodes.nodes.append(nodes.add())
        out, err = ended(run, timeout_s=500)
    finally:
        end(run)
    assert "(raylet)" not in out + err
    assert stopped["epoch"] == 1
    result = json.loads(out.splitlines()[-1])
    assert result["world_size"] == 2
    assert result["epochs"] == epochs
    for epoch in epochs_of(uri):
        assert epoch["rows"] == epoch["epoch_rows"] == result["train_rows"]
    folders = [path for path in uri.glob("checkpoints/checkpoint_*") if path.is_dir()]
    assert folders
    for folder in folders:
        assert verify(folder)["state"]["epoch"] <= epochs
    assert abs(result["test_accuracy"] - undisturbed["test_accuracy"]) < 0.03


def test_a_search_loses_a_node_and_another_comes(nodes, cache, tmp_path):
    uri = tmp_path / "search"
    space = "{model.hidden_size: {choice: [8, 12, 16]}}"
    search = {"tune__space": space, "tune__num_trials": 4, "tune__scheduler": "none"}
    run = nodes.run("tune", uri, cache, **search)
    try:
        wait_until(lambda: num_epochs(uri) >= 2 or run.poll() is not None, timeout_s=200)
        assert run.poll() is None, run.stderr.read()
        nodes.cluster.remove_node(nodes.nodes.pop(), allow_graceful=False)
        nodes.nodes.append(nodes.add())
        out, _ = ended(run, timeout_s=300)
    finally:
        end(run)
    result = json.loads(out.splitlines()[-1])
    assert (result["num_trials"], result["num_errors"]) == (4, 0)
    trials = Journal(str(uri / "trials.jsonl")).trials
    for trial in trials:
        assert [epoch["epoch"] for epoch in trial.history] == list(range(1, EPOCHS + 1))
        assert trial.state == "finished"


def num_epochs(uri):
    """Epochs that the trials of a search have told of so far."""
    kept = uri / "trials.jsonl"
    return sum(len(t.history) for t in Journal(str(kept)).trials) if kept.exists() else 0


def epochs_of(uri: Path):
    return [json.loads(line) for line in (uri / "metrics.jsonl").read_text().splitlines()]
