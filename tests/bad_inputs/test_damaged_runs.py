"""Damaged run folders and cache entries, or an enemy's: one line and status 2, never a traceback.

A file of a run is cut off, is something else, or holds one value of another kind or size; then the
commands that read it are called. They end with 0 where they do not need the value.
"""

import contextlib
import io
import json
import os
import resource
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY
from models import write_random_model
from runs import write_search

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.data.sample_corpus import generate
from rnntune.training.api import train

WHOLE = {
    "truncated": None,
    "empty": b"",
    "list": b"[1]",
    "text": b'"x"',
    "billion": b"1000000000",
    "null": b"null",
    "mapping": b"{}",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "nested deeply": b"[" * 5_000,
}
VALUES = ([], -1, "x", 2**70, None, {"a": 1}, float("nan"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run, a search and a cache, as they are whole."""
    home = tmp_path_factory.mktemp("whole")
    rows = [json.dumps({"label": label, "text": text}) for label, text in generate("train", 200)]
    (home / "rows.jsonl").write_text("\n".join(rows) + "\n")
    settings = {
        **TINY,
        "data.source": str(home / "rows.jsonl"),
        "data.cache_dir": str(home / "cache"),
        "data.validation_fraction": 0.2,
        "train.trackers": [],
        "output": str(home / "run"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnntune.training.api.runs_locally", lambda _: True)
        train(Config.load(None, settings))
    search = Path(write_search(home / "search"))
    write_random_model(search / "model")
    shutil.copy(search / "config.yaml", search / "best.yaml")
    marker = {"kind": "tune", "version": "0.1.0", "fingerprint": "f", "owner": None}
    (search / "run.json").write_text(json.dumps(marker))
    return home


@pytest.fixture(autouse=True)
def _small_page(monkeypatch):
    """The library of the figures is packed anew in no page."""
    monkeypatch.setattr("rnntune.report.page._plotly", lambda: "")


@pytest.fixture
def called(monkeypatch):
    """Gives the status of a command and its line; a traceback fails the test."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("rnntune.training.api.runs_locally", lambda _: True)

    def call(*argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(argv))
        lines = [line for line in err.getvalue().splitlines() if line.startswith("rnntune: ")]
        assert len(lines) == (status == 2), err.getvalue()
        assert len(err.getvalue()) < 5_000
        return status, "".join(lines)

    return call


@contextlib.contextmanager
def replaced(file, content):
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2] if content is None else content)
    try:
        yield
    finally:
        file.write_bytes(before)


def commands_of(folder):
    """The commands that read a run, as words."""
    run, search = str(folder / "run"), str(folder / "search")
    return {
        "train": ["train", "--resume", run],
        "tune": ["tune", "--resume", search],
        "evaluate": ["evaluate", run],
        "predict": ["predict", run, "a text"],
        "report": ["report", run],
        "report of a search": ["report", search],
        "prepare": ["prepare", "--config", f"{run}/config.yaml"],
    }


@pytest.mark.parametrize("damage", ["truncated", "list", "billion", "not UTF-8", "nested deeply"])
@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("run/result.json", ["train", "report"]),
        ("run/run.json", []),
        ("run/config.yaml", ["train", "report"]),
        ("run/data.json", []),
        ("run/metrics.jsonl", []),
        ("run/test_predictions.parquet", ["report"]),
        ("run/model/config.yaml", ["evaluate", "predict"]),
        ("run/model/vocab.txt", []),
        ("run/model/model.safetensors", ["evaluate", "predict"]),
        ("search/result.json", ["tune", "report of a search"]),
        ("search/trials.jsonl", []),
        ("search/best.yaml", []),
        ("manifest.json", ["evaluate", "prepare"]),
    ],
)
def test_a_damaged_file_is_one_line(folders, called, name, refused, damage):
    lenient = {("run/config.yaml", damage) for damage in ("empty", "null", "mapping", "truncated")}
    readers = ["report of a search", "tune"] if name.startswith("search") else ["report"]
    files = [folders / name]
    if name == "manifest.json":  # of the settings as given, and as chosen
        files = list(folders.glob("cache/prepared/*/manifest.json"))
    with contextlib.ExitStack() as damaged:
        for file in files:
            damaged.enter_context(replaced(file, WHOLE[damage]))
        for verb in {*refused, *readers}:
            status, line = called(*commands_of(folders)[verb])
            if verb in refused and (name, damage) not in lenient:
                assert status == 2, (verb, line)
                assert file.name in line
            assert status in (0, 2)


