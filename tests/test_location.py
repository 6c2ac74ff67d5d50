from pathlib import Path

import pytest

from rnntune.location import Location


@pytest.mark.parametrize(
    ("uri", "path", "query", "name", "parent"),
    [
        ("/a/b.csv", "/a/b.csv", "", "b.csv", "/a"),
        ("/a/b/", "/a/b/", "", "b", "/a"),
        ("b.csv", "b.csv", "", "b.csv", "."),
        ("/b.csv", "/b.csv", "", "b.csv", "/"),
        ("file:///a/b", "/a/b", "", "b", "/a"),
        ("/a?b=c/d", "/a?b=c/d", "", "d", "/a?b=c"),
        ("s3://b/p/x.csv", "b/p/x.csv", "", "x.csv", "b/p"),
        ("s3://b/p?region=x", "b/p", "region=x", "p", "b"),
        ("s3://b/p-?.csv", "b/p-?.csv", "", "p-?.csv", "b"),
        ("s3://b/p-?.csv?scheme=http", "b/p-?.csv", "scheme=http", "p-?.csv", "b"),
    ],
)
def test_parts(uri, path, query, name, parent):
    location = Location.parse(uri)
    assert (location.path, location.query, location.name) == (path, query, name)
    assert str(location) == uri
    assert location.parent.path == parent
    assert location.parent.query == query
    assert location.is_remote == uri.startswith("s3")


def test_join_keeps_the_query():
    assert str(Location.parse("s3://b/p/?region=x") / "c" / "d") == "s3://b/p/c/d?region=x"
    assert str(Location.parse("/") / "c") == "/c"


def test_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("folder")
    assert str(Location.parse("x/").absolute()) == f"{tmp_path}/x"
    assert str(Location.parse("~/x").absolute()) == f"{Path.home()}/x"
    assert str(Location.parse("s3://b/p/?a=b").absolute()) == "s3://b/p?a=b"
    assert str(Location.parse("link/a").resolve()) == f"{tmp_path.resolve()}/folder/a"


@pytest.mark.parametrize(
    ("folder", "inner", "inside"),
    [
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a", "/a/../b", False),
        ("s3://b/a", "s3://b/a/c?region=x", True),
        ("s3://b/a", "s3://b/ab", False),
        ("s3://b/a", "s3://c/a", False),
        ("s3://b/a", "gs://b/a", False),
        ("/", "s3://b/a", False),
    ],
)
def test_contains(folder, inner, inside):
    assert Location.parse(folder).contains(Location.parse(inner)) is inside


@pytest.mark.parametrize(
    ("uri", "relative"), [("a", True), ("/a", False), ("~/a", False), ("s3://b/a", False)]
)
def test_is_relative(uri, relative):
    assert Location.parse(uri).is_relative is relative
