import pytest
import yaml

from rnntune.config.load import Config, flatten, list_settings
from rnntune.config.schema import ModelConfig, TrainConfig
from rnntune.errors import ConfigError


def test_yaml_round_trip(tmp_path):
    config = Config.load(None, {"train.num_workers": [1, 2], "data.text_columns": ["a", "b"]})
    file = tmp_path / "c.yaml"
    file.write_text(config.to_yaml())
    assert Config.load(str(file)) == config
    assert config.train.num_workers == (1, 2)


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: {hidden_size: 7, cell: gru}\n")
    config = Config.load(str(file), {"model.hidden_size": 9})
    assert (config.model.hidden_size, config.model.cell) == (9, "gru")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"model.hiden_size": 3}, ["model.hiden_size", "did you mean model.hidden_size", "cell"]),
        ({"modle.x": 3}, ["unknown key modle", "did you mean model"]),
        ({"model.hidden_size": 0}, ["model.hidden_size", "greater than or equal to 1", "0"]),
        ({"model.cell": "lstn"}, ["model.cell", "'rnn', 'lstm' or 'gru'", "lstn"]),
        ({"train.learning_rate": "fast"}, ["train.learning_rate", "number"]),
        ({"train.num_workers": [3, 2]}, ["num_workers", "minimum"]),
        ({"train.epochs": 1.5}, ["train.epochs", "1.5"]),
        ({"data.source": ""}, ["source must not be empty"]),
        ({"data": 3}, ["data must be a mapping"]),
        ({"train.learning_rate": float("nan")}, ["train.learning_rate"]),
    ],
)
def test_a_mistake_names_key_and_what_is_right(overrides, parts):
    with pytest.raises(ConfigError) as caught:
        Config.load(None, overrides)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("model: {hiden: 3}", "unknown key model.hiden"),
        ("model:\n  - a: [", "c.yaml:2"),
        ("- a", "must be a mapping"),
        ("model:", "model is empty"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path, content, part):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"c\.yaml") as caught:
        Config.load(str(file))
    assert part in str(caught.value)


def test_construction_is_checked_too():
    with pytest.raises(ValueError, match="hidden_size"):
        ModelConfig(hidden_size=-1)
    with pytest.raises(ValueError, match="hidden"):
        ModelConfig(hidden=1)


def test_an_empty_file_is_the_defaults(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("# nothing\n")
    assert Config.load(str(file)) == Config()


def test_every_setting_is_documented_and_can_be_overridden():
    docs = {field.name: field for field in list_settings()}
    assert set(docs) == set(flatten(Config().to_dict()))
    assert all(field.doc.endswith(".") for field in docs.values())
    defaults = {name: field.default for name, field in docs.items()}
    assert Config().override(defaults) == Config()
    assert set(yaml.safe_load(Config().to_yaml())["train"]) == set(TrainConfig.__dataclass_fields__)


def test_a_mapping_is_loaded_as_a_file_would_be(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("data: {source: x.csv}\nmodel: {hidden_size: 5}\n")
    given = {"data": {"source": "x.csv"}, "model.hidden_size": 5}
    assert Config.load(given) == Config.load(file) == Config.load(str(file))
    assert Config.load(given, {"data.source": "y.csv"}).data.source == "y.csv"
    for wrong in ({"data": 5}, {"dta": {}}, {"data.sourc": 1}):
        with pytest.raises(ConfigError, match=r"did you mean|must be a mapping"):
            Config.load(wrong)
