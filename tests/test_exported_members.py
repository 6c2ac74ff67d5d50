import inspect
import pickle
import subprocess
import sys
from types import ModuleType

import pytest
from models import write_random_model

import rnntune
from rnntune.config.load import Config
from rnntune.errors import RnntuneError, __all__


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
    assert rnntune.Config is Config
    assert rnntune.RnntuneError is RnntuneError
    assert set(__all__) <= set(rnntune.__all__)


def test_no_such_name():
    with pytest.raises(AttributeError, match="module 'rnntune' has no attribute 'trian'"):
        rnntune.trian  # noqa: B018


def test_import_is_quick():
    loaded = run("import sys, rnntune; print(*sys.modules)").split()
    assert not {"torch", "ray", "numpy", "pyarrow", "pydantic"} & set(loaded)
    loaded = run("import sys, rnntune; rnntune.Config; print(*sys.modules)").split()
    assert not {"torch", "ray"} & set(loaded)


@pytest.mark.parametrize("verb", ["evaluate", "load", "train", "tune"])
def test_a_verb_is_a_function_however_it_is_imported(verb):
    function = getattr(rnntune, verb)
    assert inspect.isfunction(function)
    assert function.__name__ == verb
    assert not isinstance(sys.modules.get(f"rnntune.{verb}"), ModuleType)
    assert pickle.loads(pickle.dumps(function)) is function
    code = f"from rnntune import {verb}; import inspect; print(inspect.isfunction({verb}))"
    assert run(code) == "True"


def test_a_model_is_loaded_and_asked_without_what_takes_half_a_second(tmp_path):
    """PyTorch imports sympy to draw weights on `meta`; Ray is for other commands."""
    folder = write_random_model(tmp_path)
    code = f"""
import sys, rnntune
print(rnntune.load({folder!r}).predict(["the cup"]))
print([name for name in ("sympy", "ray") if name in sys.modules])
"""
    assert run(code).splitlines()[1] == "[]"
