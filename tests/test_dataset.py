import csv
import json
from pathlib import Path

import numpy as np
import pytest

from rnntune import cache, cluster, dataset, storage, text
from rnntune.config import Config, DataConfig
from rnntune.errors import DataError

pytestmark = pytest.mark.ray


def _write(folder: Path, name: str, rows) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return folder


def _corpus(folder: Path, num_rows: int = 400) -> Path:
    words = ["alpha", "beta", "gamma", "delta", "eps"]
    rows = [
        (n % 4 + 1, f"{words[n % 5]} {n}", " ".join(words[: n % 5 + 1]) + f" {words[n % 4]}.")
        for n in range(num_rows)
    ]
    _write(folder, "train.csv", rows)
    return _write(folder, "test.csv", [(n % 4 + 1, "alpha", f"new{n}") for n in range(40)])


def _data(folder: Path, cache: Path, **settings) -> DataConfig:
    return DataConfig(source=str(folder), cache_dir=str(cache), **settings)


def _texts(prepared: cache.Prepared, split: str) -> list[tuple[int, tuple[int, ...]]]:
    """Label and ids of every row, sorted."""
    found = []
    for file in prepared.splits[split].files:
        rows = cache.read_encoded(file)
        for start, length, label in zip(rows.starts, rows.lengths, rows.labels, strict=True):
            found.append((int(label), tuple(rows.ids[start : start + length].tolist())))
    return sorted(found)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return _corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def prepared(ray_session, corpus, tmp_path_factory):
    return dataset.prepare(_data(corpus, tmp_path_factory.mktemp("cache"), min_frequency=1))


def test_every_row_is_in_one_split(prepared):
    sizes = {name: split.num_rows for name, split in prepared.splits.items()}
    assert sizes["train"] + sizes["validation"] == 400
    assert sizes["test"] == 40
    assert 4 <= sizes["validation"] <= 50
    for split in prepared.splits.values():
        assert sum(split.class_rows) == sum(split.file_rows) == sum(split.length_rows)


def test_the_vocabulary_knows_the_training_rows_alone(prepared, corpus):
    words = set(prepared.vocab_text().split("\n"))
    with (corpus / "train.csv").open() as file:
        in_train = {token for row in csv.reader(file) for token in text.tokenize(row[1:])[0]}
    assert words <= in_train | {"<pad>", "<unk>", ""}
    validation_only = in_train - words
    assert validation_only  # the numbers of the validation rows stand nowhere else
    assert not any(word.startswith("new") for word in words)
    assert prepared.splits["test"].num_known == 40  # "alpha" alone


def test_ids_are_the_words(prepared):
    words = text.load_vocab(prepared.vocab_text())
    label, ids = _texts(prepared, "test")[0]
    assert words.lookup_tokens(list(ids)) == ["alpha", "<unk>"]
    assert prepared.classes[label] == "World"


@pytest.mark.slow
def test_the_same_whatever_the_blocks(prepared, corpus, tmp_path, monkeypatch):
    """Many small files, read in parallel, give the same vocabulary, splits and rows."""
    with (corpus / "train.csv").open() as file:
        rows = list(csv.reader(file))
    folder = tmp_path / "parts"
    for part in range(5):
        _write(folder, f"p{part}.csv", rows[part * 80 : part * 80 + 80])
    data = DataConfig(
        source=f"{folder}/p*.csv", test_source=str(corpus / "test.csv"),
        cache_dir=str(tmp_path / "cache"), min_frequency=1,
    )  # fmt: skip
    other = dataset.prepare(data)
    assert other.vocab_text() == prepared.vocab_text()
    for split in ("train", "validation", "test"):
        assert _texts(other, split) == _texts(prepared, split)


def test_a_second_run_starts_from_the_cache(corpus, tmp_path, prepared):
    cache = Path(prepared.place).parents[2]
    again = dataset.prepare(_data(corpus, cache, min_frequency=1))
    assert again.from_cache
    assert not prepared.from_cache
    assert again.place == prepared.place
    other = dataset.prepare(_data(corpus, cache, min_frequency=1, max_length=3))
    assert not other.from_cache
    assert other.splits["train"].num_cut > 0
    assert len(other.splits["train"].length_rows) == 4


def test_rows_that_the_object_store_cannot_hold_are_told_of(ray_session, tmp_path, monkeypatch):
    spilled = iter([10_000_000, 52_000_000])
    monkeypatch.setattr(cluster, "spilled_bytes", lambda: next(spilled))
    told: list[str] = []
    dataset.prepare(_data(_corpus(tmp_path / "in", 60), tmp_path / "cache"), told.append)
    assert any("42 MB were spilled to disk" in line for line in told)


def test_a_changed_file_is_prepared_again(ray_session, tmp_path):
    folder = _corpus(tmp_path / "in", 60)
    first = dataset.prepare(_data(folder, tmp_path / "cache"))
    (folder / "train.csv").write_text((folder / "train.csv").read_text().replace("beta", "zeta"))
    second = dataset.prepare(_data(folder, tmp_path / "cache"))
    assert not second.from_cache
    assert first.fingerprint != second.fingerprint


