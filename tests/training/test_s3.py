"""Runs on object storage, against a server on this machine that speaks S3."""

import json
import os
import signal

import pytest
from clusters import ROOT, ended, ray_head, reached, rnntune, tiny, wait_until
from s3_server import s3_env  # noqa: F401  (a fixture)

from rnntune import storage
from rnntune.data.sample_corpus import TOPICS, generate
from rnntune.errors import RnntuneError
from rnntune.training.saved_model import read_model
from rnntune.tuning.journal import Journal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = "s3://bucket/runs/one"


@pytest.fixture(scope="module")
def address(s3_env):  # noqa: F811  (the fixture)
    with ray_head(RAY_AUTH_MODE="disabled", PYTHONPATH=str(ROOT), **s3_env) as head:
        yield head.address


@pytest.fixture(scope="module")
def news(s3_env):  # noqa: F811
    """News in AG News form, in two files."""
    for split, stem in (("train", "a"), ("test", "b")):
        rows = generate(split, 1500)
        lines = [f'"{TOPICS.index(label) + 1}","{text}","more"' for label, text in rows]
        storage.write_text(f"s3://bucket/in/{stem}.csv", "\n".join(lines) + "\n")
    return ["--data=s3://bucket/in/*.csv", "--data.cache_dir=s3://bucket/cache"]


def test_a_run_from_bucket_to_bucket(address, news):
    out, _ = ended(
        rnntune(
            "train", *news, *tiny(train__epochs=3), f"--output={RUN}", "--json", RAY_ADDRESS=address
        )
    )
    result = json.loads(out.splitlines()[-1])
    assert result["output"] == RUN
    assert result["test_accuracy"] > 0.5
    names = {"checkpoints", "config.yaml", "metrics.jsonl", "model", "result.json", "tensorboard"}
    names |= {"data.json", "report.html", "run.json", "test_predictions.parquet"}
    assert set(storage.list_folder(RUN)) == names
    model, _, description = read_model(RUN)
    assert len(description.classes) == 4
    assert sum(p.numel() for p in model.parameters()) == result["num_parameters"]


def test_a_finished_run_is_known_again(address, news):
    _, err = ended(rnntune("train", "--resume", RUN, RAY_ADDRESS=address))
    assert f"{RUN} is finished already" in err


def test_a_killed_run_goes_on(address, news):
    uri = "s3://bucket/runs/killed"
    settings = tiny(train__epochs=3, train__checkpoint_every_steps=10)
    killed = rnntune("train", *news, *settings, f"--output={uri}", RAY_ADDRESS=address)
    wait_until(lambda: reached(uri) >= 2, timeout_s=60)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert "result.json" not in storage.list_folder(uri)
    _, err = ended(rnntune("train", "--resume", uri, RAY_ADDRESS=address))
    assert "epoch 1/3" not in err
    assert "epoch 3/3" in err
    weights = [storage.read_bytes(f"{run}/model/model.safetensors") for run in (RUN, uri)]
    assert weights[0] == weights[1]


def test_a_killed_search_goes_on(address, news):
    uri = "s3://bucket/runs/search"
    space = "{model.hidden_size: {choice: [8, 16]}, batching.batch_rows: {choice: [32, 64]}}"
    settings = [*tiny(train__epochs=2, tune__num_trials=3, tune__max_concurrent_trials=1)]
    settings += ["--tune.searcher=random", "--tune.scheduler=none", f"--tune.space={space}"]
    killed = rnntune("tune", *news, *settings, f"--output={uri}", RAY_ADDRESS=address)
    trials = storage.join(uri, "trials.jsonl")
    wait_until(lambda: any(trial.is_over for trial in Journal(trials).trials), timeout_s=60)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = Journal(trials).trials
    assert not all(trial.is_over for trial in before) or len(before) < 3
    out, _ = ended(rnntune("tune", "--resume", uri, "--json", RAY_ADDRESS=address))
    assert json.loads(out.splitlines()[-1])["num_finished"] == 3
    after = Journal(trials).trials
    assert [t.attempts for t, b in zip(after, before, strict=False) if b.is_over] == [1]
    names = {"best.yaml", "config.yaml", "metrics.jsonl", "model", "result.json", "search"}
    names |= {"trackers.json"}
    names |= {"data.json", "report.html", "run.json", "tensorboard", "test_predictions.parquet"}
    assert set(storage.list_folder(uri)) == names | {"trials.csv", "trials.jsonl"}
    read_model(uri)


def test_a_trial_whose_process_dies_goes_on(address, news):
    uri = "s3://bucket/runs/dying"
    settings = tiny(train__epochs=20, tune__num_trials=1, tune__scheduler="none")
    search = rnntune("tune", *news, *settings, f"--output={uri}", "--json", RAY_ADDRESS=address)
    trials = storage.join(uri, "trials.jsonl")
    wait_until(lambda: any(len(t.history) >= 2 for t in Journal(trials).trials), timeout_s=60)
    log = storage.join(uri, "search", "trial-0000", "log.txt")
    os.kill(json.loads(storage.read_text(log).splitlines()[0])["pid"], signal.SIGKILL)
    out, _ = ended(search)
    result = json.loads(out.splitlines()[-1])
    assert (result["num_finished"], result["epochs"]) == (1, 20)
    (went_on,) = [line for line in storage.read_text(log).splitlines() if "went_on" in line]
    assert json.loads(went_on)["went_on_after_epoch"] >= 2


@pytest.mark.parametrize(
    ("verb", "setting"),
    [
        ("train", "--output"),
        ("train", "--data.cache_dir"),
        ("train", "--data"),
        ("tune", "--output"),
    ],
)
def test_a_bucket_that_is_not_there(address, news, tmp_path, verb, setting):
    uris = {"--output": f"{tmp_path}/run", "--data.cache_dir": f"{tmp_path}/cache"}
    uris[setting] = "s3://nowhere/folder"
    arguments = [f"{name}={uri}" for name, uri in uris.items()]
    _, err = ended(rnntune(verb, *tiny(), *arguments, RAY_ADDRESS=address), status=2)
    (line,) = err.splitlines()
    assert line.startswith("rnntune: ")
    assert "s3://nowhere/folder" in line


def test_a_server_that_is_not_there(tmp_path, s3_env, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RnntuneError, match="s3://bucket/x"):
        storage.read_bytes("s3://bucket/x")
