"""The lines of the README that serve a model, run as they stand."""

import json
import socket
import urllib.request
from pathlib import Path

import pytest
from models import texts, write_random_model

import rnntune

serve = pytest.importorskip("ray.serve", reason="ray[serve] is not installed (extra `serve`)")

_README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def address(ray_session):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_the_lines_of_the_readme_serve_a_model(address, tmp_path):
    part = _README.read_text().split("<!-- serve -->")[1].split("<!-- end -->")[0]
    code = part.split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    model = write_random_model(tmp_path / "model")
    assert 'Model.bind("runs/mine")' in code
    names = {"__name__": "app"}
    exec(code.replace("runs/mine", model), names)
    serve.run(names["app"])
    rows = texts(5)
    request = urllib.request.Request(address, json.dumps(rows).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer) == rnntune.load(model).predict(rows)
