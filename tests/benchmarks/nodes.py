"""Preparation and training on two nodes against one with the same total of CPUs.

    python tests/benchmarks/nodes.py [--data train.csv] [--rounds 3]

Nodes are Ray nodes on this machine, so what is measured is the cost of distribution alone: no
network, and no more cores. The measurements alternate, and medians are compared. A ratio is one
node's seconds over two nodes' (1: distribution costs nothing). Prints a JSON line.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from ray.cluster_utils import Cluster

from rnntune.config.load import Config
from rnntune.training.api import train

MODEL = {
    "model.embedding_dim": 32,
    "model.hidden_size": 32,
    "train.epochs": 1,
    "train.num_workers": 2,
    "train.resources_per_worker": {"CPU": 1},
}
STORE = {"object_store_memory": 300 * 2**20}


def measure(data, num_nodes):
    """Seconds of preparation and of training on two CPUs, spread over some nodes."""
    root = str(pathlib.Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = root  # nodes inherit it
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **STORE})
    for _ in range(num_nodes):
        nodes.add_node(num_cpus=2 // num_nodes, **STORE)
    nodes.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = nodes.address
    with tempfile.TemporaryDirectory() as folder:
        uris = {"data.cache_dir": f"{folder}/cache", "output": f"{folder}/run"}
        config = Config.load(None, {"data.source": data, **uris, **MODEL})
        result = train(config).result
    nodes.shutdown()
    return {"prepare_s": result["seconds"]["prepare"], "train_s": result["seconds"]["train"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.data, args.here)))
        return
    found = {1: [], 2: []}
    for _ in range(args.rounds):
        for num_nodes, rounds in found.items():
            command = [sys.executable, __file__, "--data", args.data, "--here", str(num_nodes)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        num_nodes: {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        for num_nodes, rounds in found.items()
    }
    ratios = {name: round(medians[1][name] / medians[2][name], 3) for name in medians[1]}
    print(json.dumps({"one_node": medians[1], "two_nodes": medians[2], "ratios": ratios}))


if __name__ == "__main__":
    main()
