import json
import os

import pytest

from rnntune.config.load import Config
from rnntune.data.preprocess import data_fingerprint, prepare
from rnntune.errors import RunError
from rnntune.training.api import train
from rnntune.training.run_folder import RunFolder, RunKind, RunMarker
from rnntune.tuning.api import tune


def opened(uri, *, kind=RunKind.TRAIN, resume=False, overwrite=False, **settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    config = Config().override({"output": str(uri), **dotted})
    return RunFolder.open(config, kind, resume=resume, overwrite=overwrite)


def left(uri, *, kind=RunKind.TRAIN, fingerprint="f"):
    """Leave a run behind."""
    with RunFolder(str(uri), kind) as folder:
        folder.begin(Config(), fingerprint, overwrite=True)
        folder.write_metrics([{"epoch": 1}])
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_is_marked_and_given_back(tmp_path):
    with RunFolder(str(tmp_path), RunKind.TUNE) as folder:
        folder.begin(Config(), "f", overwrite=False)
        content = json.loads((tmp_path / "run.json").read_text())
        assert content["owner"]["pid"] == os.getpid()
        assert {"kind": "tune", "fingerprint": "f"}.items() <= content.items()
    assert json.loads((tmp_path / "run.json").read_text())["owner"] is None


def test_a_project_is_no_run(tmp_path):
    """A folder with a `config.yaml` of somebody else's."""
    (tmp_path / "config.yaml").write_text("debug: true\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "run.json").write_text('{"kind": "train"}')
    before = names(tmp_path)
    with pytest.raises(RunError, match="not empty and holds no run"):
        opened(tmp_path, overwrite=True)
    with pytest.raises(RunError, match="holds no run"):
        RunFolder(str(tmp_path)).begin(Config(), overwrite=True)
    assert names(tmp_path) == before


def test_overwrite_deletes_the_files_of_a_run_alone(tmp_path):
    left(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "run.json.0a1b2c3d.part").write_text("")
    left(tmp_path)
    assert names(tmp_path) == ["config.yaml", "data", "metrics.jsonl", "notes.txt", "run.json"]


@pytest.mark.parametrize(
    ("whole", "extra", "is_run"),
    [(True, "model", True), (True, "README.md", False), (False, "model", False)],
)
def test_a_run_of_an_older_version(tmp_path, whole, extra, is_run):
    text = Config().to_yaml() if whole else "data: {}\ntrain: {}\n"
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / extra).mkdir()
    with pytest.raises(RunError, match="use --resume" if is_run else "holds no run"):
        opened(tmp_path)
    if is_run:
        opened(tmp_path, overwrite=True)
        opened(tmp_path, resume=True)
    else:
        with pytest.raises(RunError, match="holds no run"):
            opened(tmp_path, overwrite=True)


def test_a_run_that_was_killed_before_its_configuration_is_nothing_to_keep(tmp_path):
    left(tmp_path)
    (tmp_path / "config.yaml").unlink()
    opened(tmp_path)
    with RunFolder(str(tmp_path)) as folder:
        folder.begin(Config(), overwrite=False)
    assert names(tmp_path) == ["config.yaml", "run.json"]


@pytest.mark.parametrize(
    ("setting", "inside"),
    [
        ("data__source", "out/news.csv"),
        ("data__source", "elsewhere.csv, out/more/*.csv"),
        ("data__test_source", "out"),
        ("data__cache_dir", "out/cache"),
    ],
)
def test_an_output_that_holds_what_the_run_reads(tmp_path, monkeypatch, setting, inside):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "linked").symlink_to("out")
    for uri in ("out", str(tmp_path / "out"), "linked"):
        with pytest.raises(RunError, match="this output holds"):
            opened(uri, overwrite=True, **{setting: inside})
    opened(tmp_path / "other", **{setting: inside})


def test_an_output_that_holds_the_working_directory(tmp_path, monkeypatch):
    left(tmp_path)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for uri in (".", ".."):
        with pytest.raises(RunError, match="working directory"):
            opened(uri, overwrite=True)
    opened("..", resume=True)


