import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from clusters import ROOT, end, ended, num_workers, ray_head, rnntune, settings_of, wait_until
from hypothesis import given
from hypothesis import strategies as st

from rnntune import load
from rnntune.cli.main import main
from rnntune.cluster.releases import NEWEST_RELEASE, OLDEST_RELEASE
from rnntune.config.flags import as_flag
from rnntune.config.load import Config
from rnntune.errors import ClusterError, ConfigError
from rnntune.submission import dashboard
from rnntune.submission.package import _STACKS, check_script, misfit, pack
from rnntune.submission.submit import (
    _check_places,
    _variable,
    add_jobs_arguments,
    job_logs,
    list_jobs,
    run_jobs,
    stop_job,
    submit,
)

# Ray's client opens its web socket in a way that aiohttp has begun to warn of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("no_cluster_in_the_shell"),
]

SMOKE = str(ROOT / "jobs/smoke.yaml")
OUTPUT = {"output": "/shared/run"}


class FakeClient:
    """Keeps what was submitted and a listing of the folder that would be uploaded."""

    def submit_job(self, **kwargs):
        self.kwargs = kwargs
        folder = Path(kwargs["runtime_env"]["working_dir"])
        self.files = {
            str(file.relative_to(folder)): file.read_text()
            for file in folder.rglob("*")
            if file.is_file()
        }
        return "job-1"


@pytest.fixture
def client(monkeypatch):
    fake = FakeClient()
    monkeypatch.setattr(dashboard, "connect", lambda _: (fake, "http://head:8265"))
    return fake


def command_of(client):
    check, command = client.kwargs["entrypoint"].split(" && ")
    assert check == "python check.py"
    return shlex.split(command)


# What travels


def test_upload_holds_package_and_job_file_alone(client):
    assert submit(SMOKE, OUTPUT, wait=False) == 0
    package = {str(file.relative_to(ROOT)) for file in (ROOT / "rnntune").rglob("*.py")}
    template = (ROOT / "rnntune/report/template").iterdir()
    package |= {str(file.relative_to(ROOT)) for file in template}
    assert "rnntune/submission/submit.py" in package
    assert set(client.files) == package | {"rnntune/py.typed", "job.yaml", "check.py"}
    assert client.files["job.yaml"] == Path(SMOKE).read_text()


def test_nothing_but_source_is_taken_from_the_package_folder(monkeypatch, tmp_path):
    package = tmp_path / "rnntune"
    for name in (
        "__init__.py",
        "part/inner.py",
        "py.typed",
        "notes.csv",
        "__pycache__/a.pyc",
        ".git/config",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.setattr("rnntune.__file__", str(package / "__init__.py"))
    target = tmp_path / "upload"
    target.mkdir()
    pack(target, "", 10_000)
    found = {str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()}
    taken = {"rnntune/__init__.py", "rnntune/part/inner.py", "rnntune/py.typed"}
    assert found == taken | {"job.yaml", "check.py"}


def test_one_configuration_of_a_front_is_submitted(client, tmp_path):
    file = tmp_path / "pareto.yaml"
    configs = [{"data": {"cache_dir": "/shared/cache"}, "train": {"epochs": n}} for n in (3, 4)]
    file.write_text(yaml.safe_dump([{"trial": 1, "config": config} for config in configs]))
    assert submit(f"{file}#2", OUTPUT, wait=False) == 0
    assert yaml.safe_load(client.files["job.yaml"]) == configs[1]
    assert "rnntune train --config job.yaml" in client.kwargs["entrypoint"]
    with pytest.raises(ConfigError, match="holds the configurations #1 to #2"):
        submit(f"{file}#3", OUTPUT, wait=False)


def test_upload_over_the_limit_is_refused(client):
    with pytest.raises(ClusterError, match=r"bytes, more than the 1,000 that may be uploaded"):
        submit(SMOKE, OUTPUT, max_upload_bytes=1000)
    assert not hasattr(client, "kwargs")


def test_driver_reserves_nothing_so_that_ray_keeps_it_on_the_head(client):
    submit(SMOKE, OUTPUT, wait=False)
    assert client.kwargs["entrypoint_num_cpus"] == client.kwargs["entrypoint_num_gpus"] == 0


def test_package_import_does_not_load_ray():
    code = "import sys, rnntune.submission.submit; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# The command


@pytest.mark.parametrize(
    ("text", "verb", "expected"),
    [
        ("train: {epochs: 1}", None, "train"),
        ("tune: {num_trials: 2}", None, "tune"),
        ("tune: {num_trials: 2}", "train", "train"),
        ("", "tune", "tune"),
    ],
)
def test_a_tune_section_makes_a_search_unless_the_verb_is_given(
    client, tmp_path, text, verb, expected
):
    (tmp_path / "j.yaml").write_text(text)
    submit(str(tmp_path / "j.yaml"), OUTPUT, verb=verb, wait=False)
    start = ["python", "-m", "rnntune", expected, "--config", "job.yaml"]
    assert command_of(client)[: len(start)] == start


def test_overrides_and_flags_reach_the_command(client, capsys):
    overrides = {"output": "s3://b/a run", "train.num_workers": [1, 2], "data.max_size": None}
    submit(SMOKE, overrides, flags=["--resume"], wait=False)
    command = command_of(client)
    assert command[6:] == [
        "--output=s3://b/a run",
        "--train.num_workers=[1, 2]",
        "--data.max_size=null",
        "--resume",
    ]
    assert settings_of(command[6:]) == overrides
    assert capsys.readouterr().out == "job-1\n"


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.lists(st.integers())
)
def test_a_value_survives_the_command_line(value):
    for name in ("data.max_size", "tune.mode"):
        assert settings_of([as_flag(name, value)]) == {name: value}


