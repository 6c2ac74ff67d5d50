"""The cache of prepared data: listed, bounded and cleaned, never under somebody's feet."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import bucket_uri, s3_env  # noqa: F401  (fixtures)

from rnntune import storage
from rnntune.cli.main import main
from rnntune.cluster.owner import Owner
from rnntune.config.schema import DataConfig
from rnntune.data.cache import clean_cache, in_use, list_cache
from rnntune.data.preprocess import prepare
from rnntune.errors import DataError

ROWS = "label,text\n" + "a,one two\nb,three four\n" * 20


@pytest.fixture(params=["local", "s3"])
def cache(request, tmp_path):
    """A cache folder, on a local disk and on object storage."""
    if request.param == "local":
        return str(tmp_path / "cache")
    return storage.join(request.getfixturevalue("bucket_uri"), "cache")


@pytest.fixture
def fill(cache, tmp_path):
    """Prepares rows of a name; the entries are a second apart in age."""

    def make(name, **settings):
        file = tmp_path / f"{name}.csv"
        file.write_text(ROWS + f"a,{name}\nb,{name}\n")
        return prepare(DataConfig(source=str(file), cache_dir=cache, test_fraction=0.2, **settings))

    return make


def sources(cache):
    return [Path(entry.source).stem for entry in list_cache(cache)]


def test_what_is_in_it_is_listed(fill, cache, capsys):
    assert list_cache(cache) == []
    one = fill("one")
    (entry,) = list_cache(cache)
    assert entry.uri == storage.join(cache, "prepared", entry.uri.rpartition("/")[2])
    assert one.uri.startswith(entry.uri)
    assert entry.num_rows == 42
    assert len(entry.aliases) == 1  # the same with the settings that were chosen
    assert entry.num_bytes > 1000
    assert 0 <= entry.age_s < 60
    assert main(["cache", "list", "--cache_dir", cache]) == 0
    out = capsys.readouterr().out.splitlines()
    assert f"42 rows of {one.source}" in out[0]
    assert out[-1].startswith("1 entry, ")
    assert fill("one").from_cache


def test_what_was_used_longest_ago_goes_first(fill, cache):
    for name in ("one", "two", "three"):
        fill(name)
        if cache.startswith("s3"):  # a bucket tells the time in whole seconds
            time.sleep(1.1)
    one = fill("one")
    with in_use([one.uri]):  # and so it is the last one used
        pass
    assert sources(cache) == ["one", "three", "two"]
    sizes = [entry.num_bytes for entry in list_cache(cache)]
    freed, used = clean_cache(cache, max_bytes=sum(sizes) - 1, dry_run=True)
    assert ([Path(e.source).stem for e in freed], used) == (["two"], [])
    assert len(list_cache(cache)) == 3
    clean_cache(cache, max_bytes=sum(sizes) - 1)
    assert sources(cache) == ["one", "three"]
    assert fill("one").from_cache
    assert not fill("two").from_cache


def test_an_age_and_all(fill, cache, capsys):
    fill("one")
    assert main(["cache", "clean", "--older_than", "1h", "--cache_dir", cache]) == 0
    assert capsys.readouterr().out.startswith("deleted 0 entries")
    assert main(["cache", "clean", "--all", "--dry-run", "--cache_dir", cache]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("would delete 1 entry")
    assert main(["cache", "clean", "--all", "--json", "--cache_dir", cache]) == 0
    assert len(json.loads(capsys.readouterr().out)["deleted"]) == 1
    assert storage.list_folder(storage.join(cache, "prepared")) == []


def test_one_in_use_stays(fill, cache, capsys):
    one = fill("one")
    with in_use([one.uri]):
        assert main(["cache", "clean", "--all", "--cache_dir", cache]) == 0
        out = capsys.readouterr().out
        assert out.startswith("deleted 0 entries")
        assert f"by process {os.getpid()} on " in out
        assert fill("one").from_cache
    assert sources(cache) == ["one"]
    assert clean_cache(cache, everything=True)[0]
    with pytest.raises(DataError, match="was cleaned from the cache"), in_use([one.uri]):
        pass


def dead_owner():
    """The note of a process of this machine that is gone."""
    done = subprocess.run([sys.executable, "-c", "pass"], check=True)
    del done
    return dataclasses.asdict(dataclasses.replace(Owner.this_process(), pid=2**22 - 1, started=1))


def test_what_killed_processes_left_goes_always(fill, cache):
    one = fill("one")
    entry = one.uri.rpartition("/")[0]
    note = json.dumps(dead_owner())
    storage.write_text(storage.join(entry, "aaaaaaaaaaaa", "train-0.parquet"), "half")
    storage.write_text(storage.join(entry, "aaaaaaaaaaaa.owner.json"), note)
    storage.write_text(storage.join(entry, "use-bbbbbbbbbbbb.owner.json"), note)
    unfinished = storage.join(cache, "prepared", "f" * 24)
    storage.write_text(storage.join(unfinished, "cccccccccccc", "vocab.txt"), "half")
    storage.write_text(storage.join(unfinished, "cccccccccccc.owner.json"), note)
    freed, _ = clean_cache(cache)
    assert [entry.uri for entry in freed] == [unfinished]
    assert sources(cache) == ["one"]
    left = set(storage.list_folder(entry))
    assert left == {"manifest.json", one.uri.rpartition("/")[2]}
    assert fill("one").from_cache


def test_a_preparation_that_was_killed_after_its_end_stays(fill, cache):
    one = fill("one")
    entry, _, token = one.uri.rpartition("/")
    storage.write_text(storage.join(entry, f"{token}.owner.json"), json.dumps(dead_owner()))
    clean_cache(cache)
    with in_use([one.uri]):
        assert set(storage.list_folder(one.uri)) >= {"vocab.txt"}
    assert f"{token}.owner.json" not in storage.list_folder(entry)


def test_a_kill_before_the_chosen_settings_name_the_entry_costs_nothing(fill, cache):
    fill("one")
    (entry,) = list_cache(cache)
    (alias,) = entry.aliases
    chosen = storage.join(cache, "prepared", alias)
    storage.delete(storage.join(chosen, "manifest.json"))
    storage.write_text(storage.join(chosen, "manifest.json.0123abcd.part"), "{")
    assert fill("one").from_cache
    assert storage.list_folder(chosen) == ["manifest.json"]


def test_a_preparation_at_work_stays(cache, tmp_path):
    unfinished = storage.join(cache, "prepared", "f" * 24)
    other = dataclasses.replace(Owner.this_process(), machine="another", renewed=time.time())
    note = storage.join(unfinished, "cccccccccccc.owner.json")
    storage.write_text(note, json.dumps(dataclasses.asdict(other)))
    assert clean_cache(cache, everything=True)[0] == []
    lapsed = dataclasses.replace(other, renewed=time.time() - 90_000)
    storage.write_text(note, json.dumps(dataclasses.asdict(lapsed)))
    assert len(clean_cache(cache)[0]) == 1


def test_a_bound_holds_after_each_preparation(fill, cache):
    fill("one")
    size = list_cache(cache)[0].num_bytes
    fill("two", cache_max_bytes=int(1.5 * size))
    assert sources(cache) == ["two"]
    assert fill("two").from_cache  # the bound is no part of what the data is


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "--older_than", "soon"], "--older_than soon: not an age such as 30d"),
        (["clean", "--max_size", "much"], "--max_size much: not a size such as 2MB"),
        (["list", "--all"], "cache list deletes nothing"),
    ],
)
def test_mistakes(arguments, message, capsys, tmp_path):
    assert main(["cache", *arguments, "--cache_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"rnntune: {message}")


def test_nothing_but_entries_is_touched(fill, cache, tmp_path):
    """A manifest that names a folder elsewhere, and a link, lead nowhere."""
    if "://" in cache:
        pytest.skip("object storage has no links")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "dear.txt").write_text("x")
    entry = Path(cache, "prepared", "e" * 24)
    entry.mkdir(parents=True)
    (entry / "link").symlink_to(outside)
    content = {"uri": str(outside / "rows"), "source": "x", "splits": [1]}
    (entry / "manifest.json").write_text(json.dumps(content))
    Path(cache, "vectors").mkdir()
    clean_cache(cache, everything=True)
    assert (outside / "dear.txt").exists()
    assert Path(cache, "vectors").exists()
    assert not entry.exists()