def _is_first(manifest):
    """Whether a manifest is that of the settings as they were given."""
    return json.loads(manifest.read_text())["choices"] != []


@pytest.mark.parametrize("damage", WHOLE)
@pytest.mark.parametrize(("folder", "verb"), [("run", "train"), ("search", "tune")])
def test_a_damaged_marker_is_refused_by_resume(folders, called, folder, verb, damage):
    result = folders / folder / "result.json"
    kept = result.read_bytes()
    result.unlink()  # it is not finished
    try:
        with replaced(folders / folder / "run.json", WHOLE[damage]):
            status, line = called(*commands_of(folders)[verb])
    finally:
        result.write_bytes(kept)
    assert status == 2
    assert "run.json: damaged" in line


def leaves(tree, path=()):
    """The paths of the values of a tree, of lists the first."""
    items = tree.items() if isinstance(tree, dict) else list(enumerate(tree))[:1]
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))


def changed(text, path, value):
    tree = json.loads(text)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(tree).encode()


@pytest.fixture
def bounded():
    """Let this process take no more than some memory beyond what it has."""
    have = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (have + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def values_of(folders, file):
    """Each value of a JSON file in turn replaced, with what is changed."""
    text = file.read_text()
    for path in leaves(json.loads(text)):
        for value in VALUES:
            yield f"{path} = {value!r}", changed(text, path, value)


def test_every_value_of_a_manifest(folders, bounded, monkeypatch):
    """Reading says what is wrong or gives a data set whose rows can be read."""
    from rnntune.data.prepared import read_manifest
    from rnntune.data.sharing import hold_split
    from rnntune.errors import RnntuneError

    (file,) = [m for m in folders.glob("cache/prepared/*/manifest.json") if _is_first(m)]
    refused = 0
    for case, content in values_of(folders, file):
        with replaced(file, content):
            try:
                prepared = read_manifest(str(file))
                for split in prepared.splits:
                    hold_split(prepared, split, in_memory=True)
            except RnntuneError:
                refused += 1
            except Exception as error:
                raise AssertionError(case) from error
    assert refused > 200


@pytest.mark.parametrize("kind", ["run", "search"])
def test_every_value_of_a_result(folders, bounded, kind):
    from rnntune.errors import RnntuneError
    from rnntune.report.page import render_page
    from rnntune.report.run_contents import read_run
    from rnntune.report.tables import run_table

    file = folders / kind / "result.json"
    refused = 0
    for case, content in values_of(folders, file):
        with replaced(file, content):
            try:
                run = read_run(str(file.parent))
                run_table(run.uri, dict(run.result), None)
                if refused % 60 == 0:  # the whole page takes its time
                    render_page([run])
            except RnntuneError:
                refused += 1
            except Exception as error:
                raise AssertionError(case) from error
    assert refused > 100


def test_every_value_of_a_marker(folders):
    """An owner of another form owns nothing; one that may live keeps the run."""
    from rnntune.cluster.owner import Owner
    from rnntune.training.run_folder import RunMarker

    content = json.loads((folders / "run" / "run.json").read_text())
    content["owner"] = json.loads(json.dumps(Owner.this_process().__dict__))
    for path in leaves(content):
        for value in VALUES:
            marker = RunMarker.parse(changed(json.dumps(content), path, value).decode())
            if marker is not None and marker.owner is not None:
                marker.owner.is_living()
                str(marker.owner)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [([[10**6]], [0]), ([[-1]], [0]), ([[2]], [9]), ([[2]], [-1]), ([["x"]], [0]), ([[2]], ["x"])],
)
def test_rows_of_an_enemy_are_refused(folders, ids, labels):
    """Ids and labels that are none would be read outside the tables of the model."""
    from rnntune.data.prepared import read_manifest
    from rnntune.data.sharing import hold_split
    from rnntune.errors import DataError

    (manifest,) = [m for m in folders.glob("cache/prepared/*/manifest.json") if _is_first(m)]
    prepared = read_manifest(str(manifest))
    file = Path(prepared.splits["test"].files[0])
    rows = prepared.splits["test"].file_rows[0]
    sink = io.BytesIO()
    pq.write_table(pa.table({"ids": ids * rows, "label": labels * rows}), sink)
    with replaced(file, sink.getvalue()), pytest.raises(DataError, match="damaged; delete"):
        hold_split(prepared, "test", in_memory=True)
