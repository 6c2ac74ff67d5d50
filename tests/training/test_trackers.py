import dataclasses
import json
import warnings
from pathlib import Path

import pytest
from models import write_random_model

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.errors import ConfigError
from rnntune.training import trackers
from rnntune.training.run_folder import RunFolder
from rnntune.training.tracked_run import TrialRecord
from rnntune.training.trackers import RunTrackers, check_trackers

EPOCHS = [
    {"epoch": n, "step": 10 * n, "train_loss": 1.0 / n, "validation_accuracy": 0.5 + n / 10}
    for n in (1, 2)
]
RESULT = {"test_accuracy": 0.75, "best_epoch": 2, "seconds": {"total": 1.0}, "refit": False}
TRIAL = TrialRecord(
    name="trial_0003",
    values={"model.hidden_size": 32, "model.bidirectional": True, "model.word_vectors": None},
    history=EPOCHS,
    state="finished",
    scores={"validation_accuracy": 0.7},
)


@pytest.fixture
def run(tmp_path):
    """A run folder with a model, and its configuration with a tracker."""

    def make(*names) -> tuple[Config, RunFolder]:
        write_random_model(tmp_path / "run" / "model")
        return Config().override({"train.trackers": names}), RunFolder(str(tmp_path / "run"))

    return make


class _Lines(Terminal):
    def __init__(self):
        super().__init__(silent=True)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def _track(config, folder, seen=lambda: None) -> None:
    """A run that is stopped after each epoch and goes on, as a search with one trial."""
    terminal = _Lines()
    for number, metrics in enumerate(EPOCHS, start=1):
        attempt = RunTrackers(config, folder, terminal)
        attempt.add(metrics)
        attempt.add_trial(dataclasses.replace(TRIAL, history=EPOCHS[:number], state=None))
        attempt.close()
    seen()
    last = RunTrackers(config, folder, terminal)
    for _ in range(2):  # the second is of a trial that has ended
        last.add_trial(TRIAL)
    last.finish(RESULT)
    Path(folder.inside("report.html")).write_text("<html>the page")
    RunTrackers(config, folder, terminal).add_report()
    assert terminal.lines == []


def test_mlflow_keeps_settings_epochs_scores_model_and_trials(run, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed (extra `mlflow`)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow's own
        config, folder = run("mlflow")
        from mlflow.tracking import MlflowClient

        client = MlflowClient()

        def runs_of(experiment="rnntune"):
            return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])

        while_it_runs = []
        _track(config, folder, lambda: while_it_runs.extend(runs_of()))
        living = next(r for r in while_it_runs if "mlflow.parentRunId" in r.data.tags)
        assert living.info.status == "RUNNING"
        assert living.data.metrics["train_loss"] == 0.5
        runs = runs_of()
        parent = next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)
        child = next(r for r in runs if "mlflow.parentRunId" in r.data.tags)
        assert len(runs) == 2  # a resumed run is the same run
        assert parent.info.status == "FINISHED"
        assert parent.data.params["model.cell"] == "lstm"
        assert parent.data.metrics["test_accuracy"] == 0.75
        losses = client.get_metric_history(parent.info.run_id, "train_loss")
        assert [(m.step, m.value) for m in losses] == [(1, 1.0), (2, 0.5)]
        files = {item.path for item in client.list_artifacts(parent.info.run_id, "model")}
        assert "model/model.safetensors" in files
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["model.hidden_size"] == "32"
        assert len(client.get_metric_history(child.info.run_id, "validation_accuracy")) == 2
        assert child.info.status == "FINISHED"
        assert child.data.tags["state"] == "finished"
        page = client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path))
        assert Path(page).read_text() == "<html>the page"


def test_wandb_keeps_a_run_offline(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed (extra `wandb`)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of wandb's own
        config, folder = run("wandb")
        _track(config, folder)
    run_id = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    kept = list((tmp_path / "wandb").glob(f"offline-run-*-{run_id}*/run-{run_id}.wandb"))
    assert len(kept) >= 1
    content = b"".join(file.read_bytes() for file in kept)
    assert all(
        name in content for name in (b"validation_accuracy", b"model.cell", b"test_accuracy")
    )
    assert all(kind in content for kind in (b"run-model", b"run-report", b"report.html"))
    ids = json.loads((tmp_path / "run" / "trackers.json").read_text())["trials"]["wandb"]
    assert ids["trial_0003"]["is_over"]
    trial_id = ids["trial_0003"]["run_id"]
    files = (tmp_path / "wandb").glob(f"offline-run-*-{trial_id}*/run-{trial_id}.wandb")
    parts = [file.read_bytes() for file in files]
    assert sum(part.count(b"validation_loss") for part in parts) == 0
    assert sum(b"train_loss" in part for part in parts) == 2  # an epoch an attempt


def test_tensorboard_keeps_epochs_and_trials(run, tmp_path):
    config, folder = run("tensorboard")
    _track(config, folder)
    events = list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))
    content = b"".join(file.read_bytes() for file in events)
    assert b"validation/validation_accuracy" in content
    assert b"_hparams_/session_start_info" in content
    assert b"model.hidden_size" in content
    assert (tmp_path / "run" / "tensorboard" / "trial_0003").is_dir()


class _Failing:
    def add(self, _):
        raise ConnectionError("no server\nat all")

    def close(self):
        raise AssertionError("was dropped")


def test_a_tracker_that_fails_is_dropped_with_a_line(run, monkeypatch):
    monkeypatch.setattr(trackers, "_make", lambda *_: _Failing())
    config, folder = run("mlflow")
    terminal = _Lines()
    kept = RunTrackers(config, folder, terminal)
    for metrics in EPOCHS:
        kept.add(metrics)
    kept.close()
    assert terminal.lines == ["mlflow keeps no more of this run: no server"]


def test_no_tracker_writes_nothing(run, tmp_path):
    config, folder = run()
    _track(config, folder)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"model", "report.html"}


def test_a_tracker_that_is_not_installed_is_refused_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'mlflow is not installed: pip install "rnntune\[mlflow'):
        check_trackers(("mlflow",))
    output = str(tmp_path / "run")
    assert main(["train", "--output", output, "--train.trackers", "wandb"]) == 2
    assert "train.trackers: wandb is not installed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
