from pathlib import Path

import pytest

from rnntune import storage
from rnntune.config.load import Config
from rnntune.errors import ConfigError, RnntuneError, StorageError


def test_write_read_list_delete(tmp_path):
    uri = str(tmp_path / "deep" / "er" / "a.txt")
    assert not storage.exists(uri)
    storage.write_text(uri, "naïve")
    assert storage.read_text(uri) == "naïve"
    assert storage.list_folder(str(tmp_path / "deep" / "er")) == ["a.txt"]
    storage.delete(str(tmp_path / "deep"))
    assert not storage.exists(uri)
    assert storage.list_folder(str(tmp_path / "deep")) == []
    storage.delete(uri)  # nothing there: nothing to do


def test_a_failed_write_leaves_the_old_file(tmp_path):
    uri = str(tmp_path / "a.txt")
    storage.write_text(uri, "old")
    with pytest.raises(TypeError):
        storage.write_bytes(uri, "not bytes")
    assert storage.read_text(uri) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_read(tmp_path):
    with pytest.raises(RnntuneError, match=r"none\.txt"):
        storage.read_text(str(tmp_path / "none.txt"))
    with pytest.raises(RnntuneError, match="cannot open"):
        storage.locate("nosuch://x/y")


@pytest.mark.parametrize(
    ("uri", "names", "joined"),
    [
        ("/a/b/", ["c"], "/a/b/c"),
        ("/", ["c"], "/c"),
        ("s3://b/p", ["c", "d"], "s3://b/p/c/d"),
        ("s3://b/p?region=x", ["c"], "s3://b/p/c?region=x"),
    ],
)
def test_join(uri, names, joined):
    assert storage.join(uri, *names) == joined


def test_copy_folder_and_local_copy(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "x").write_bytes(b"1")
    storage.copy_folder(str(tmp_path / "in"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "sub" / "x").read_bytes() == b"1"
    assert storage.local_copy(str(tmp_path / "in"), "unused") == str(tmp_path / "in")


def test_home_and_file_uri():
    assert storage.locate("~/x")[1] == str(Path.home() / "x")
    assert storage.locate("file:///tmp/x")[1] == "/tmp/x"


def test_a_link_is_deleted_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("mine")
    (tmp_path / "link").symlink_to("data")
    storage.delete(str(tmp_path / "link"))
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "rows.csv"]


SECRETS = [
    "s3://KEY:sEcReT@bucket/run",
    "s3://KEY:sE/cReT@bucket/run",
    "s3://:sEcReT@bucket?region=x",
    "abfs://:sEcReT@account.blob.core.windows.net/c",
    "/plain, s3://KEY:sEcReT@bucket/rows.csv",
]


@pytest.mark.parametrize("uri", SECRETS)
def test_a_password_in_a_uri_is_refused_and_not_said(uri):
    with pytest.raises(StorageError, match=r"://\*\*\*@.*AWS_SECRET_ACCESS_KEY") as caught:
        storage.locate(uri)
    assert "cReT" not in str(caught.value)
    for name in ("output", "data.source", "data.cache_dir", "model.word_vectors"):
        with pytest.raises(ConfigError, match=rf"{name}: .*holds a password") as refused:
            Config.load(None, {name: uri})
        assert "cReT" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "gs://anonymous@bucket/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "hdfs://host:8020/x@y",
    ],
)
def test_a_uri_without_a_password(uri):
    assert not storage.holds_secret(uri)
    assert storage.mask_secret(uri) == uri
