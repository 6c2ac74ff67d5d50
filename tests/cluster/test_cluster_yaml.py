import copy
import hashlib
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from clusters import ROOT

from rnntune.cluster.releases import is_supported

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
    setup = "\n".join(config["setup_commands"])
    release = re.search(r"ray==([\d.]+)", setup)[1]
    assert is_supported(release)
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


def test_what_is_fetched_is_pinned_and_checked(config):
    commands = config["setup_commands"] + config["head_setup_commands"]
    fetching = [command for command in commands if re.search(r"curl|wget", command)]
    assert fetching
    for command in fetching:
        assert not re.search(r"\| *(env .*)?(ba)?sh\b", command)
        assert re.search(r"[0-9a-f]{64}.*sha256sum -c", command)


def fetching_command(config):
    (command,) = (command for command in config["setup_commands"] if "curl" in command)
    return command


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_download_with_another_checksum_is_not_installed(config, tmp_path, is_whole):
    """The command as a node runs it, with a wheel of ours in place of the one from the network."""
    wheel = tmp_path / "ours.whl"
    version = re.search(r"uv-([\d.]+)\.data", fetching_command(config))[1]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"uv-{version}.data/scripts/uv", "#!/bin/sh\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if is_whole else "0" * 64
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; cp {wheel} "$2"\n')
    curl.chmod(0o755)
    command = re.sub(r"[0-9a-f]{64}(?=  uv)", digest, fetching_command(config))
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": f"{curl.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, cwd=tmp_path)
    assert (done.returncode == 0) is is_whole, done.stderr
    assert (home / "bin" / "uv").exists() is is_whole


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

        ec2 = boto3.client("ec2", region_name="us-west-2")
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        ours = ec2.create_security_group(GroupName="ours", Description="ours", VpcId=vpc)["GroupId"]
        for kind in prepared["available_node_types"].values():
            assert kind["node_config"]["SecurityGroupIds"] == ["sg-0123456789abcdef0"]
            kind["node_config"]["SecurityGroupIds"] = [ours]
        complete = AWSNodeProvider.fillout_available_node_types_resources(bootstrap_aws(prepared))
        groups = ec2.describe_security_groups()["SecurityGroups"]
    resources = {name: t["resources"] for name, t in complete["available_node_types"].items()}
    assert resources["head"]["CPU"] == 8
    assert "GPU" not in resources["head"]
    assert resources["gpu"]["GPU"] == resources["gpu_spot"]["GPU"] == 1
    for kind in complete["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] == [ours]
    open_to_the_world = [
        rule
        for group in groups
        for rule in group["IpPermissions"]
        if any(ip["CidrIp"] == WORLD for ip in rule["IpRanges"])
    ]
    assert open_to_the_world == []
