import json
import subprocess
import sys

import pytest
import yaml

from rnntune import __version__
from rnntune.cli.main import main


def _run(*args: str, capsys) -> tuple[int, str, str]:
    try:
        status = main(list(args))
    except SystemExit as left:
        status = int(left.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_version(capsys):
    assert _run("--version", capsys=capsys) == (0, f"rnntune {__version__}\n", "")


@pytest.mark.parametrize("verb", ["prepare", "train", "tune", "evaluate", "predict", "submit"])
def test_help_is_short_and_shows_defaults(verb, capsys):
    status, out, _ = _run(verb, "--help", capsys=capsys)
    assert status == 0
    assert len(out.splitlines()) < 150
    if verb in ("train", "tune"):
        assert "Size of the hidden state of one direction. [64]" in out


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["train", "--model.hiden_size", "3"], "did you mean model.hidden_size"),
        (["train", "--model.hidden_size=0"], "model.hidden_size"),
        (["train", "--data", "no/such/file.csv"], "no/such/file.csv"),
        (["train", "--config", "nope.yaml"], "nope.yaml: no such file or folder"),
        (["train", "--frobnicate"], "--frobnicate"),
        (["train", "--resume", "no/run"], "no run to resume"),
        (["train", "--resume", "r", "--model.cell", "gru"], "--resume"),
        (["predict", "no/model", "text"], "no/model"),
        (["predict", "m", "--input", "a.csv"], "--input and --output go together"),
        (["nothing"], "nothing"),
        ([], "COMMAND"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(args, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = _run(*args, capsys=capsys)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("rnntune")
    assert part in err
    assert not list(tmp_path.iterdir())


def test_print_config_shows_flags_over_the_file(capsys, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: {cell: gru, hidden_size: 5}\n")
    status, out, _ = _run(
        "train", "--config", str(file), "--model.hidden_size", "9", "--data", "s3://b/x.csv",
        "--data.text_columns", "title,body", "--train.num_workers", "[1,2]", "--print_config",
        capsys=capsys,
    )  # fmt: skip
    tree = yaml.safe_load(out)
    assert status == 0
    assert tree["model"]["cell"] == "gru"
    assert tree["model"]["hidden_size"] == 9
    assert tree["data"]["source"] == "s3://b/x.csv"
    assert tree["data"]["text_columns"] == ["title", "body"]
    assert tree["train"]["num_workers"] == [1, 2]


def test_help_imports_neither_torch_nor_ray():
    code = (
        "import sys; from rnntune.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'ray', 'torchtext', 'pandas'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.ray
def test_train_prints_a_json_line(ray_session, tiny, tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text(tiny().to_yaml())
    uri = str(tmp_path / "run")
    status, out, _ = _run("train", "--config", str(file), "--output", uri, "--json", capsys=capsys)
    assert status == 0
    assert len(out.splitlines()) == 1
    assert json.loads(out)["output"] == uri
    status, out, _ = _run("predict", uri, "--json", "hello world", capsys=capsys)
    assert status == 0
    assert set(json.loads(out)) == {"text", "label", "probabilities"}


@pytest.mark.ray
def test_prepare_says_what_it_found(ray_session, cache_dir, capsys):
    status, out, _ = _run("prepare", "--data.cache_dir", cache_dir, "--json", capsys=capsys)
    found = json.loads(out)
    assert status == 0
    assert found["splits"]["test"]["rows"] == 1000
    assert 0 <= found["padding_fraction"] < 0.05
    status, out, _ = _run("prepare", "--data.cache_dir", cache_dir, capsys=capsys)
    assert "World" in out
    assert "from the cache" in out


@pytest.mark.slow
def test_the_terminal_is_calm(tmp_path, cache_dir):
    """A whole command in a process of its own prints its lines and nothing foreign."""
    command = [sys.executable, "-m", "rnntune", "train", "--output", str(tmp_path / "run")]
    command += ["--data.cache_dir", cache_dir, "--model.hidden_size", "8", "--train.epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():
        assert line.startswith(("read ", "auto: ", "epoch ")), line
    assert "test accuracy" in done.stdout
