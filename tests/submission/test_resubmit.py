"""A submitted job whose driver dies, and the same job once more."""

import json
import re
from pathlib import Path

import psutil
import pytest
from clusters import ROOT, TINY, ray_head, reached, wait_until

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.submission.submit import list_jobs, submit
from rnntune.training.run_folder import RunFolder

# Ray's client opens its web socket in a way that aiohttp has begun to warn of.
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")

SMOKE = str(ROOT / "jobs/smoke.yaml")


def processes(word):
    """Processes of which a word of the command line is this."""
    there = psutil.process_iter(["cmdline"])
    return [process for process in there if word in (process.info["cmdline"] or [])]


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_whose_driver_was_killed_goes_on(no_cluster_in_the_shell, tmp_path, capfd):
    uri = str(tmp_path / "run")
    settings = {
        **TINY,
        "output": uri,
        "data.cache_dir": str(tmp_path / "cache"),
        "batching.batch_rows": 8,
        "model.num_layers": 2,
        "train.resources_per_worker": {"CPU": 1},
        "train.epochs": 4,
        "train.checkpoint_every_steps": 200,
    }
    with ray_head(RAY_AUTH_MODE="disabled") as head:
        job = {"overrides": settings, "address": head.url, "flags": ["--resume"]}
        assert submit(SMOKE, wait=False, **job) == 0
        wait_until(lambda: reached(uri) >= 2, timeout_s=120)
        (driver,) = processes(f"--output={uri}")
        driver.kill()
        wait_until(lambda: list_jobs(address=head.url)[0].status == "FAILED", timeout_s=60)
        assert not Path(uri, "result.json").exists()
        capfd.readouterr()
        assert submit(SMOKE, **job) == 0
    log = capfd.readouterr().out
    assert "epoch 1/4  loss" not in log
    assert "epoch 4/4  loss" in log
    assert json.loads(Path(uri, "result.json").read_text())["epochs"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.epochs=5"], r"train\.epochs: the run in {place} has 3, not 5; --resume goes on"),
        (["--overwrite"], "--resume and --overwrite exclude each other"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(tmp_path, capsys, arguments, message):
    uri = str(tmp_path / "run")
    RunFolder(uri).begin(Config.load(None, {"train.epochs": 3}), overwrite=False)
    assert main(["train", f"--output={uri}", *arguments, "--resume"]) == 2
    err = capsys.readouterr().err
    assert re.match(f"rnntune: {message.format(place=uri)}", err)


def test_what_to_resume_must_be_named(capsys):
    assert main(["train", "--resume"]) == 2
    assert "--resume without a RUN needs --output" in capsys.readouterr().err
