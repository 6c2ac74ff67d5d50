"""Every way to use Ray, in one file that is quick enough to run on each supported release.

The other tests do all of this, and more, on the release that is installed; `.ci/run` runs this
file on the oldest one as well.
"""

import json
import os
from pathlib import Path

import pytest
import ray
from clusters import ray_head

from rnntune import storage
from rnntune.cluster.releases import has_elastic_training, is_supported
from rnntune.config.load import Config
from rnntune.errors import ConfigError
from rnntune.submission.submit import submit
from rnntune.training.api import train
from rnntune.training.recovery import CheckpointStore
from rnntune.tuning.api import tune
from rnntune.tuning.journal import Journal, TrialState

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("RAY_RELEASES") != "1", reason="the other tests do this; set RAY_RELEASES=1"
    ),
]


@pytest.fixture(autouse=True)
def through_ray(ray_session, monkeypatch):
    """Name the cluster, so that no run goes without it."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


def test_the_release_is_a_supported_one():
    assert is_supported(ray.__version__)


def weights(uri: str) -> bytes:
    return Path(uri, "model", "model.safetensors").read_bytes()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_train_and_resume(tiny, num_workers):
    config = tiny(
        train__num_workers=num_workers,
        train__checkpoint_every_steps=40,
        train__epochs=1,
        batching__batch_rows=32,
    )
    done = train(config)
    assert done.result["world_size"] == num_workers
    assert done.result["test_accuracy"] > 0.5
    before = weights(done.uri)
    store = CheckpointStore(storage.join(done.uri, "checkpoints"))
    storage.delete(str(store.latest()))  # as if it had been killed before
    storage.delete(storage.join(done.uri, "result.json"))
    again = train(Config(output=done.uri), resume=True)
    assert again.result["test_accuracy"] == done.result["test_accuracy"]
    assert weights(done.uri) == before


def test_tune_and_resume(tiny):
    space = {"model.hidden_size": {"choice": [8, 16]}, "train.learning_rate": {"choice": [0.01]}}
    config = tiny(
        tune__space=space, tune__num_trials=3, train__epochs=2, tune__scheduler="asha",
        tune__searcher="random",
    )  # fmt: skip
    done = tune(config)
    assert done.result["num_trials"] == 3
    assert done.result["num_errors"] == 0
    journal = Path(done.uri, "trials.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    last = next(n for n, line in enumerate(lines) if json.loads(line).get("trial") == 2)
    journal.write_text("".join(lines[:last]))  # as if it had been killed before the last trial
    storage.delete(storage.join(done.uri, "result.json"))
    again = tune(Config(output=done.uri), resume=True)
    assert again.result["num_trials"] == 3
    states = {trial.state for trial in Journal(str(journal)).trials}
    assert states <= {TrialState.FINISHED, TrialState.STOPPED}
    assert again.result["test_accuracy"] > 0.5


def test_two_workers_a_trial(tiny):
    space = {"model.hidden_size": {"choice": [8]}}
    done = tune(
        tiny(tune__space=space, tune__num_trials=1, tune__workers_per_trial=2,
             tune__searcher="random")
    )  # fmt: skip
    assert done.result["world_size"] == 2
    assert done.result["num_finished"] == 1


def test_elastic_training_is_refused_where_ray_has_none(tiny):
    config = tiny(train__num_workers=(1, 2), train__epochs=1)
    if has_elastic_training():
        assert train(config).result["epochs"] == 1
    else:
        with pytest.raises(ConfigError, match=r"train.num_workers: \[1, 2\] needs a newer Ray"):
            train(config)


def test_submit(tiny, tmp_path, no_cluster_in_the_shell, capsys):
    job = tmp_path / "job.yaml"
    job.write_text(tiny(output=str(tmp_path / "job")).to_yaml())
    with ray_head(RAY_AUTH_MODE="disabled") as head:
        assert submit(str(job), address=head.url) == 0, capsys.readouterr()
    assert json.loads((tmp_path / "job" / "result.json").read_text())["test_accuracy"] > 0.5
