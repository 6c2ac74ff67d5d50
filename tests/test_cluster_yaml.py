import copy
import re
from pathlib import Path

import pytest
import yaml
from clusters import ROOT

WORLD = "0.0.0.0/0"


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def prepared(config):
    """As `ray up` completes and checks it before it speaks to AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_it(prepared):
    workers = {name: t for name, t in prepared["available_node_types"].items() if name != "head"}
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    assert sum(kind["max_workers"] for kind in workers.values()) <= prepared["max_workers"]
    assert all(kind["min_workers"] == 0 for kind in workers.values())
    assert 0 < prepared["idle_timeout_minutes"] <= 10


def test_the_schema_is_looked_at(config):
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    broken = copy.deepcopy(config)
    broken["idle_timeout_minute"] = broken.pop("idle_timeout_minutes")
    with pytest.raises(ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config(broken))


def test_versions_are_those_of_the_package(config):
    dependencies = (ROOT / "pyproject.toml").read_text()
    pinned = re.search(r'"ray\[[^]]*\]==([\d.]+)"', dependencies)[1]
    setup = "\n".join(config["setup_commands"])
    assert f"ray=={pinned}" in setup
    assert "venv --python 3.11" in setup


def test_what_an_installation_needs_is_copied_and_the_token(config):
    mounts = dict(config["file_mounts"])
    assert mounts.pop("/home/ubuntu/.ray/auth_token") == "~/.ray/auth_token"
    assert set(mounts.values()) == {
        "./rnntune",
        "./jobs",
        "./pyproject.toml",
        "./README.md",
        "./LICENSE",
    }
    for there, here in mounts.items():
        assert there == f"/home/ubuntu/rnntune/{Path(here).name}"


def test_token_is_asked_for_and_the_dashboard_is_closed(config):
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


def test_spot_workers_differ_in_the_market_alone(config):
    types = config["available_node_types"]
    spot = dict(types["gpu_spot"]["node_config"])
    assert spot.pop("InstanceMarketOptions") == {"MarketType": "spot"}
    assert spot == types["gpu"]["node_config"]
    assert types["gpu_spot"]["max_workers"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of boto3 and moto
def test_ray_completes_it_against_an_imitation_of_aws(prepared, monkeypatch, tmp_path):
    from moto import mock_aws
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key that it makes in ~/.ssh
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        import boto3

        complete = AWSNodeProvider.fillout_available_node_types_resources(bootstrap_aws(prepared))
        groups = boto3.client("ec2", region_name="us-west-2").describe_security_groups(
            Filters=[{"Name": "group-name", "Values": ["rnntune-ray"]}]
        )["SecurityGroups"]
    resources = {name: t["resources"] for name, t in complete["available_node_types"].items()}
    assert resources["head"]["CPU"] == 8
    assert "GPU" not in resources["head"]
    assert resources["gpu"]["GPU"] == resources["gpu_spot"]["GPU"] == 1
    open_to_the_world = [
        (rule["FromPort"], rule["ToPort"])
        for rule in groups[0]["IpPermissions"]
        if any(ip["CidrIp"] == WORLD for ip in rule["IpRanges"])
    ]
    assert open_to_the_world == [(22, 22)]
