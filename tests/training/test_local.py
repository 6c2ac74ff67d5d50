import functools
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from rnntune.console import Terminal
from rnntune.errors import RunError, StorageError
from rnntune.training.api import train
from rnntune.training.local import runs_locally
from rnntune.training.recovery import CheckpointStore

LONG = {"batching__batch_rows": 32, "train__epochs": 2}
STEPS = 200  # and more of them in an epoch


@pytest.fixture
def local(monkeypatch):
    """Train without Ray, though another test of this process may be connected."""
    monkeypatch.setattr("rnntune.training.api.runs_locally", lambda _: True)


class Ray:
    """Ray in a process that is connected, or not."""

    def __init__(self, *, connected: bool) -> None:
        self.is_initialized = lambda: connected


def weights(uri: str) -> bytes:
    return (Path(uri) / "model" / "model.safetensors").read_bytes()


class Pressing(Terminal):
    """A terminal on which Ctrl-C is pressed at the first sight of progress."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self._pressed = False

    def training(self, _) -> None:
        if not self._pressed:
            self._pressed = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def often(monkeypatch):
    """Progress at every step."""
    monkeypatch.setattr("rnntune.training.loop._PROGRESS_S", 0.0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Gives the weights of a run to which nothing happens."""
    uri = str(tmp_path_factory.mktemp("undisturbed") / "run")

    @functools.cache
    def run(make) -> bytes:
        return weights(train(make(output=uri, **LONG), overwrite=True).uri)

    return run


def test_ctrl_c_keeps_what_was_trained_and_resume_goes_on(tiny, local, often, undisturbed):
    config = tiny(**LONG)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config, terminal=Pressing())
    assert signal.getsignal(signal.SIGINT) is before
    (name,) = CheckpointStore(f"{config.output}/checkpoints").names()
    assert int(name.rpartition("_")[2]) < STEPS  # in the midst of the first epoch
    done = train(config, resume=True)
    assert done.result["epochs"] == 2
    assert weights(config.output) == undisturbed(tiny)
    lines = (Path(config.output) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["rows"] for line in lines] == [done.result["train_rows"]] * 2


class PressingLate(Terminal):
    """A terminal on which Ctrl-C is pressed in the second training."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self._epoch = 0

    def training(self, metrics) -> None:
        if metrics["epoch"] < self._epoch:
            os.kill(os.getpid(), signal.SIGINT)
            metrics = {"epoch": 0}
        self._epoch = metrics["epoch"]


REFIT = {**LONG, "train__refit": True, "train__average_weights": False}


def test_a_model_is_trained_again_on_all_rows_and_goes_on_in_the_same_bits(
    tiny, local, often, tmp_path
):
    config = tiny(**REFIT)
    with pytest.raises(KeyboardInterrupt):
        train(config, terminal=PressingLate())
    stores = [CheckpointStore(f"{config.output}/checkpoints{name}") for name in ("", "/refit")]
    first, second = ([int(name[-9:]) for name in store.names()] for store in stores)
    assert second[-1] < STEPS < first[-1]  # the first training is over
    done = train(config, resume=True).result
    assert (done["refit"], done["train_rows"]) == (True, 8000)
    whole = train(tiny(output=str(tmp_path / "whole"), **REFIT))
    assert weights(whole.uri) == weights(config.output)
    once = train(tiny(output=str(tmp_path / "once"), **{**REFIT, "train__refit": False}))
    assert weights(once.uri) != weights(whole.uri)
    assert (once.result["refit"], once.result["train_rows"] < 8000) == (False, True)
    for name in ("validation_accuracy", "temperature", "best_epoch", "epochs"):
        assert once.result[name] == whole.result[name] == done[name]
    card = (Path(whole.uri) / "model" / "README.md").read_text()
    assert "8,000 training plus validation rows" in card


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_through_ray_train(ray_session, tiny, local, often, tmp_path, monkeypatch):
    config = tiny(**REFIT)
    with pytest.raises(KeyboardInterrupt):
        train(config, terminal=Pressing())
    whole = train(tiny(output=str(tmp_path / "whole"), **REFIT))
    monkeypatch.setattr("rnntune.training.api.runs_locally", lambda _: False)
    done = train(config, resume=True)
    assert (done.result["epochs"], done.result["refit"]) == (2, True)
    assert weights(config.output) == weights(whole.uri)


def test_storage_that_fails_says_how_to_go_on(tiny, local, monkeypatch):
    def full(self, snapshot):
        raise StorageError("no checkpoint: No space left on device")

    monkeypatch.setattr(CheckpointStore, "save", full)
    config = tiny()
    with pytest.raises(
        RunError, match=f"No space left.*; go on later with --resume {config.output}"
    ):
        train(config)


def test_parts_of_the_seconds_add_up(tiny, local):
    seconds = train(tiny()).result["seconds"]
    assert list(seconds) == ["prepare", "startup", "train", "evaluate", "finish", "total"]
    parts = [value for name, value in seconds.items() if name != "total"]
    assert sum(parts) == pytest.approx(seconds["total"], abs=0.05)
    assert seconds["evaluate"] > 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"train__num_workers": 2}, False),
        ({"train__num_workers": [1, 2]}, False),
        ({"train__use_gpu": True}, False),
        ({"train__use_gpu": False}, True),
        ({"train__resources_per_worker": {"CPU": 2}}, True),
        ({"train__resources_per_worker": {"CPU": 1, "big": 1}}, False),
    ],
)
@pytest.mark.usefixtures("no_cluster_in_the_shell")
def test_what_runs_without_ray(tiny, monkeypatch, settings, expected):
    monkeypatch.setitem(sys.modules, "ray", Ray(connected=False))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert runs_locally(tiny(**settings)) is expected


def test_a_named_or_connected_cluster_is_used(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Ray(connected=False))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert not runs_locally(tiny())
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setitem(sys.modules, "ray", Ray(connected=True))
    assert not runs_locally(tiny())