@pytest.mark.parametrize("kind", list(RunKind))
def test_a_run_is_resumed_by_the_command_that_made_it(tmp_path, kind):
    (other,) = set(RunKind) - {kind}
    left(tmp_path, kind=kind)
    with pytest.raises(RunError, match=f"a run of {kind.value}, not of {other.value}; go on with"):
        opened(tmp_path, kind=other, resume=True)
    (tmp_path / "run.json").unlink()  # of an older version
    if kind is RunKind.TUNE:
        (tmp_path / "trials.jsonl").write_text("")
    opened(tmp_path, kind=kind, resume=True)
    with pytest.raises(RunError, match=f"a run of {kind.value}"):
        opened(tmp_path, kind=other, resume=True)


def test_a_run_whose_data_changed_is_not_resumed(tmp_path):
    left(tmp_path, fingerprint="before")
    with (
        RunFolder(str(tmp_path)) as folder,
        pytest.raises(RunError, match=r"changed .*fingerprint before, now after"),
    ):
        folder.go_on("after")
    with RunFolder(str(tmp_path)) as folder:
        folder.go_on("before")


def test_what_a_killed_write_left_goes_when_the_run_goes_on(tmp_path):
    left(tmp_path)
    (tmp_path / "metrics.jsonl.0a1b2c3d.part").write_text("")
    with RunFolder(str(tmp_path)) as folder:
        folder.go_on("f")
    assert names(tmp_path) == ["config.yaml", "metrics.jsonl", "run.json"]


def test_a_run_of_an_older_version_learns_its_data(tmp_path):
    left(tmp_path)
    (tmp_path / "run.json").unlink()
    with RunFolder(str(tmp_path)) as folder:
        folder.go_on("now")
    assert folder.marker() == RunMarker(kind=RunKind.TRAIN, fingerprint="now")


def test_one_process_at_a_time(tmp_path):
    with RunFolder(str(tmp_path)) as folder:
        folder.begin(Config(), "f", overwrite=False)
        in_use = f"{tmp_path}: in use by process {os.getpid()} on "
        for overwrite in (False, True):
            with pytest.raises(RunError, match=in_use):
                opened(tmp_path, overwrite=overwrite)
        with RunFolder(str(tmp_path)) as other, pytest.raises(RunError, match=in_use):
            other.go_on("f")
        folder.check_owner()
    with RunFolder(str(tmp_path)) as other:
        other.go_on("f")


@pytest.mark.parametrize("kind", list(RunKind))
def test_resumed_data_is_checked_before_anything_starts(tmp_path, kind):
    rows = tmp_path / "rows.csv"
    pairs = [f"good day {i},a\nbad day {i},b\n" for i in range(40)]
    rows.write_text("text,label\n" + "".join(pairs))
    settings = {"data.source": str(rows), "data.cache_dir": str(tmp_path / "cache")}
    prepared = prepare(Config().override(settings).data)
    chosen = {choice.name: choice.value for choice in prepared.choices}
    config = Config().override({**settings, **chosen, "output": str(tmp_path / "run")})
    assert data_fingerprint(config.data) == prepared.fingerprint
    assert prepare(config.data).from_cache
    with RunFolder(str(tmp_path / "run"), kind) as folder:
        folder.begin(config, prepared.fingerprint, overwrite=False)
    rows.write_text("text,label\n" + "".join(pairs[1:]))
    with pytest.raises(RunError, match="the data or its settings changed since this run began"):
        (train if kind is RunKind.TRAIN else tune)(config, resume=True)


def test_what_a_kill_before_the_beginning_leaves_is_no_obstacle(tmp_path):
    (tmp_path / "run.json.a3566bd1.part").write_text("{")
    folder = RunFolder(str(tmp_path))
    with folder:
        folder.begin(Config(), "f", overwrite=False)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "config.yaml"}
