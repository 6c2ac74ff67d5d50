import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rnntune import storage
from rnntune.cluster.owner import Owner
from rnntune.errors import RnntuneError, RunError, StorageError
from rnntune.inference.prediction_folder import PredictionFolder
from rnntune.location import Location

FIRST, SECOND = "part-00000-000000000001.jsonl", "part-00001-000000000001.jsonl"


def written(folder, *names):
    """Write files of four bytes, and give what is said of them."""
    for name in names:
        storage.write_text(storage.join(folder.aside, name), "row\n")
    return [{"name": name, "num_bytes": 4} for name in names]


def left(uri, *names, overwrite=False):
    folder = PredictionFolder(str(uri), [], overwrite=overwrite)
    folder.begin()
    parts = written(folder, *names)
    folder.verify(parts)
    folder.finish({"files": list(names)})
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_predictions_replace_predictions(tmp_path):
    out = tmp_path / "out"
    left(out, FIRST, SECOND)
    assert names(out) == ["_complete.json", FIRST, SECOND]
    with pytest.raises(RunError, match="use --overwrite"):
        left(out, FIRST)
    left(out, FIRST, overwrite=True)
    assert names(out) == ["_complete.json", FIRST]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("foreign", ["part-1.csv", "part-00000-8a2f.c000.snappy.parquet", "x"])
def test_files_of_others_are_no_predictions(tmp_path, foreign):
    (tmp_path / foreign).write_text("years of work")
    with pytest.raises(RunError, match="holds no predictions"):
        PredictionFolder(str(tmp_path), [], overwrite=True)


def test_a_file_that_came_meanwhile_stays(tmp_path):
    out = tmp_path / "out"
    left(out, FIRST)
    folder = PredictionFolder(str(out), [], overwrite=True)
    folder.begin()
    written(folder, FIRST)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no predictions"):
        folder.finish({})
    folder.abandon()
    assert names(out) == ["_complete.json", "notes.txt", FIRST]


@pytest.mark.parametrize("size", [None, 3])
def test_a_file_that_another_node_wrote_elsewhere_is_missed(tmp_path, size):
    folder = PredictionFolder(str(tmp_path / "out"), [], overwrite=False)
    folder.begin()
    parts = written(folder, FIRST)
    if size:
        storage.write_text(storage.join(folder.aside, SECOND), "row\n"[:size])
    parts.append({"name": SECOND, "num_bytes": 4})
    with pytest.raises(RunError, match=f"1 of 2 files are missing or cut off here, first {SECOND}"):
        folder.verify(parts)


@pytest.mark.parametrize("reads", ["out/rows.csv", "out", "out/model"])
def test_an_output_that_holds_what_is_read(tmp_path, reads):
    with pytest.raises(RunError, match="holds what is read"):
        PredictionFolder(str(tmp_path / "out"), [str(tmp_path / reads)], overwrite=True)


def test_what_a_killed_prediction_left_goes_with_the_next(tmp_path, monkeypatch):
    def aside(**changes):
        folder = PredictionFolder(str(tmp_path / "out"), [], overwrite=False)
        folder.begin()
        owner = replace(Owner.this_process(), **changes)
        storage.write_text(f"{folder.aside}/_owner.json", json.dumps(asdict(owner)))
        return folder.aside.rpartition("/")[2]

    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", os.getppid)
        living = [aside()]
    living += [aside(machine="other", pid=1)]
    aside(pid=os.getppid(), started=1)
    for age_s in (30, 90):  # killed before it noted itself, or another that does it just now
        unowned = tmp_path / f"out.{age_s:08}.part"
        unowned.mkdir()
        os.utime(unowned, (time.time() - age_s,) * 2)
    living += ["out.00000030.part"]
    left(tmp_path / "out", FIRST)
    assert names(tmp_path) == sorted(["out", *living])


def test_a_folder_that_cannot_be_moved_is_one_line(tmp_path, monkeypatch):
    folder = PredictionFolder(str(tmp_path / "out"), [], overwrite=False)
    folder.begin()
    written(folder, FIRST)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StorageError, match=r"out: .*No space left"):
        folder.finish({})


def test_a_kill_at_the_last_moment_leaves_whole_predictions(tmp_path, monkeypatch):
    """The note of the owner moves with the files, so that no part is ever without one."""
    out = tmp_path / "out"
    folder = PredictionFolder(str(out), [], overwrite=False)
    folder.begin()
    written(folder, FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            folder.finish({})
    assert "_owner.json" in names(Path(folder.aside))
    Path(folder.aside).rename(out)  # and the process is killed now
    assert names(out) == ["_complete.json", "_owner.json", FIRST]
    left(out, SECOND, overwrite=True)
    assert names(out) == ["_complete.json", SECOND]


def test_what_is_remote_stays_until_prediction_can_begin(tmp_path, monkeypatch):
    """As on storage where nothing can be moved."""
    left(tmp_path, FIRST)
    monkeypatch.setattr(Location, "is_remote", True)
    monkeypatch.setattr(storage, "locate", lambda uri: (storage.fs.LocalFileSystem(), uri))
    failed = PredictionFolder(str(tmp_path), [], overwrite=True)
    failed.abandon()  # the model cannot be read, say
    assert names(tmp_path) == ["_complete.json", FIRST]
    begun = PredictionFolder(str(tmp_path), [], overwrite=True)
    begun.begin()
    assert names(tmp_path) == []
    written(begun, SECOND)
    begun.abandon()
    assert names(tmp_path) == []


def test_a_model_that_cannot_be_read_costs_no_predictions(tmp_path, monkeypatch):
    from rnntune.inference.predict import predict_files

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "the cup"}\n')
    out = tmp_path / "out"
    left(out, FIRST)
    monkeypatch.setattr(Location, "is_remote", property(lambda it: it.path.startswith(str(out))))
    monkeypatch.setattr(storage, "locate", lambda uri: (storage.fs.LocalFileSystem(), uri))
    with pytest.raises(RnntuneError, match="no model here"):
        predict_files(str(tmp_path), [str(rows)], str(out), overwrite=True)
    assert names(out) == ["_complete.json", FIRST]
