"""Private names of Ray stand in one module."""

import ast
import re
from pathlib import Path

import pytest
from clusters import ROOT

import rnntune
from rnntune.cluster import ray_internals
from rnntune.cluster.releases import NEWEST_RELEASE, OLDEST_RELEASE, is_supported

PACKAGE = Path(rnntune.__file__).parent
PRIVATE = re.compile(r"^ray\.(.*\._|_|experimental|core\.|train\.v2)|(^|\.)_[a-z]")
OURS = ("self", "cls", "argparse", "os")  # os._exit is documented


def private_names(source: str) -> list[str]:
    """Private modules of Ray that a source names, and private attributes of others than `self`."""
    names = []
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= set(re.findall(r"\bself\.(_\w+)\b.* = ", source))
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)):
                names += [f"{module}.{alias.name}" for alias in node.names]
            case ast.Import():
                names += [alias.name for alias in node.names]
            case ast.Attribute(value=ast.Name(id=owner)) if owner in OURS:
                pass
            case ast.Attribute(attr=attr) if re.match(r"_[a-z]", attr) and attr not in own:
                names.append(ast.unparse(node))
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(str(attr)), *_]):
                names.append(attr)
            case ast.Constant(str(text)) if re.fullmatch(r"ray(\.\w+)+", text):
                names.append(text)
    return [name for name in names if PRIVATE.search(name)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_no_other_module_names_what_is_private_in_ray(path):
    if path != Path(ray_internals.__file__):
        assert private_names(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from ray._private import state",
        "import ray.experimental.internal_kv",
        "from ray.core.generated import autoscaler_pb2",
        "from ray.train.v2._internal.execution import x",
        "(bracket,) = scheduler._brackets",
        "version = client._server_ray_version",
        "getattr(failure, '_base_exc', failure)",
        "logging.getLogger('ray._private.runtime_env')",
        "make().inner._state",
    ],
)
def test_the_search_for_private_names_sees(source):
    assert private_names(source)


def test_releases_are_those_of_the_requirements():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest, newest = OLDEST_RELEASE, NEWEST_RELEASE
    above = f"{newest[0]}.{newest[1] + 1}"
    assert f'"ray[default,train,tune]>={oldest[0]}.{oldest[1]},<{above}"' in text


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("2.51.0", True),
        ("2.60.0", True),
        ("2.50.1", False),
        ("2.61.0", False),
        ("3.0.dev0", False),
    ],
)
def test_supported_releases(version, supported):
    assert is_supported(version) is supported
