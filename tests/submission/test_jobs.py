import copy
import functools
import json
import shlex
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from clusters import ROOT, settings_of

from rnntune.cluster.releases import is_supported
from rnntune.config.load import Config

JOBS = sorted(
    file
    for file in [*(ROOT / "jobs").glob("*.yaml"), *(ROOT / "jobs/lesson").glob("*.yaml")]
    if file.name != "rayjob.yaml"
)


def commands_in_comments(file):
    """Every `rnntune ...` line of a file's comments, with lines continued by a backslash."""
    lines = [line[1:] for line in file.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip().startswith("rnntune ")]


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_job_loads(file):
    Config.load(str(file))


# The lesson's sizes are its own and stay when the defaults change.
@pytest.mark.parametrize(
    "file", [file for file in JOBS if file.parent.name != "lesson"], ids=lambda file: file.name
)
def test_job_holds_differences_from_the_defaults_alone(file):
    defaults = Config().to_dict()
    for group, settings in yaml.safe_load(file.read_text()).items():
        for name, value in settings.items():
            if group in ("data", "train", "tune") and name in ("source", "epochs"):
                continue  # what a job is about may be said even where it is the default
            assert value != defaults[group][name], f"{group}.{name} is the default"


def test_the_three_jobs_to_start_from_are_there():
    names = {file.name for file in JOBS}
    assert {"train.yaml", "tune.yaml", "smoke.yaml"} <= names


@pytest.mark.parametrize("name", ["train", "tune", "smoke"])
def test_commands_in_the_comments_are_valid(name):
    file = ROOT / f"jobs/{name}.yaml"
    commands = commands_in_comments(file)
    assert len(commands) >= 2
    for command in commands:
        verb, *rest = command[1:]
        if verb == "submit":
            assert rest.pop(0) == f"jobs/{name}.yaml"
        else:
            assert rest[:2] == ["--config", f"jobs/{name}.yaml"]
            rest = rest[2:]
        for option in ("--address", "--verb"):
            if option in rest:
                at = rest.index(option)
                del rest[at : at + 2]
        Config.load(str(file), settings_of(rest))


def test_only_the_search_has_a_tune_section():
    with_section = {
        name
        for name in ("train", "tune", "smoke")
        if "tune" in yaml.safe_load((ROOT / f"jobs/{name}.yaml").read_text())
    }
    assert with_section == {"tune"}
    assert Config.load(str(ROOT / "jobs/tune.yaml")).tune.time_budget_s <= 1800


@pytest.fixture(scope="module")
def rayjob():
    documents = list(yaml.safe_load_all((ROOT / "jobs/rayjob.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["PersistentVolumeClaim", "RayJob"]
    return documents


def test_rayjob_is_as_kuberay_and_kubernetes_want_it(rayjob):
    claim, job = rayjob
    schema = json.loads((ROOT / "tests/rayjob_schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(job)
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
    version = kubernetes_validate.latest_version()
    for document in (claim, *({**head, **pod["template"]} for pod in pods)):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    "where", [("spec",), ("spec", "rayClusterSpec"), ("spec", "rayClusterSpec", "headGroupSpec")]
)
def test_a_misspelt_key_of_a_rayjob_would_be_found(rayjob, where):
    job = copy.deepcopy(rayjob[1])
    inner = functools.reduce(lambda tree, name: tree[name], where, job)
    inner["entryPoint"] = "x"
    schema = json.loads((ROOT / "tests/rayjob_schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError, match="entryPoint"):
        jsonschema.Draft202012Validator(schema).validate(job)


def test_rayjob_runs_a_job_of_ours(rayjob):
    spec = rayjob[1]["spec"]
    program, verb, flag, file, *rest = shlex.split(spec["entrypoint"])
    assert (program, verb, flag) == ("rnntune", "train", "--config")
    local = ROOT / Path(file).relative_to("/home/ray/rnntune")
    config = Config.load(str(local), settings_of(rest))
    assert config.train.use_gpu is True
    cluster = spec["rayClusterSpec"]
    assert config.train.max_workers <= cluster["workerGroupSpecs"][0]["maxReplicas"]
    for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        mounts = pod["template"]["spec"]["containers"][0]["volumeMounts"]
        for uri in (config.output, config.data.cache_dir):
            assert any(uri.startswith(mount["mountPath"] + "/") for mount in mounts)


def test_rayjob_is_pinned_guarded_and_ends(rayjob):
    job = rayjob[1]
    assert job["apiVersion"] == "ray.io/v1"
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert is_supported(cluster["rayVersion"])
    assert cluster["authOptions"] == {"mode": "token"}
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert cluster["enableInTreeAutoscaling"] is True
    group = cluster["workerGroupSpecs"][0]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"


def test_rayjob_shares_the_volume_that_it_claims(rayjob):
    claim, job = rayjob
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    cluster = job["spec"]["rayClusterSpec"]
    for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        volumes = pod["template"]["spec"]["volumes"]
        names = [volume["persistentVolumeClaim"]["claimName"] for volume in volumes]
        assert names == [claim["metadata"]["name"]]
