"""One Ray cluster and one cache for the whole session: starting Ray is the slowest thing here."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from rnntune.config.load import Config

torch.set_num_threads(1)  # the models are tiny, and Ray's workers want the other cores

# A shell ignores Ctrl-C for what it starts in the background, and every process started from there
# would; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("noisy", deadline=None)
settings.load_profile("noisy")

AG_NEWS_DIR = os.environ.get("AG_NEWS_DIR")


TINY = {
    "batching.batch_rows": 64,
    "model.ngrams": 0,
    "model.word_vectors": None,
    "model.embedding_std": 0.01,
    "train.average_weights": False,
    "data.extra_words": 0,
    "model.embedding_dim": 16,
    "model.hidden_size": 16,
    "model.embedding_dropout": 0.1,
    "model.dropout": 0.1,
    "model.word_dropout": 0.0,
    "train.epochs": 1,
    "train.learning_rate": 0.01,
    "train.patience": 0,
    "train.warmup_fraction": 0.0,
    "train.label_smoothing": 0.05,
    "train.resources_per_worker": {"CPU": 1},
}


@pytest.fixture
def no_cluster_in_the_shell(monkeypatch):
    """Take away what would lead a submitted job to a cluster of the machine's."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def without_ray(monkeypatch, no_cluster_in_the_shell):
    """Have files scored without Ray, though another test of this process may be connected."""
    monkeypatch.setattr("rnntune.inference.model_pool.is_connected", lambda: False)
    for name in ("evaluate", "predict"):
        monkeypatch.delattr(f"rnntune.inference.{name}.connect")


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray cluster with two CPUs."""
    from rnntune.cluster.session import connect  # tests that need no Ray run without it

    with connect(num_cpus=2, object_store_bytes=300 * 2**20):
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
def sample_run(ray_session, cache_dir, tmp_path_factory):
    """A small run on the sample, a `RunResult`."""
    from rnntune.training.api import train

    uri = str(tmp_path_factory.mktemp("runs") / "sample")
    return train(Config.load(None, {"data.cache_dir": cache_dir, "output": uri, **TINY}))


@pytest.fixture(scope="session")
def ag_news_dir() -> Path:
    """Real AG News, where the machine has it."""
    if not AG_NEWS_DIR:
        pytest.skip("AG_NEWS_DIR is not set")
    return Path(AG_NEWS_DIR)
