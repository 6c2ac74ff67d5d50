"""Every write of a command can be the last: what was begun goes on to the same end.

A process is killed at a write, or the write fails, or storage fails for a while, on a local disk
and in a bucket; then the same command goes on. What it leaves must be that of an undisturbed run,
bit for bit, and no file may be left that such a run lacks.

A few writes of each command are struck, evenly spread. With
FAULTS=all in the environment it is every one, and storage is away for 5 and 30 seconds, too.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from models import write_random_model
from searches import drive

from rnntune.config.load import Config
from rnntune.data.sample_corpus import generate
from rnntune.tuning.journal import Journal
from rnntune.tuning.search import Search
from rnntune.tuning.space_parser import parse_space

KILLED = 256 - signal.SIGKILL
DRIVER = Path(__file__).with_name("driver.py")
ALL = os.environ.get("FAULTS") == "all"
MODEL = [
    "--model.embedding_dim=4", "--model.hidden_size=4", "--model.word_vectors=null",
    "--model.ngrams=0", "--batching.batch_rows=32", "--train.num_threads=1",
    "--train.trackers=[]",
]  # fmt: skip
SPACE = "{model.hidden_size: {choice: [2, 4]}, train.learning_rate: {loguniform: [0.001, 0.1]}}"
EXTRAS = {"run/data.json", "run/test_predictions.parquet", "run/report.html"}
EXTRAS |= {"cache/prepared/*/used.json"}
"""Without these a run goes on where they cannot be written."""
EQUAL = re.compile(
    r"run/((model|ensemble)/(m.*\.safetensors|vocab\.txt)|(best|pareto|schedule)\.yaml|warm_start\.json|part-.*)"
    r"|cache/.*/vocab\.txt"
)
"""Files that hold nothing of the time."""

UNOWNED = re.compile(r"run\.[0-9a-f]{8}\.part/(_owner|\.probe-)|(run|cache)/\.probe-")
"""Of a process killed before it noted itself; swept by who comes a minute or an hour later."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A few rows of the sample as a file."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [json.dumps({"label": label, "text": text}) for label, text in generate("train", 160)]
    file.write_text("".join(f"{row}\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A search to begin from."""
    folder = tmp_path_factory.mktemp("earlier")
    config = Config.load({
        "train.epochs": 1,
        "tune": {"space": yaml.safe_load(SPACE), "searcher": "random", "num_trials": 4},
    })  # fmt: skip
    (folder / "config.yaml").write_text(config.to_yaml())
    journal = Journal(str(folder / "trials.jsonl"))
    search = Search(config, parse_space(config), journal, str(folder / "search"), 1)
    drive(search, lambda values: (0.5 + values["train.learning_rate"], 1.0, 10))
    return str(folder)


@pytest.fixture
def words(rows, model, earlier):
    """Gives the words of a command, and those with which it goes on."""

    def make(verb):
        if verb == "predict":
            command = [verb, model, "--input", rows, "--output={run}", "--format=jsonl"]
            return command, [*command, "--overwrite"]
        data = [f"--data={rows}", "--data.cache_dir={cache}", "--data.validation_fraction=0.2"]
        if verb == "prepare":
            return [verb, *data], [verb, *data]
        command = [verb if verb == "train" else "tune", *data, "--output={run}", *MODEL]
        if verb == "train":
            command += ["--train.epochs=2", "--train.checkpoint_every_steps=3"]
        elif verb == "warm":
            command += [
                f"--tune.space={SPACE}", "--tune.num_trials=4", f"--tune.warm_start={earlier}",
                "--tune.metric=[validation_accuracy,num_parameters]", "--tune.scheduler=none",
                "--train.refit=false", "--train.epochs=1", "--tune.searcher=tpe",
            ]  # fmt: skip
        elif verb == "pbt":
            command += [
                f"--tune.space={SPACE}", "--tune.num_trials=4", "--tune.scheduler=pbt",
                "--train.epochs=3",
            ]  # fmt: skip
        else:
            command += [
                "--tune.space={model.hidden_size: {grid: [2, 4]}}", "--tune.searcher=grid",
                "--tune.scheduler=none", "--train.refit=false", "--train.epochs=2",
            ]  # fmt: skip
        if verb == "distill":
            command += ["--tune.ensemble=2", "--tune.distill=true"]
        return command, [*command, "--resume"]

    return make


def disturbed(folder, job):
    """Run the driver: what it says of the undisturbed run, and of each point."""
    file = folder / "job.json"
    file.write_text(json.dumps({"root": str(folder), **job}))
    ended = subprocess.run(
        [sys.executable, DRIVER, file], capture_output=True, text=True, timeout=3000
    )
    assert ended.returncode == 0, ended.stderr
    whole, *others = map(json.loads, ended.stdout.splitlines())
    assert (whole["first"], whole["again"]) == (0, 0), log_of(folder, 0)
    assert len(others) == job["most"] if job["most"] else len(others) >= 4
    return whole, others


def log_of(folder, point):
    return Path(folder, f"point-{point}.log").read_text()


def kept(files):
    """Files that must be there in every case; a killed process's notes are nobody's."""
    return {name for name in files if not name.endswith(".owner.json")}


def check(folder, kind, whole, outcomes):
    """Compare every disturbed run with the undisturbed one."""
    for outcome in outcomes:
        point = outcome["point"]
        said = f"point {point}\n{log_of(folder, point)}"
        if kind == "kill" and outcome["struck"]:  # how often a search notes the time, time says
            assert outcome["first"] == KILLED, said
        assert outcome["first"] in {0, 2, KILLED}, said
        assert outcome["again"] == 0, said
        assert "Traceback" not in said
        left = kept(outcome["files"]) - kept(whole["files"])
        left = {name for name in left if not UNOWNED.match(name)}
        if kind == "asleep":  # nothing can be deleted meanwhile; the next preparation does it
            left = {name for name in left if not re.match(r"cache/.*\.part$", name)}
        assert not left, said
        missing = kept(whole["files"]) - kept(outcome["files"])
        assert missing <= (set() if kind == "kill" else EXTRAS), said
        for name, digest in whole["files"].items():
            if EQUAL.fullmatch(name):
                assert outcome["files"][name] == digest, f"{name}: {said}"
    assert any(outcome["struck"] for outcome in outcomes)
    assert any(EQUAL.fullmatch(name) for name in whole["files"])


CASES = [
    # Where, verb, kind, seconds, writes that are struck if not all are.
    ("disk", "train", "kill", 0, 4),
    ("disk", "train", "full", 0, 2),
    ("disk", "train", "asleep", 1, 2),
    ("disk", "prepare", "kill", 0, 2),
    ("disk", "prepare", "full", 0, 1),
    ("disk", "predict", "kill", 0, 2),
    ("disk", "predict", "full", 0, 1),
    ("disk", "predict", "asleep", 1, 1),
    ("disk", "tune", "kill", 0, 3),
    ("disk", "tune", "full", 0, 1),
    ("disk", "tune", "asleep", 1, 1),
    ("disk", "distill", "kill", 0, 5),
    ("disk", "warm", "kill", 0, 2),
    ("disk", "pbt", "kill", 0, 4),
    ("s3", "train", "kill", 0, 2),
    ("s3", "train", "asleep", 1, 1),
    ("s3", "predict", "kill", 0, 2),
    ("s3", "predict", "asleep", 1, 1),
    ("s3", "tune", "kill", 0, 2),
    ("s3", "tune", "asleep", 1, 1),
]
if ALL:
    CASES += [
        (where, verb, "asleep", seconds, most)
        for where, verb, kind, _, most in CASES
        if kind == "asleep"
        for seconds in (5, 30)
    ]


@pytest.mark.timeout(4000)
@pytest.mark.parametrize(("where", "verb", "kind", "seconds", "most"), CASES)
def test_every_write_can_go_wrong(tmp_path, words, where, verb, kind, seconds, most):
    command, again = words(verb)
    job = {"where": where, "kind": kind, "seconds": seconds, "command": command, "again": again}
    job["most"] = None if ALL and seconds < 5 else most
    whole, outcomes = disturbed(tmp_path, job)
    check(tmp_path, kind, whole, outcomes)