def test_a_preparation_that_was_killed_is_not_taken_for_whole(ray_session, tmp_path, monkeypatch):
    folder = _corpus(tmp_path / "in", 60)
    data = _data(folder, tmp_path / "cache")
    write = storage.write_text

    def killed(place, content):
        if place.endswith("manifest.json"):
            raise KeyboardInterrupt
        write(place, content)

    monkeypatch.setattr(storage, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        dataset.prepare(data)
    monkeypatch.undo()
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    assert not dataset.prepare(data).from_cache


BAD = {
    "4 fields, not 3": '"1","a","b","c"\n',
    "label '9'": '"9","a","b"\n',
    "label '' is not one of": '"","a","b"\n',
    "UTF-8": b'"1","a","\xff\xfe"\n',
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_rows(ray_session, tmp_path, reason):
    folder = _corpus(tmp_path / "in", 60)
    bad = BAD[reason]
    content = (folder / "train.csv").read_bytes()
    lines = content.splitlines(keepends=True)
    lines.insert(9, bad if isinstance(bad, bytes) else bad.encode())
    (folder / "train.csv").write_bytes(b"".join(lines))
    with pytest.raises(DataError) as caught:
        dataset.prepare(_data(folder, tmp_path / "cache"))
    assert "train.csv: row 10: " in str(caught.value)
    assert reason in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    skipped = dataset.prepare(_data(folder, tmp_path / "cache", on_bad_rows="skip"))
    assert skipped.num_skipped == 1
    assert sum(skipped.splits[name].num_rows for name in ("train", "validation")) == 60


def test_a_label_of_test_rows_that_no_training_row_has(ray_session, tmp_path):
    for name, labels in (("train", "ab"), ("test", "abz")):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for number in range(30):
                row = {"text": f"{name} {number}", "label": labels[number % len(labels)]}
                file.write(json.dumps(row) + "\n")
    data = {
        "source": str(tmp_path / "train.jsonl"),
        "test_source": str(tmp_path / "test.jsonl"),
        "cache_dir": str(tmp_path / "cache"),
    }
    with pytest.raises(DataError, match=r"test.jsonl: row 3: label 'z' is in no training row"):
        dataset.prepare(DataConfig(**data))
    found = dataset.prepare(DataConfig(**data, on_bad_rows="skip"))
    assert found.splits["test"].num_rows == 20
    assert found.classes == ("a", "b")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "a", "b")] * 30, "no training row of class 'Sports', 'Business', 'Sci/Tech'"),
        ([], "no rows"),
    ],
)
def test_data_that_cannot_train_a_classifier(ray_session, tmp_path, rows, message):
    folder = _corpus(tmp_path / "in", 60)
    _write(folder, "train.csv", rows)
    with pytest.raises(DataError, match=message):
        dataset.prepare(_data(folder, tmp_path / "cache", format="ag_news"))


def test_one_class_only(ray_session, tmp_path):
    (tmp_path / "one.csv").write_text("text,label\n" + "hello,x\n" * 30)
    with pytest.raises(DataError, match="needs two classes, the training rows have only 'x'"):
        dataset.prepare(_data(tmp_path / "one.csv", tmp_path / "cache"))


def test_a_missing_column(ray_session, tmp_path):
    (tmp_path / "one.csv").write_text("body,label\nhello,x\n")
    with pytest.raises(DataError, match="no column 'text'; its columns are body, label"):
        dataset.prepare(_data(tmp_path / "one.csv", tmp_path / "cache"))


def test_a_text_without_a_token_is_one_unknown_word(ray_session, tmp_path):
    lines = ["text,label"] + [f"word{n},{'xy'[n % 2]}" for n in range(60)] + ['"",x', '" ; ",y']
    (tmp_path / "one.csv").write_text("\n".join(lines) + "\n")
    found = dataset.prepare(
        _data(tmp_path / "one.csv", tmp_path / "cache", validation_fraction=0.0, test_fraction=0.3)
    )
    rows = [row for split in ("train", "test") for row in _texts(found, split)]
    assert len(rows) == 62
    assert sum(ids == (text.UNKNOWN,) for _, ids in rows) >= 2


def test_shared_parts_give_the_same_rows(prepared):
    for in_store in (False, True):
        parts = cache.share(prepared, "train", in_store=in_store)
        assert all((part.ref is not None) == in_store for part in parts)
        loaded = [part.part().load() for part in parts]
        assert sum(map(len, loaded)) == prepared.splits["train"].num_rows
        assert np.concatenate([rows.ids for rows in loaded]).sum() == sum(
            sum(ids) for _, ids in _texts(prepared, "train")
        )


def test_real_ag_news(ray_session, ag_news_dir, cache_dir):
    data = Config.load(None, {"data.source": str(ag_news_dir), "data.cache_dir": cache_dir}).data
    found = dataset.prepare(data)
    with (ag_news_dir / "train.csv").open(newline="", encoding="utf-8") as file:
        num_rows = sum(1 for _ in csv.reader(file))
    assert found.splits["train"].num_rows + found.splits["validation"].num_rows == num_rows
    assert found.splits["test"].num_rows == 5000
    assert found.splits["test"].num_known / found.splits["test"].num_tokens > 0.97
