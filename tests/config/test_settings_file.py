import pytest
import yaml

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.config.settings_file import settings_text
from rnntune.errors import ConfigError, StorageError


@pytest.fixture
def pareto(tmp_path):
    points = [
        {"trial": n, "metrics": {"latency_ms": 1.0}, "config": {"model": {"hidden_size": 8 + n}}}
        for n in range(3)
    ]
    file = tmp_path / "pareto.yaml"
    file.write_text(yaml.safe_dump(points))
    return str(file)


def test_a_configuration_by_its_number(pareto):
    assert [Config.load(f"{pareto}#{n}").model.hidden_size for n in (1, 2, 3)] == [8, 9, 10]
    assert Config.load(f"{pareto}#2", {"model.hidden_size": 4}).model.hidden_size == 4


@pytest.mark.parametrize("number", ["0", "4", "-1", "x", "", "1.5"])
def test_a_wrong_number_is_one_line(pareto, number, capsys):
    assert main(["train", "--config", f"{pareto}#{number}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"rnntune: {pareto}#{number}: {pareto} holds the configurations #1 to #3"


def test_a_list_without_a_number(pareto):
    with pytest.raises(ConfigError, match=r"holds 3 configurations; name one, as .*pareto\.yaml#1"):
        Config.load(pareto)


def test_a_number_of_a_file_that_holds_one(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("model: {hidden_size: 8}\n")
    with pytest.raises(ConfigError, match="holds no list of configurations; leave #2 out"):
        Config.load(f"{file}#2")
    file.write_text("- {config: {}}\n- 3\n")
    with pytest.raises(ConfigError, match="holds no list"):
        Config.load(f"{file}#1")


def test_a_file_whose_name_has_a_number_sign(tmp_path, pareto):
    file = tmp_path / "job#3.yaml"
    file.write_text("model: {hidden_size: 8}\n")
    assert Config.load(str(file)).model.hidden_size == 8
    named = tmp_path / "pareto.yaml#2"
    named.write_text("model: {hidden_size: 7}\n")
    assert Config.load(f"{pareto}#2").model.hidden_size == 7
    folder = tmp_path / "a#b"
    folder.mkdir()
    (folder / "job.yaml").write_text("model: {hidden_size: 6}\n")
    assert Config.load(str(folder / "job.yaml")).model.hidden_size == 6


def test_a_file_that_is_not_there(tmp_path):
    for name in ("none.yaml", "none.yaml#1"):
        with pytest.raises(StorageError, match=r"none\.yaml"):
            settings_text(str(tmp_path / name))
