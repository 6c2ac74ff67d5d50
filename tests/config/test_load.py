"""Whatever a file or a command line says: a configuration, or one error."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rnntune.config.load import Config, flatten, list_settings
from rnntune.errors import ConfigError, RnntuneError
from rnntune.tuning.space_parser import parse_space

NAMES = [setting.name for setting in list_settings()]
PIECES = st.sampled_from(
    ["data", "model:", "tune: ", "space", "hidden_size", ": ", "\n", "\n  ", "- ", "[", "]", "{",
     "}", "&a ", "*a", "!!python/object:os.system ", "!!set ", "!!binary ", "? ", "|", ">", "'",
     '"', "2026-13-45", "1e999", ".nan", "~", "\t", "\0", "\x1b[0m", "<<: ", "---\n", "%YAML 9\n"]
)  # fmt: skip
YAML_TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=20).map("".join)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["auto", "1", "lstm", "validation_loss", "s3://bucket/x", "../x"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
KINDS = st.sampled_from(["choice", "uniform", "loguniform", "grid", "randint", "quniform", ""])
SPACES = st.dictionaries(
    st.sampled_from(NAMES) | st.text(max_size=5),
    VALUES | st.dictionaries(KINDS, VALUES, max_size=2),
    max_size=3,
)


def _is_refused_in_one_line(make) -> bool:
    try:
        make()
    except RnntuneError as error:
        message = str(error)
        assert message
        assert len(message) < 5_000
        return True
    return False


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=YAML_TEXTS.map(str.encode) | st.binary(max_size=40))
@example(b"model: &a [*a]")
@example(b"data: {1: 2, source: 2026-13-45}")
@example(b"? [a]\n: b")
def test_any_file_is_a_configuration_or_refused(tmp_path, content):
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    loaded = []
    if not _is_refused_in_one_line(lambda: loaded.append(Config.load(file))):
        assert Config.load(None, flatten(loaded[0].to_dict())) == loaded[0]


@given(overrides=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3))
def test_any_values_are_taken_or_refused(overrides):
    loaded = []
    if not _is_refused_in_one_line(lambda: loaded.append(Config.load(None, overrides))):
        json.dumps(loaded[0].to_dict())
        loaded[0].to_yaml()


@given(space=SPACES)
def test_any_search_space_is_parsed_or_refused(space):
    def parse() -> None:
        found = parse_space(Config.load(None, {"tune.space": space}))
        assert {dimension.name for dimension in found.dimensions} == set(space)

    _is_refused_in_one_line(parse)


def test_a_space_that_is_right_is_parsed():
    """The strategy above makes spaces of this form: not all of them are refused."""
    space = {"model.hidden_size": {"choice": [1, 2]}, "train.learning_rate": {"uniform": [0.1, 1]}}
    names = [d.name for d in parse_space(Config.load(None, {"tune.space": space})).dimensions]
    assert names == list(space)
    with pytest.raises(ConfigError):
        parse_space(Config.load(None, {"tune.space": {"model.cell": {"choice": []}}}))