def test_a_list_of_columns_is_written_as_for_train(client):
    args = ["submit", SMOKE, "--output", "/shared/2024-01-01", "--no-wait"]
    assert main([*args, "--data.text_columns", "title,body", "--data.label_column", "3"]) == 0
    assert command_of(client)[6:] == [
        "--data.text_columns=[title, body]",
        "--data.label_column=3",
        "--output=/shared/2024-01-01",
    ]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["train.epochs"], "unknown argument train.epochs"),
        (["--train.epoch", "1"], "unknown key train.epoch"),
        (["--tune.space={"], "tune.space"),
    ],
)
def test_tokens_that_are_no_settings(client, capsys, tokens, message):
    assert main(["submit", SMOKE, "--output", "/shared/run", *tokens]) == 2
    assert message in capsys.readouterr().err
    assert not hasattr(client, "kwargs")


def test_arguments_of_the_command_line(client, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3:9000")
    line = f"{SMOKE} --env AWS_ENDPOINT_URL --env A=b=c --no-wait --verb tune"
    line += " --data ag_news --output /shared/run --overwrite"
    assert main(["submit", *line.split()]) == 0
    assert client.kwargs["runtime_env"]["env_vars"] == {
        "AWS_ENDPOINT_URL": "http://s3:9000",
        "A": "b=c",
    }
    assert command_of(client)[3] == "tune"
    assert command_of(client)[6:] == [
        "--data.source=ag_news",
        "--output=/shared/run",
        "--overwrite",
    ]


def test_env_that_the_shell_lacks(monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="--env NOT_SET: this shell has no such variable"):
        _variable("NOT_SET")


# Places


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "output: runs/ would be deleted with the job"),
        ({"output": "runs/a"}, "output: runs/a would be deleted with the job"),
        (OUTPUT | {"data.source": "news.csv"}, "data.source: news.csv is relative"),
        (OUTPUT | {"data.test_source": "a/b"}, "data.test_source: a/b is relative"),
        (OUTPUT | {"data.source": "/a.csv,b.csv"}, "data.source: b.csv is relative"),
        (OUTPUT | {"model.word_vectors": "own.txt"}, "model.word_vectors: own.txt is relative"),
        (OUTPUT | {"data.cache_dir": "cache"}, "data.cache_dir: cache is relative"),
        (OUTPUT | {"model.word_vectors": "v/x.txt"}, "model.word_vectors: v/x.txt is relative"),
        (OUTPUT | {"train.epochs": 0}, "train.epochs"),
        (OUTPUT | {"train.epoch": 1}, "unknown key train.epoch"),
    ],
)
def test_a_job_that_cannot_work_is_refused_before_the_upload(client, overrides, message):
    with pytest.raises(ConfigError, match=message):
        submit(SMOKE, overrides)
    assert not hasattr(client, "kwargs")


