import json
import os
import re
import subprocess
import sys
import time

import pytest
from clusters import ROOT, end, ended, num_nodes, ray_head, rnntune, tiny, wait_until

FAKE_HEAD_ID = "f" * 51 + "00000"


@pytest.fixture(scope="module")
def autoscaling_head():
    """A head with one CPU that starts up to two nodes of one CPU on demand."""
    env = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_ID,
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    autoscaler = (ROOT / "tests/fake_autoscaler.yaml").read_text()
    with ray_head(num_cpus=1, autoscaler=autoscaler, **env) as head:
        wait_until(lambda: num_nodes(head) == 1, timeout_s=30)
        yield head


def run_on(head, *command):
    """What a command prints that runs as a driver on the cluster, Ray's own lines included."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env = {**inherited, "RAY_ADDRESS": head.address, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


LONG = {"batching__batch_rows": 8, "train__epochs": 6}  # a node needs some seconds to come

PLACEMENT_GROUP = """
import ray
from ray.util.placement_group import placement_group
ray.init(log_to_driver=False)
group = placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
assert group.wait(60)
print("nodes:", sum(node["Alive"] for node in ray.nodes()))
"""

TASKS = """
import time, ray
ray.init(log_to_driver=False)
@ray.remote(num_cpus=1)
def where():
    time.sleep(4)
    return ray.get_runtime_context().get_node_id()
print("nodes:", len(set(ray.get([where.remote() for _ in range(12)]))))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("demand", "least"), [(PLACEMENT_GROUP, 3), (TASKS, 2)], ids=["placement_group", "tasks"]
)
def test_nodes_come_with_demand_and_go_when_idle(autoscaling_head, demand, least):
    assert num_nodes(autoscaling_head) == 1
    printed = run_on(autoscaling_head, "-c", demand)
    assert least <= int(re.search(r"nodes: (\d+)", printed)[1]) <= 3
    wait_until(lambda: num_nodes(autoscaling_head) == 1, timeout_s=60)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_asks_for_nodes_and_gives_them_back(autoscaling_head, tmp_path):
    head = autoscaling_head
    wait_until(lambda: num_nodes(head) == 1, timeout_s=60)
    space = "{model.hidden_size: {choice: [8, 12, 16]}}"
    search = {"tune__space": space, "tune__num_trials": 6, "tune__scheduler": "none"}
    search["tune__max_concurrent_trials"] = 3
    where = [f"--output={tmp_path}/search", f"--data.cache_dir={tmp_path}/cache", "--json"]
    arguments = [*tiny(**search, **LONG), *where]
    run = rnntune("tune", *arguments, RAY_ADDRESS=head.address, RAY_AUTH_MODE="disabled")
    most = 1
    try:
        while run.poll() is None:
            most = max(most, num_nodes(head))
            time.sleep(0.2)
        out, _ = ended(run)
    finally:
        end(run)
    assert most >= 2
    result = json.loads(out.splitlines()[-1])
    assert (result["num_trials"], result["num_errors"]) == (6, 0)
    wait_until(lambda: num_nodes(head) == 1, timeout_s=60)
