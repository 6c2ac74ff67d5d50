import pytest

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.errors import ConfigError
from rnntune.tuning.extension import Extension


def test_trials_and_seconds_are_added():
    more = Extension.parse({"tune.num_trials": "+16", "tune.time_budget_s": "+60"})
    tune = more.extend(Config.load({"tune.num_trials": 4, "tune.time_budget_s": 30})).tune
    assert (tune.num_trials, tune.time_budget_s) == (20, 90)
    assert Extension(num_trials=2).extend(Config()).tune.time_budget_s is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"tune.num_trials": "16"}, r"tune\.num_trials: .* a number to add, as \+16, not 16"),
        ({"tune.num_trials": "+0"}, r"not \+0"),
        ({"tune.num_trials": "+x"}, r"not \+x"),
        ({"train.epochs": "+3"}, r"train\.epochs: --resume goes on with the run's own settings"),
        ({"tune.num_trails": "+3"}, r"tune\.num_trails: --resume"),
    ],
)
def test_mistakes(flags, message):
    with pytest.raises(ConfigError, match=message):
        Extension.parse(flags)


def test_what_cannot_grow():
    grid = Config.load({"tune.searcher": "grid"})
    with pytest.raises(ConfigError, match="a grid has its own number"):
        Extension(num_trials=1).extend(grid)
    with pytest.raises(ConfigError, match="no time budget"):
        Extension(time_budget_s=1.0).extend(Config())


def test_the_command_refuses_other_settings_in_one_line(tmp_path, capsys):
    for given in (["--train.epochs", "3"], ["--tune.num_trials", "3"]):
        assert main(["tune", "--resume", str(tmp_path), *given]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert given[0][2:] in line
    assert main(["train", "--resume", str(tmp_path), "--tune.num_trials", "+3"]) == 2
