"""Searches on a real cluster: their trials, their limits, their mistakes, and being killed."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from rnntune import storage
from rnntune.cli.main import main
from rnntune.cluster.resources import Resources
from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.console import Terminal
from rnntune.data.prepared import ShardRef
from rnntune.errors import ClusterError, ConfigError, RunError
from rnntune.training.api import train
from rnntune.training.shared_dataset import SharedDataset
from rnntune.tuning.aims import Aims
from rnntune.tuning.api import plan, tune
from rnntune.tuning.extension import Extension
from rnntune.tuning.journal import Journal, Trial, TrialState, best_trial
from rnntune.tuning.leaderboard import leaderboard
from rnntune.tuning.plan import place_trials
from rnntune.tuning.results import TuneResult, trials_table
from rnntune.tuning.search import Search
from rnntune.tuning.space_parser import parse_space
from rnntune.tuning.trial_loop import TrialContext, trial_dataset
from rnntune.tuning.tuner import run_config

SPACE = {
    "model.hidden_size": {"choice": [8, 12, 16]},
    "train.learning_rate": {"loguniform": [0.003, 0.03]},
}


@pytest.fixture
def searched(tiny):
    """Gives the configuration of a small random search, with overrides."""

    def make(**overrides) -> Config:
        given = {"tune__space": SPACE, "tune__searcher": "random", "tune__num_trials": 4}
        given |= {"tune__scheduler": "none", "model__embedding_dim": 8}
        return tiny(**(given | overrides))

    return make


def values_of(result: TuneResult) -> list[dict]:
    kept = Journal(storage.join(result.uri, "trials.jsonl"))
    return [trial.values for trial in kept.trials]


class Witness(Terminal):
    """A terminal that keeps what it is told, and acts on it."""

    def __init__(self, act=None) -> None:
        super().__init__(silent=True)
        self.lines: list[str] = []
        self._act = act

    def update(self, text, drawn=None) -> None:
        self.lines.append(text)
        if drawn is not None:
            drawn()
        if self._act is not None:
            self._act(text)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_leaves_what_the_commands_need(searched, ray_session, tmp_path, capfd):
    witness = Witness()
    done = tune(searched(train__epochs=2, tune__scheduler="asha"), terminal=witness)
    uri = Path(done.uri)
    result = json.loads((uri / "result.json").read_text())
    assert result == done.result
    assert result["num_trials"] == 4
    assert result["num_errors"] == 0
    parts = dict(result["seconds"])
    assert parts.pop("total") == pytest.approx(sum(parts.values()), abs=0.05)
    assert set(parts) == {"prepare", "startup", "train", "evaluate", "finish"}
    assert result["test_rows"] == 1000
    assert result["test_accuracy"] > 0.5
    with (uri / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [str(n) for n in done.trials["trial"]]
    assert {row["state"] for row in rows} <= {"finished", "stopped"}
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert result["validation_accuracy"] == accuracies[0]
    differ = len(set(accuracies)) > 1  # otherwise nothing mattered
    assert set(result["importance"]) == (set(SPACE) if differ else set())
    best = yaml_config(uri / "best.yaml")
    assert best == done.best
    assert best.model.hidden_size == done.trials["model.hidden_size"][0]
    assert best.tune == Config().tune
    assert {p.name for p in (uri / "model").iterdir()} == {
        "README.md",
        "config.yaml",
        "model.safetensors",
        "vocab.txt",
    }
    assert len((uri / "metrics.jsonl").read_text().splitlines()) == done.trials["epochs"][0]
    kept = sorted(p.parent.name for p in (uri / "search").rglob("checkpoint_*"))
    assert kept == [f"trial-{result['best_trial']:04d}"]
    assert "train_loss" in (uri / "search" / "trial-0000" / "log.txt").read_text()
    assert any("running" in line for line in witness.lines)
    assert capfd.readouterr() == ("", "")
    again = tune(Config(output=done.uri), resume=True)
    assert again.result == done.result
    changed = {"output": str(tmp_path / "again"), "train.resources_per_worker": {"CPU": 1}}
    trained = train(best.override(changed)).result
    assert trained["test_accuracy"] == result["test_accuracy"]
    assert trained["validation_accuracy"] == result["validation_accuracy"]

    before = values_of(done)
    further = tune(Config(output=done.uri), resume=True, more=Extension(num_trials=1))
    assert further.result["num_trials"] == 5
    assert values_of(further)[:4] == before
    assert further.result["validation_accuracy"] >= result["validation_accuracy"]
    assert yaml_config(uri / "config.yaml").tune.num_trials == 5
    attempts = [t.attempts for t in Journal(str(uri / "trials.jsonl")).trials]
    assert attempts == [1] * 5


@pytest.mark.ray
@pytest.mark.slow
def test_an_ensemble_and_the_model_that_learned_from_it(searched, ray_session, tmp_path, capfd):
    done = tune(searched(train__epochs=2, tune__ensemble=2, tune__distill=True))
    uri, result = Path(done.uri), done.result
    assert done.result == json.loads((uri / "result.json").read_text())
    members = result["ensemble"]["members"]
    assert 1 <= len(members) <= 2
    assert {m["trial"] for m in members} <= set(range(4))
    files = {path.name for path in (uri / "ensemble").iterdir()}
    weights = {f"member-{number}.safetensors" for number in range(len(members))}
    assert files == {"README.md", "config.yaml", "vocab.txt"} | weights
    assert (uri / "model" / "model.safetensors").exists()
    for key in ("best_single", "ensemble", "distilled"):
        assert result[key]["test_accuracy"] > 0.5
    assert result["test_accuracy"] == result["distilled"]["test_accuracy"]
    assert {p.name for p in (uri / "search").iterdir()} == {f"trial-{n:04}" for n in range(4)}
    for model in (uri, uri / "ensemble"):
        assert main(["export", str(model), "--output", str(tmp_path / f"{model.name}-export")]) == 0
    capfd.readouterr()
    assert main(["evaluate", done.uri, "--json"]) == 0
    scores = json.loads(capfd.readouterr().out)
    assert scores["accuracy"] == pytest.approx(result["test_accuracy"])

    weights_of = [(uri / "ensemble" / name).read_bytes() for name in sorted(weights)]
    (uri / "result.json").unlink()  # killed before its end
    again = tune(Config(output=done.uri), resume=True)
    assert again.result["ensemble"] == result["ensemble"]
    assert again.result["distilled"] == result["distilled"]
    assert [(uri / "ensemble" / name).read_bytes() for name in sorted(weights)] == weights_of


def yaml_config(path: Path) -> Config:
    return Config.load(str(path))


@pytest.mark.ray
@pytest.mark.slow
def test_trials_that_go_wrong_do_not_end_the_search(searched, ray_session, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("the 1 2 3 4 5 6 7 8\nof 2 3 4 5 6 7 8 9\n")
    names = ("model.hidden_size", "model.embedding_dim", "train.learning_rate")
    points = [
        dict(zip(names, values, strict=True))
        for values in (
            (50_000_000, 8, 0.01),  # over the limit, and no memory would hold it
            (8, 8, 3e37),  # the weights leave the numbers
            (8, 9, 0.01),  # raises: the vectors to start from have 8 numbers
            (8, 8, 0.01),
        )
    ]
    done = tune(
        searched(
            model__word_vectors=str(vectors),
            model__freeze_word_vectors=False,
            tune__space={name: {"choice": sorted({p[name] for p in points})} for name in names},
            tune__points_to_evaluate=points,
            tune__max_parameters=10**9,
            tune__scheduler="asha",
            tune__searcher="tpe",
        )
    )
    by_trial = done.trials.set_index("trial").sort_index()
    assert list(by_trial["state"]) == ["over limit", "diverged", "failed", "finished"]
    assert by_trial["reason"][0].endswith("parameters, over 1,000,000,000")
    assert "not finite at step" in by_trial["reason"][1]
    assert "model.embedding_dim is 9" in by_trial["reason"][2]
    assert done.result["num_errors"] == 2
    assert done.result["num_over_limit"] == 1
    assert done.result["best_trial"] == 3


@pytest.mark.ray
@pytest.mark.slow
def test_no_trial_within_the_limits_is_an_error(searched, ray_session):
    with pytest.raises(RunError, match=r"none of 1 trials has a score.*over 0\.0001"):
        tune(searched(tune__num_trials=1, tune__max_latency_ms=0.0001))


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_a_trial(searched, ray_session):
    done = tune(searched(tune__num_trials=1, tune__workers_per_trial=2))
    assert done.result["world_size"] == 2
    assert done.result["num_finished"] == 1
    assert done.result["num_errors"] == 0
    assert done.result["validation_accuracy"] > 0.5
    assert done.best.train.num_workers == 2
    assert set(done.model.predict(["Stocks fall"])) <= set(done.model.classes)
    log = storage.read_text(storage.join(done.uri, "search", "trial-0000", "log.txt"))
    assert [line for line in log.splitlines() if "validation_accuracy" in line]


@pytest.mark.ray
@pytest.mark.slow
def test_a_second_training_that_was_killed_goes_on(searched, ray_session):
    done = tune(searched(tune__num_trials=1, tune__refit=True))
    assert done.result["train_rows"] == 8000
    uri = Path(done.uri)
    (uri / "result.json").unlink()
    (uri / "checkpoints" / ".checkpoint_000000001.part").mkdir()  # a kill may leave it
    again = tune(Config(output=done.uri), resume=True)
    assert again.result["test_accuracy"] == done.result["test_accuracy"]
    assert not list((uri / "checkpoints").glob(".*"))


def test_asha_lets_the_longest_trial_run_to_its_end(searched, tmp_path):
    config = searched(
        tune__scheduler="asha", tune__space={"train.epochs": {"choice": [8, 2, 4]}}, train__epochs=3
    )
    found = parse_space(config)
    search = Search(config, found, Journal(str(tmp_path / "trials.jsonl")), str(tmp_path), 1)
    assert search._new_asha().rungs == (1, 3)
    assert found.highest("train.epochs", 3) == 8
    assert found.highest("model.hidden_size", 3) == 3


def test_the_query_of_a_uri_does_not_become_a_name(searched, tmp_path):
    config = searched()
    uri = storage.join("s3://bucket/run?region=eu-west-1", "search")
    kept = Journal(str(tmp_path / "trials.jsonl"))
    found = run_config(Search(config, parse_space(config), kept, uri, 1))
    assert found.storage_path == "bucket/run/search"
    assert found.storage_filesystem.region == "eu-west-1"


@pytest.mark.parametrize(("width", "settings_in_rows"), [(60, True), (80, True), (200, False)])
def test_the_leaderboard_breaks_no_word(width, settings_in_rows):
    names = ["model.embedding_dropout", "train.label_smoothing", "train.learning_rate"]
    trials = [
        Trial(
            number=n,
            values=dict.fromkeys(names, 0.01234),
            state=TrialState.FINISHED,
            num_parameters=10**7,
        )
        for n in range(12)
    ]
    table = trials_table(trials, names, Aims((Metric("validation_accuracy"),)))
    table["num_parameters"] = 10_000_000
    console = Console(width=width, file=io.StringIO())
    console.print(leaderboard(table, {}))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.startswith("embedding dropout ")]
    assert len(rows) == settings_in_rows
    assert settings_in_rows or "embedding dropout label smoothing learning rate" in lines[0]
    assert any("10,000,000 finished" in line for line in lines)


def test_a_dry_run_of_a_search_that_is_there_is_refused(capsys):
    assert main(["tune", "--dry-run", "--resume", "runs/one"]) == 2
    assert "--dry-run plans a new search" in capsys.readouterr().err


SCRIPT = """
import sys
from rnntune.config.load import Config
from rnntune.tuning.api import tune
tune(Config.load(sys.argv[1]), overwrite=True)
"""


def one_is_over_and_one_runs(journal: Journal) -> bool:
    half = [trial for trial in journal.trials if not trial.is_over and trial.history]
    return bool(half) and any(trial.is_over for trial in journal.trials)


def kill_in_the_middle(config: Config, file: Path, is_time=one_is_over_and_one_runs) -> Journal:
    """Run a search in its own process and kill that when it has come to some point."""
    file.write_text(config.to_yaml())
    uri = storage.join(str(config.output), "trials.jsonl")
    search = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file)],
        start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": ""},
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and search.poll() is None:
            if storage.exists(uri) and is_time(Journal(uri)):
                break
            time.sleep(0.05)
        assert search.poll() is None, "the search ended before it could be killed"
    finally:
        os.killpg(search.pid, signal.SIGKILL)
        search.wait()
    return Journal(uri)


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_trials_of_an_uninterrupted_one(
    searched, ray_session, tmp_path
):
    config = searched(
        train__epochs=3,
        tune__num_trials=4,
        tune__searcher="tpe",
        tune__scheduler="asha",
        tune__max_concurrent_trials=1,
    )
    before = kill_in_the_middle(config, tmp_path / "config.yaml")
    over = [t for t in before.trials if t.is_over]
    assert over
    assert len(over) < 4
    resumed = tune(Config(output=config.output), resume=True)
    whole = tune(config.override({"output": str(tmp_path / "whole")}))
    assert values_of(resumed) == values_of(whole)
    after, other = (Journal(storage.join(r.uri, "trials.jsonl")) for r in (resumed, whole))
    for mine, theirs in zip(after.trials, other.trials, strict=True):
        assert mine.state == theirs.state
        for name in ("validation_accuracy", "train_loss", "step"):
            assert [h[name] for h in mine.history] == [h[name] for h in theirs.history]
    assert [t.attempts for t in after.trials[: len(over)]] == [1] * len(over)
    assert resumed.result["test_accuracy"] == whole.result["test_accuracy"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_population_that_was_killed_ends_in_the_bits_of_an_uninterrupted_one(
    searched, ray_session, tmp_path
):
    config = searched(train__epochs=3, tune__scheduler="pbt", tune__searcher="tpe")
    file = tmp_path / "config.yaml"
    before = kill_in_the_middle(config, file, lambda journal: len(journal.order) >= 5)
    assert before.exchanged_epoch >= 1
    resumed = tune(Config(output=config.output), resume=True)
    witness = Witness()
    witness.line = witness.lines.append
    whole = tune(config.override({"output": str(tmp_path / "whole")}), terminal=witness)
    after, other = (Journal(storage.join(r.uri, "trials.jsonl")) for r in (resumed, whole))
    assert other.exchanged_epoch == 2
    assert sum(trial.has_changed for trial in other.trials) >= 1
    for mine, theirs in zip(after.trials, other.trials, strict=True):
        assert (mine.state, mine.stages) == (theirs.state, theirs.stages)
        for name in ("validation_accuracy", "train_loss", "step"):
            assert [h[name] for h in mine.history] == [h[name] for h in theirs.history]
    for name in ("model/model.safetensors", "best.yaml", "schedule.yaml"):
        first, second = (Path(run.uri, name).read_bytes() for run in (resumed, whole))
        assert first == second, name

    best = other.trials[whole.result["best_trial"]]
    assert whole.result["schedule"][-1]["values"] == best.values
    assert whole.best.train.learning_rate == best.values["train.learning_rate"]
    assert whole.best.train.patience == 0
    assert any("schedule.yaml" in line for line in witness.lines) == best.has_changed
    assert "copied" in whole.trials
    with pytest.raises(ConfigError, match="began together"):
        tune(Config(output=whole.uri), resume=True, more=Extension(num_trials=1))


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_the_user_stops_keeps_what_is_finished(searched, ray_session):
    config = searched(train__epochs=3, tune__num_trials=4)
    stopped_at = []

    def stop(text: str) -> None:
        if not text.startswith("0 of"):
            stopped_at.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(config, terminal=Witness(stop))
    assert time.monotonic() - stopped_at[0] < 10
    before = Journal(storage.join(str(config.output), "trials.jsonl")).trials
    assert any(t.is_over for t in before)
    assert not all(t.is_over for t in before)
    assert storage.exists(storage.join(str(config.output), "trials.csv"))
    done = tune(Config(output=config.output), resume=True)
    assert done.result["num_finished"] == 4
    assert [t.values for t in before] == values_of(done)[: len(before)]


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_whose_process_dies_goes_on_from_its_checkpoint(searched, ray_session):
    config = searched(train__epochs=4, tune__num_trials=1)
    killed: list[int] = []

    def kill(text: str) -> None:
        if not killed and Journal(storage.join(str(config.output), "trials.jsonl")).order:
            log = Path(str(config.output), "search", "trial-0000", "log.txt").read_text()
            killed.append(json.loads(log.splitlines()[0])["pid"])
            os.kill(killed[0], signal.SIGKILL)

    done = tune(config, terminal=Witness(kill))
    assert killed
    whole = tune(config.override({"output": f"{config.output}-whole"}))
    ours, theirs = (Journal(storage.join(r.uri, "trials.jsonl")) for r in (done, whole))
    assert ours.trials[0].state is TrialState.FINISHED
    assert [h["train_loss"] for h in ours.trials[0].history] == [
        h["train_loss"] for h in theirs.trials[0].history
    ]
    log = Path(done.uri, "search", "trial-0000", "log.txt").read_text()
    assert '"went_on_after_epoch"' in log


@pytest.mark.ray
@pytest.mark.slow
def test_searched_data_is_prepared_before_and_refit_takes_all_rows(searched, ray_session):
    space = {"data.max_length": {"grid": [4, 64]}}
    done = tune(
        searched(tune__space=space, tune__searcher="grid", tune__refit=True, tune__scheduler="asha")
    )
    assert sorted(done.trials["data.max_length"]) == [4, 64]
    assert done.best.data.max_length == 64
    assert done.result["refit"] is True
    assert done.result["temperature"] != 1  # that of the trial, which had validation rows
    assert done.result["train_rows"] == 8000
    assert done.result["test_rows"] == 1000
    assert storage.exists(storage.join(done.uri, "model", "config.yaml"))


@pytest.mark.ray
@pytest.mark.slow
def test_trials_on_folds_are_compared_by_their_means_and_the_best_is_trained(searched, ray_session):
    given = {"tune__folds": 3, "tune__num_trials": 2, "tune__scheduler": "asha", "train__epochs": 2}
    done = tune(searched(**given))
    assert done.result["folds"] == 3
    assert done.result["folds_validation_accuracy"] == done.trials["validation_accuracy"][0]
    assert done.result["folds_standard_error"] == done.trials["standard_error"][0]
    kept = Journal(storage.join(done.uri, "trials.jsonl"))
    assert {epoch["validation_rows"] for _, epoch in kept.order} == {8000}  # each row once
    assert done.result["refit"] is False
    assert done.result["train_rows"] < 8000  # of the usual split
    assert done.best.train.epochs == 2
    assert storage.exists(storage.join(done.uri, "model", "config.yaml"))


@pytest.mark.ray
def test_a_time_budget_ends_the_search(searched, ray_session, monkeypatch):
    late = property(lambda search: 1e6 if len(search.journal.order) > 3 else 0.0)
    monkeypatch.setattr(Search, "elapsed_s", late)
    done = tune(searched(train__epochs=500, tune__time_budget_s=12))
    assert done.result["seconds"]["train"] < 40
    assert set(done.trials["state"]) == {"stopped"}
    assert set(done.trials["reason"]) == {"time is up"}


@pytest.mark.ray
def test_a_plan_says_what_would_be_done(searched, ray_session):
    planned = plan(searched(tune__max_concurrent_trials=1))
    assert planned.max_concurrent == 1
    assert planned.num_trials == 4
    assert planned.space_size is None
    assert 100_000 < planned.object_store_bytes < 10_000_000
    assert "trials: 4, 1 at once, 1 CPU a trial" in planned.lines()
    assert json.loads(json.dumps(planned.to_dict()))["train_rows"] == 7600


@pytest.mark.ray
def test_a_plan_too_large_for_the_cluster_is_refused_with_the_numbers(searched, ray_session):
    with pytest.raises(ClusterError, match=r"3 workers with 1 CPU: .* 2 CPU on 1 node, room for 2"):
        tune(searched(tune__workers_per_trial=3))


def cluster_of(*node_cpus: float, gpus: float = 0, autoscales: bool = False) -> Resources:
    nodes = tuple({"CPU": cpus, "GPU": gpus} for cpus in node_cpus)
    return Resources(nodes=nodes, object_store_bytes=10**9, autoscales=autoscales)


@pytest.mark.parametrize(
    ("overrides", "there", "max_concurrent"),
    [
        ({}, cluster_of(2, 2), 4),
        ({"tune.max_concurrent_trials": 5}, cluster_of(1, autoscales=True), 5),
        ({"train.resources_per_worker": {"CPU": 4}}, cluster_of(1, autoscales=True), 1),
        ({"tune.num_trials": 3}, cluster_of(8), 3),
        ({"tune.max_concurrent_trials": 2}, cluster_of(8), 2),
        ({"train.resources_per_worker": {"CPU": 3}}, cluster_of(8, 2), 2),
        ({"tune.workers_per_trial": 2}, cluster_of(8, 3), 5),
        ({"train.use_gpu": "auto"}, cluster_of(8, gpus=2), 2),
        ({"train.resources_per_worker": {"CPU": 1, "GPU": 0.25}}, cluster_of(16, gpus=2), 8),
    ],
)
def test_trials_at_once_follow_from_the_cluster(overrides, there, max_concurrent):
    config = Config.load(None, overrides)
    assert place_trials(config, parse_space(config), there)[0] == max_concurrent


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            {"train.resources_per_worker": {"CPU": 4}},
            "1 worker with 4 CPU: the cluster has 3 CPU on 2 nodes, room for 0",
        ),
        ({"train.use_gpu": True}, "3 CPU, 0 GPU on 2 nodes, room for 0"),
    ],
)
def test_a_trial_that_no_node_holds_is_refused(overrides, told):
    config = Config.load(None, overrides)
    with pytest.raises(ClusterError, match=told):
        place_trials(config, parse_space(config), cluster_of(2, 1))


def test_a_misspelt_setting_is_refused_before_anything_starts(tiny):
    config = tiny(tune__space={"model.hiden_size": {"choice": [8]}})
    with pytest.raises(ConfigError, match=r"did you mean model\.hidden_size"):
        tune(config)
    assert not storage.exists(str(config.output))


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_trial_takes_a_test_row(split):
    rows = [ShardRef(num_rows=1, uri="s3://cache/test-0a1b.parquet")]
    parts = {"train": [], "validation": [], split: rows}
    feed = SharedDataset(
        parts=parts, classes=("a", "b"), num_words=3, num_trained_words=3, fingerprint="f"
    )
    job = TrialContext(
        config=Config(),
        feeds={"{}": feed},
        uri="",
        text_length=1,
        workers=1,
        resources={},
        use_gpu=False,
    )
    with pytest.raises(AssertionError, match="test"):
        trial_dataset(job, {})


def test_a_line_that_a_kill_cut_short_never_happened(tmp_path):
    uri = str(tmp_path / "trials.jsonl")
    kept = Journal(uri)
    kept.start(0, {"train.seed": 1}, 2)
    epoch = {"epoch": 1, "validation_accuracy": 0.5, "train_s": 1.0, "validation_s": 0.1}
    assert kept.epoch(0, epoch)
    assert not kept.epoch(0, epoch)
    with Path(uri).open("a") as file:
        file.write('{"event": "end", "trial": 0, "sta')
    again = Journal(uri)
    assert again.trials == kept.trials
    again.end(0, TrialState.FINISHED, "", 1.5)
    assert Journal(uri).trials[0].state is TrialState.FINISHED


def test_the_best_trial_is_one_that_may_be_chosen():
    def of(number: int, state: str, *values: float) -> Trial:
        history = [{"validation_accuracy": value, "validation_loss": value} for value in values]
        return Trial(number=number, values={}, state=TrialState(state), history=history)

    trials = [
        of(0, "over limit"),
        of(1, "diverged", 0.99),
        of(2, "stopped", 0.8),
        of(3, "finished", 0.9, 0.7),
        of(4, "finished", 0.9),
    ]
    assert best_trial(trials, Metric("validation_accuracy")) is trials[3]
    assert best_trial(trials, Metric("validation_loss")) is trials[3]
    assert best_trial(trials[:2], Metric("validation_accuracy")) is None
