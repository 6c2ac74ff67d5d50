import inspect
import pickle
import subprocess
import sys

import pytest

import rnntune
from rnntune import config, errors


def run(code: str) -> str:
    """What a fresh interpreter prints, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_all_names_are_there():
    assert rnntune.__all__ == sorted(rnntune.__all__)
    for name in rnntune.__all__:
        assert getattr(rnntune, name) is not None
        assert name in dir(rnntune)
    assert rnntune.Config is config.Config
    assert rnntune.RnntuneError is errors.RnntuneError
    assert set(errors.__all__) <= set(rnntune.__all__)


def test_no_such_name():
    with pytest.raises(AttributeError, match="module 'rnntune' has no attribute 'trian'"):
        rnntune.trian  # noqa: B018


def test_import_is_quick():
    loaded = run("import sys, rnntune; print(*sys.modules)").split()
    assert not {"torch", "ray", "numpy", "pyarrow", "pydantic"} & set(loaded)
    loaded = run("import sys, rnntune; rnntune.Config; print(*sys.modules)").split()
    assert not {"torch", "ray"} & set(loaded)


@pytest.mark.parametrize(
    "first",
    [
        "import rnntune",
        "import rnntune.{verb}",
        "from rnntune.{verb} import {verb}",
        "from rnntune import {verb}",
        "import rnntune; rnntune.{verb}; import rnntune.{verb}",
        "import rnntune.cli",
    ],
)
def test_a_verb_is_a_function_and_a_module_in_any_order(first):
    code = "import inspect, sys\n"
    for verb in ("evaluate", "train", "tune"):
        code += first.format(verb=verb) + "\n"
        code += f"import rnntune; assert callable(rnntune.{verb})\n"
        code += f"import rnntune.{verb} as module; assert module is sys.modules['rnntune.{verb}']\n"
        code += f"from rnntune.{verb} import {verb} as function\n"
        code += "assert inspect.isfunction(function)\n"
        code += f"assert rnntune.{verb}.{verb} is function\n"
        code += f"assert inspect.signature(rnntune.{verb}) == inspect.signature(function)\n"
    run(code)


def test_a_verb_calls_its_function(monkeypatch):
    monkeypatch.setattr("rnntune.train.train", lambda config, *, resume: (config, resume))
    assert rnntune.train("settings", resume=True) == ("settings", True)


def test_a_verb_travels_to_workers():
    assert pickle.loads(pickle.dumps(rnntune.evaluate)) is sys.modules["rnntune.evaluate"]
    assert inspect.ismodule(rnntune.evaluate)