@pytest.mark.parametrize(
    "overrides",
    [
        {"output": "s3://bucket/run", "data.source": "gs://b/*.parquet"},
        {"output": "~/run", "data.source": "file:///data/a.csv"},
        {"output": "/shared/run", "data.source": "ag_news", "model.word_vectors": "glove.6B.50d"},
    ],
)
def test_places_that_a_cluster_reaches(overrides):
    _check_places(Config.load(None, overrides))


# The machine that runs the job


def test_check_passes_where_the_versions_are_right(tmp_path):
    (tmp_path / "check.py").write_text(check_script())
    subprocess.run([sys.executable, tmp_path / "check.py"], check=True)


def test_check_fails_in_one_line(tmp_path):
    script = check_script().replace("'torch': '2", "'torch': '9.2")
    (tmp_path / "check.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "check.py"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.match(r"rnntune: torch is 2\.[0-9.]+ on the cluster and must be 9\.2", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_check_names_what_is_missing_and_another_python(monkeypatch):
    releases = (OLDEST_RELEASE, NEWEST_RELEASE)
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert "no-such-thing is missing" in misfit({"3.13": {"no-such-thing": "1"}}, *releases)
    pytest_release = metadata.version("pytest")
    part = pytest_release.rpartition(".")[0]
    assert misfit({"3.13": {"pytest": part}}, *releases) is None
    assert "pytest is" in misfit({"3.13": {"pytest": f"{part}9"}}, *releases)
    assert "must be 1.13 to 2.0" in misfit({"3.13": {}}, (1, 13), (2, 0))
    monkeypatch.setattr(sys, "version_info", (3, 14, 1))
    assert "runs Python 3.14.1; it must be one of 3.12, 3.13" in misfit(
        {"3.12": {}, "3.13": {}}, *releases
    )


def test_the_check_asks_for_what_the_project_requires():
    """`pyproject.toml` and the check name the same versions for each release of Python."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for python, stack in _STACKS.items():
        marker = "< '3.13'" if python != "3.13" else ">= '3.13'"
        for name, version in stack.items():
            found = re.search(rf'"{name}(==|>=)([0-9.]+)[^"]*; python_version {marker}"', project)
            assert f"{found[2]}.".startswith(f"{version}.")


# On a cluster


@pytest.fixture(scope="module")
def head():
    with ray_head(RAY_AUTH_MODE="disabled") as head:
        yield head.url


@pytest.mark.ray
@pytest.mark.slow
def test_job_runs_with_package_and_variables(head, capsys):
    command = "ls && echo $GREETING && python -c 'import rnntune; print(rnntune.__file__)'"
    env = {"GREETING": "wörld"}
    assert submit(SMOKE, OUTPUT, address=head, env=env, _command=command) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    start = lines.index("check.py")
    assert lines[start : start + 4] == ["check.py", "job.yaml", "rnntune", "wörld"]
    assert "working_dir_files" in lines[start + 4]
    assert "succeeded" in shown.err

    job = list_jobs(address=head)[0]
    assert (job.status, job.command) == ("SUCCEEDED", "train smoke.yaml")
    assert job_logs(job.id, address=head) == 0
    assert "wörld" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.slow
def test_exit_status_of_a_failing_job(head, capsys):
    assert submit(SMOKE, OUTPUT, address=head, _command="echo no && exit 3") == 3
    shown = capsys.readouterr()
    assert "no" in shown.out.splitlines()
    assert "failed with exit status 3" in shown.err


@pytest.mark.ray
@pytest.mark.slow
def test_stop_a_running_job(head, capsys):
    submit(SMOKE, OUTPUT, address=head, wait=False, _command="echo begun; sleep 600")
    shown = capsys.readouterr()
    job_id = shown.out.strip()
    assert f"rnntune jobs stop {job_id} --address {head}" in shown.err
    wait_until(lambda: list_jobs(address=head)[0].status == "RUNNING", timeout_s=30)

    parser = argparse.ArgumentParser()
    add_jobs_arguments(parser)
    assert run_jobs(parser.parse_args(["stop", job_id, "--address", head])) == 0
    assert capsys.readouterr().out == f"{job_id} STOPPED\n"
    assert run_jobs(parser.parse_args(["list", "--address", head])) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"{job_id}  STOPPED")
    assert run_jobs(parser.parse_args(["logs", job_id, "--follow", "--address", head])) == 1
    assert "begun" in capsys.readouterr().out


@pytest.mark.ray
def test_a_job_that_is_not_there(head):
    for call in (job_logs, stop_job):
        with pytest.raises(ClusterError, match=f"{head} knows no job nope"):
            call("nope", address=head)


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running(head):
    code = f"""
import sys
from rnntune.submission.submit import submit
sys.exit(submit({SMOKE!r}, {OUTPUT}, address={head!r}, _command="echo begun; sleep 600"))
"""
    process = rnntune(program=("-c", code))
    try:
        assert any(line == "begun\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = ended(process, status=130, timeout_s=30)
    finally:
        end(process)
    job = list_jobs(address=head)[0]
    assert f"{job.id} goes on without you\nlog: rnntune jobs logs {job.id}" in err
    assert "Traceback" not in err
    assert job.status == "RUNNING"
    assert stop_job(job.id, address=head) == "STOPPED"


@pytest.mark.ray
@pytest.mark.slow
def test_token(tmp_path):
    code = """
import sys
from rnntune.errors import ClusterError
from rnntune.submission.submit import list_jobs
try:
    print(list_jobs(address=sys.argv[1]))
except ClusterError as error:
    print(error)
"""

    def answer(**env):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        env = {**clean, "HOME": str(tmp_path), **env}
        done = subprocess.run(
            [sys.executable, "-c", code, url],
            cwd=ROOT,
            env=env,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout.splitlines()

    token = "right" * 10
    (tmp_path / "token").write_text(token)
    with ray_head(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) as (url, _):
        how = "set RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN"
        (wrong,) = answer(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="wrong" * 10)
        assert wrong.startswith(f"{url} refuses the token; {how}")
        for env in ({}, {"RAY_AUTH_MODE": "token"}):
            (none,) = answer(**env)
            assert none.startswith(f"{url} wants a token; {how}")
        assert answer(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) == ["[]"]
        assert answer(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")) == ["[]"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "tune"])
def test_smoke_job(head, tmp_path, verb, capsys):
    overrides = {"output": str(tmp_path / "run"), "data.cache_dir": str(tmp_path / "cache")}
    if verb == "tune":
        overrides["tune.num_trials"] = 4
    status = submit(SMOKE, overrides, address=head, verb=verb)
    shown = capsys.readouterr().out
    assert status == 0, shown
    assert ("epoch 1/1  loss " if verb == "train" else "4 of 4 trials") in shown
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert 0 < result["validation_accuracy"] <= 1
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["train"]["epochs"] == 1
    model = load(str(tmp_path / "run"))
    assert set(model.predict(["Stocks fall as oil hits a record"])) <= set(model.classes)


@pytest.mark.ray
@pytest.mark.slow
def test_a_training_that_is_stopped_gives_its_workers_back(head, tmp_path, capsys):
    run = tmp_path / "run"
    overrides = {
        "output": str(run),
        "data.cache_dir": str(tmp_path / "cache"),
        "train.epochs": 500,
    }
    submit(SMOKE, overrides, address=head, wait=False)
    job_id = capsys.readouterr().out.strip()
    wait_until(lambda: (run / "metrics.jsonl").exists(), timeout_s=90)
    assert num_workers(head) == 1
    assert stop_job(job_id, address=head) == "STOPPED"
    wait_until(lambda: num_workers(head) == 0, timeout_s=30)
    assert not (run / "result.json").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_rays_own_submission(head, tmp_path):
    job = ["rnntune", "train", "--config", "smoke.yaml", f"--output={tmp_path}/run"]
    job += [f"--data.cache_dir={tmp_path}/cache"]
    uris = ["--address", head, "--working-dir", str(ROOT / "jobs")]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
    done = subprocess.run([*ray, *uris, "--", *job], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "epoch 1/1  loss " in done.stdout
    assert (tmp_path / "run/result.json").exists()
