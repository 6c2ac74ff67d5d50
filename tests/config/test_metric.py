from typing import get_args

import pytest
import yaml

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.config.metric import COSTS, Metric, MetricName, aim_names
from rnntune.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "mode", "best"),
    [("validation_accuracy", "max", 0.9), ("validation_loss", "min", 0.2)],
)
def test_which_way_is_better(name, mode, best):
    metric = Metric(name)
    assert metric.mode == mode
    assert metric.direction == f"{mode}imize"
    assert metric.best([0.2, float("nan"), 0.9, 0.5]) == best
    assert metric.is_better(0.9, than=0.2) is (mode == "max")
    assert not metric.is_better(0.5, than=0.5)
    assert metric.best([float("inf") if mode == "max" else float("nan")]) is None


def test_every_metric_that_a_configuration_may_name_has_a_direction():
    modes = {Metric(name).mode for name in get_args(MetricName)}
    assert modes == {"max", "min"}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("auto", "auto"),
        ("validation_loss", "validation_loss"),
        (["validation_loss"], "validation_loss"),
        ("validation_accuracy, latency_ms", ("validation_accuracy", "latency_ms")),
        (["validation_loss", "num_parameters"], ("validation_loss", "num_parameters")),
    ],
)
def test_what_a_search_may_aim_at(value, names):
    assert aim_names(value) == names
    tune = Config.load({"tune": {"metric": value}}).tune
    assert tune.metric == names
    assert Config.load({"tune.metric": Config.load({"tune.metric": value}).to_dict()["tune"][
        "metric"]}).tune == tune  # fmt: skip


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "accuracy",
            "must be auto, or one or several of .*, latency_ms, num_parameters, not",
        ),
        ("latency_ms", "the first must be a metric of the validation rows"),
        (["num_parameters", "validation_loss"], "the first must be"),
        (["validation_loss", "validation_loss"], "names something twice"),
        (["auto", "latency_ms"], "must be auto, or one or several of"),
        ([], "must be a name or a list of names"),
        (3, "must be a name"),
        ([3], "must be auto, or one or several of"),
    ],
)
def test_what_a_search_cannot_aim_at(value, message):
    with pytest.raises(ConfigError, match=rf"^tune\.metric: {message}"):
        Config.load({"tune.metric": value})


def test_costs_are_better_when_they_are_smaller():
    assert {Metric(name).direction for name in COSTS} == {"minimize"}


def test_several_aims_on_a_command_line(capsys):
    flags = ["--tune.metric", "[validation_accuracy,latency_ms]", "--print_config"]
    assert main(["tune", *flags]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["tune"]["metric"] == ["validation_accuracy", "latency_ms"]
