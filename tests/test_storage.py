from pathlib import Path

import pytest

from rnntune import storage
from rnntune.errors import RnntuneError


def test_write_read_list_delete(tmp_path):
    place = str(tmp_path / "deep" / "er" / "a.txt")
    assert not storage.exists(place)
    storage.write_text(place, "naïve")
    assert storage.read_text(place) == "naïve"
    assert storage.list_folder(str(tmp_path / "deep" / "er")) == ["a.txt"]
    storage.delete(str(tmp_path / "deep"))
    assert not storage.exists(place)
    assert storage.list_folder(str(tmp_path / "deep")) == []
    storage.delete(place)  # nothing there: nothing to do


def test_a_failed_write_leaves_the_old_file(tmp_path):
    place = str(tmp_path / "a.txt")
    storage.write_text(place, "old")
    with pytest.raises(TypeError):
        storage.write_bytes(place, "not bytes")
    assert storage.read_text(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_read(tmp_path):
    with pytest.raises(RnntuneError, match=r"none\.txt"):
        storage.read_text(str(tmp_path / "none.txt"))
    with pytest.raises(RnntuneError, match="cannot open"):
        storage.locate("nosuch://x/y")


@pytest.mark.parametrize(
    ("place", "names", "joined"),
    [
        ("/a/b/", ["c"], "/a/b/c"),
        ("/", ["c"], "/c"),
        ("s3://b/p", ["c", "d"], "s3://b/p/c/d"),
        ("s3://b/p?region=x", ["c"], "s3://b/p/c?region=x"),
    ],
)
def test_join(place, names, joined):
    assert storage.join(place, *names) == joined


def test_copy_folder_and_local_copy(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "x").write_bytes(b"1")
    storage.copy_folder(str(tmp_path / "in"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "sub" / "x").read_bytes() == b"1"
    assert storage.local_copy(str(tmp_path / "in"), "unused") == str(tmp_path / "in")


def test_home_and_file_uri():
    assert storage.locate("~/x")[1] == str(Path.home() / "x")
    assert storage.locate("file:///tmp/x")[1] == "/tmp/x"
