"""One Ray cluster and one cache for the whole session: starting Ray is the slowest thing here."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from rnntune import cluster
from rnntune.config import Config
from rnntune.train import TrainResult, train

torch.set_num_threads(1)  # the models are tiny, and Ray's workers want the other cores

# A shell ignores Ctrl-C for what it starts in the background, and every process started from there
# would; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("noisy", deadline=None)
settings.load_profile("noisy")

AG_NEWS_DIR = os.environ.get("AG_NEWS_DIR")

TINY = {
    "model.embedding_dim": 16,
    "model.hidden_size": 16,
    "model.embedding_dropout": 0.1,
    "model.dropout": 0.1,
    "model.word_dropout": 0.0,
    "train.epochs": 1,
    "train.learning_rate": 0.01,
    "train.resources_per_worker": {"CPU": 1},
}


@pytest.fixture
def no_cluster_in_the_shell(monkeypatch):
    """Take away what would lead a submitted job to a cluster of the machine's."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray cluster with two CPUs."""
    with cluster.connect(num_cpus=2, object_store_bytes=300 * 2**20):
        yield


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> str:
    """A cache folder of the session's own."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny(cache_dir, tmp_path):
    """Gives a configuration of a small model on the sample, with overrides."""

    def make(**overrides) -> Config:
        dotted = {name.replace("__", "."): value for name, value in overrides.items()}
        given = {"data.cache_dir": cache_dir, "output": str(tmp_path / "run"), **TINY, **dotted}
        return Config.load(None, given)

    return make


@pytest.fixture(scope="session")
def sample_run(ray_session, cache_dir, tmp_path_factory) -> TrainResult:
    """A small run on the sample."""
    place = str(tmp_path_factory.mktemp("runs") / "sample")
    return train(Config.load(None, {"data.cache_dir": cache_dir, "output": place, **TINY}))


@pytest.fixture(scope="session")
def ag_news_dir() -> Path:
    """Real AG News, where the machine has it."""
    if not AG_NEWS_DIR:
        pytest.skip("AG_NEWS_DIR is not set")
    return Path(AG_NEWS_DIR)
