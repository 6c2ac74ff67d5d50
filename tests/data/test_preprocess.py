import csv
import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from rnntune import storage
from rnntune.config.load import Config
from rnntune.config.schema import DataConfig
from rnntune.data import passes, preparation, windows
from rnntune.data.batching import EncodedRows
from rnntune.data.encoded_files import read_encoded
from rnntune.data.prepared import PreparedDataset, split_refs
from rnntune.data.preprocess import prepare
from rnntune.data.sharing import hold_split, share_split
from rnntune.data.tokenize import tokenize
from rnntune.data.vocabulary import UNKNOWN, load_vocab
from rnntune.errors import DataError


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
    return DataConfig(
        **{"extra_words": 0, "source": str(folder), "cache_dir": str(cache), **settings}
    )


def _texts(prepared: PreparedDataset, split: str) -> list[tuple[int, tuple[int, ...]]]:
    """Label and ids of every row, sorted."""
    found = []
    for file in prepared.splits[split].files:
        rows = read_encoded(file)
        for start, length, label in zip(rows.starts, rows.lengths, rows.labels, strict=True):
            found.append((int(label), tuple(rows.ids[start : start + length].tolist())))
    return sorted(found)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return _corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def through_ray(ray_session, monkeypatch):
    """Have small data go through Ray Data, too."""
    monkeypatch.setattr(passes, "LOCAL_BYTES", -1)


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    return prepare(_data(corpus, tmp_path_factory.mktemp("cache"), min_frequency=1))


def test_every_row_is_in_one_split(prepared):
    sizes = {name: split.num_rows for name, split in prepared.splits.items()}
    assert sizes["train"] + sizes["validation"] == 400
    assert sizes["test"] == 40
    assert 40 <= sizes["validation"] <= 80
    for split in prepared.splits.values():
        assert sum(split.class_rows) == sum(split.file_rows) == sum(split.length_rows)


def test_the_vocabulary_knows_the_training_rows_alone(prepared, corpus):
    words = set(prepared.vocab_text().split("\n"))
    with (corpus / "train.csv").open() as file:
        in_train = {token for row in csv.reader(file) for token in tokenize(row[1:])[0]}
    assert words <= in_train | {"<pad>", "<unk>", ""}
    validation_only = in_train - words
    assert validation_only  # the numbers of the validation rows stand nowhere else
    assert not any(word.startswith("new") for word in words)
    assert prepared.splits["test"].num_known == 40  # "alpha" alone


def test_ids_are_the_words(prepared):
    words = load_vocab(prepared.vocab_text())
    label, ids = _texts(prepared, "test")[0]
    assert [words[number] for number in ids] == ["alpha", "<unk>"]
    assert prepared.classes[label] == "World"


@pytest.mark.ray
@pytest.mark.parametrize("counted_by", ["driver", "tasks"])
def test_ray_data_and_this_process_prepare_the_same(
    prepared, corpus, tmp_path, through_ray, counted_by, monkeypatch
):
    if counted_by == "tasks":
        monkeypatch.setattr(passes, "CLUSTER_COUNT_BYTES", -1)
        monkeypatch.setattr(passes, "WordCounts", None)
        monkeypatch.setattr("rnntune.data.cluster_counts._RANGE_WORDS", 100)
    through = prepare(_data(corpus, tmp_path, min_frequency=1))
    assert through.vocab_text() == prepared.vocab_text()
    ours, rays = dataclasses.asdict(prepared), dataclasses.asdict(through)
    for content in (ours, rays):
        for split in content["splits"].values():
            split["files"] = [_digest(file) for file in split["files"]]
        del content["uri"], content["rows_per_s"]
    assert ours == rays


@pytest.fixture
def windowed(prepared, corpus, tmp_path, monkeypatch):
    """The same data where 400 rows are many: in few files of windows."""
    monkeypatch.setattr(preparation, "WINDOW_ROWS", 100)
    monkeypatch.setattr(windows, "_FEWEST_ROWS", 8)
    return lambda name: prepare(_data(corpus, tmp_path / name, min_frequency=1))


def test_many_rows_are_in_windows_of_few_files(prepared, windowed):
    found = windowed("cache")
    assert found.has_windows
    assert sorted(storage.list_folder(found.uri)) == sorted(
        [
            windows.INDEX,
            "vocab.txt",
            *(Path(f).name for s in found.splits.values() for f in s.files),
        ]
    )
    for name, split in found.splits.items():
        assert _texts(found, name) == _texts(prepared, name)
        assert len(split.files) == 1
        refs = split_refs(found, name)
        rows = EncodedRows.concatenate([ref.load() for ref in refs])
        whole = read_encoded(split.files[0])
        assert np.array_equal(rows.ids, whole.ids)
        assert np.array_equal(rows.labels, whole.labels)
        held = hold_split(found, name, in_memory=True)
        assert [len(ref.ref) for ref in held] == [ref.num_rows for ref in refs]
    assert len(split_refs(found, "train")) == 16


@pytest.mark.ray
def test_ray_data_makes_the_same_windows(windowed, through_ray, monkeypatch):
    rays = windowed("ray")
    monkeypatch.setattr(passes, "LOCAL_BYTES", 10**9)
    ours = windowed("here")
    for name, split in ours.splits.items():
        assert list(map(_digest, rays.splits[name].files)) == list(map(_digest, split.files))


def test_an_index_of_other_files_is_refused(windowed):
    found = windowed("cache")
    split = found.splits["train"]
    other = dataclasses.replace(split, file_rows=(split.num_rows - 1,))
    changed = dataclasses.replace(found, splits={**found.splits, "train": other})
    with pytest.raises(DataError, match=r"index\.parquet: damaged"):
        split_refs(changed, "train")


def _digest(file: str) -> str:
    return hashlib.blake2b(storage.read_bytes(file)).hexdigest()


@pytest.mark.ray
@pytest.mark.slow
def test_the_same_whatever_the_blocks(prepared, corpus, tmp_path, through_ray):
    """Many small files, read in parallel, give the same vocabulary, splits and rows."""
    with (corpus / "train.csv").open() as file:
        rows = list(csv.reader(file))
    folder = tmp_path / "parts"
    for part in range(5):
        _write(folder, f"p{part}.csv", rows[part * 80 : part * 80 + 80])
    data = DataConfig(
        source=f"{folder}/p*.csv", test_source=str(corpus / "test.csv"),
        cache_dir=str(tmp_path / "cache"), min_frequency=1, extra_words=0,
    )  # fmt: skip
    other = prepare(data)
    assert other.vocab_text() == prepared.vocab_text()
    for split in ("train", "validation", "test"):
        assert _texts(other, split) == _texts(prepared, split)


def test_a_second_run_starts_from_the_cache(corpus, tmp_path, prepared):
    cache = Path(prepared.uri).parents[2]
    again = prepare(_data(corpus, cache, min_frequency=1))
    assert again.from_cache
    assert not prepared.from_cache
    assert again.uri == prepared.uri
    other = prepare(_data(corpus, cache, min_frequency=1, max_length=3))
    assert not other.from_cache
    assert other.splits["train"].num_cut > 0
    assert len(other.splits["train"].length_rows) == 4


@pytest.mark.ray
def test_rows_that_the_object_store_cannot_hold_are_told_of(through_ray, tmp_path, monkeypatch):
    spilled = iter([10_000_000, 52_000_000])
    monkeypatch.setattr(passes, "spilled_bytes", lambda: next(spilled))
    told: list[str] = []
    prepare(_data(_corpus(tmp_path / "in", 60), tmp_path / "cache"), told.append)
    assert any("42 MB were spilled to disk" in line for line in told)


def test_a_changed_file_is_prepared_again(tmp_path):
    folder = _corpus(tmp_path / "in", 60)
    first = prepare(_data(folder, tmp_path / "cache"))
    (folder / "train.csv").write_text((folder / "train.csv").read_text().replace("beta", "zeta"))
    second = prepare(_data(folder, tmp_path / "cache"))
    assert not second.from_cache
    assert first.fingerprint != second.fingerprint


def test_a_preparation_that_was_killed_is_not_taken_for_whole(tmp_path, monkeypatch):
    folder = _corpus(tmp_path / "in", 60)
    data = _data(folder, tmp_path / "cache")
    write = storage.write_text

    def killed(uri, content):
        if uri.endswith("manifest.json"):
            raise KeyboardInterrupt
        write(uri, content)

    monkeypatch.setattr(storage, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(data)
    monkeypatch.undo()
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    assert not prepare(data).from_cache


BAD = {
    "4 fields, not 3": '"1","a","b","c"\n',
    "label '9'": '"9","a","b"\n',
    "label '' is not one of": '"","a","b"\n',
    "UTF-8": b'"1","a","\xff\xfe"\n',
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_rows(tmp_path, reason):
    folder = _corpus(tmp_path / "in", 60)
    bad = BAD[reason]
    content = (folder / "train.csv").read_bytes()
    lines = content.splitlines(keepends=True)
    lines.insert(9, bad if isinstance(bad, bytes) else bad.encode())
    (folder / "train.csv").write_bytes(b"".join(lines))
    with pytest.raises(DataError) as caught:
        prepare(_data(folder, tmp_path / "cache"))
    assert "train.csv: row 10: " in str(caught.value)
    assert reason in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    skipped = prepare(_data(folder, tmp_path / "cache", on_bad_rows="skip"))
    assert skipped.num_skipped == 1
    assert sum(skipped.splits[name].num_rows for name in ("train", "validation")) == 60


def test_a_label_of_test_rows_that_no_training_row_has(tmp_path):
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
        prepare(DataConfig(**data))
    found = prepare(DataConfig(**data, on_bad_rows="skip"))
    assert found.splits["test"].num_rows == 20
    assert found.classes == ("a", "b")


def test_validation_files_and_texts_that_stand_in_two_splits(tmp_path):
    def write(name, texts):
        lines = [json.dumps({"text": t, "label": "ab"[n % 2]}) for n, t in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        return str(tmp_path / f"{name}.jsonl")

    texts = [f"text {n}" for n in range(60)]
    data = DataConfig(
        source=write("train", texts),
        test_source=write("test", ["text 1", "text 2", "text 2", "new 1"]),
        validation_source=write("validation", ["text 7", "new 2", "new 3"]),
        cache_dir=str(tmp_path / "cache"),
    )
    told: list[str] = []
    found = prepare(data, told.append)
    assert {name: split.num_rows for name, split in found.splits.items()} == {
        "train": 60, "validation": 3, "test": 4
    }  # fmt: skip
    assert "1 training row has its text in the validation rows, too" in told
    assert "2 training rows have their text in the test rows, too" in told


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "a", "b")] * 30, "no training row of class 'Sports', 'Business', 'Sci/Tech'"),
        ([], "no rows"),
    ],
)
def test_data_that_cannot_train_a_classifier(tmp_path, rows, message):
    folder = _corpus(tmp_path / "in", 60)
    _write(folder, "train.csv", rows)
    with pytest.raises(DataError, match=message):
        prepare(_data(folder, tmp_path / "cache", format="ag_news"))


def test_one_class_only(tmp_path):
    (tmp_path / "one.csv").write_text("text,label\n" + "hello,x\n" * 30)
    with pytest.raises(DataError, match="needs two classes, the training rows have only 'x'"):
        prepare(_data(tmp_path / "one.csv", tmp_path / "cache"))


def test_splits_are_stratified_and_their_words_counted_anew(tmp_path):
    """Texts that move to give a class its share take their words with them."""
    labels = ["big"] * 150 + ["small"] * 30 + ["rare"] * 2 + ["single"]
    rows = "".join(f"both word{n},{label}\n" for n, label in enumerate(labels))
    (tmp_path / "one.csv").write_text("text,label\n" + rows)
    settings = {"min_frequency": 1, "validation_fraction": 0.1, "test_fraction": 0.2}
    found = prepare(_data(tmp_path / "one.csv", tmp_path / "cache", **settings))
    by_class = dict(zip(found.classes, zip(*(
        found.splits[name].class_rows for name in ("train", "validation", "test")
    ), strict=True), strict=True))  # fmt: skip
    assert by_class == {
        "big": (108, 12, 30), "small": (22, 2, 6), "rare": (1, 1, 0), "single": (1, 0, 0),
    }  # fmt: skip
    train = found.splits["train"]
    assert found.num_trained_words == 2 + 1 + train.num_rows
    assert train.num_known == train.num_tokens


def test_the_tokenizer_is_resolved_and_recorded(tmp_path):
    rows = "".join(f"{'我爱北京' if n % 2 else '他在上海'}{n},{'xy'[n % 2]}\n" for n in range(60))
    (tmp_path / "one.csv").write_text("text,label\n" + rows, encoding="utf-8")
    found = prepare(_data(tmp_path / "one.csv", tmp_path / "cache"))
    assert found.tokenizer == "words"
    assert "data.tokenizer" in [choice.name for choice in found.choices]
    assert {"我", "京", "海"} <= set(load_vocab(found.vocab_text()))
    other = prepare(_data(tmp_path / "one.csv", tmp_path / "cache", tokenizer="basic_english"))
    assert other.tokenizer == "basic_english"
    assert "我" not in load_vocab(other.vocab_text())


def test_a_missing_column(tmp_path):
    (tmp_path / "one.csv").write_text("body,label\nhello,x\n")
    with pytest.raises(DataError, match="no column 'text'; its columns are body, label"):
        prepare(_data(tmp_path / "one.csv", tmp_path / "cache"))


def test_a_text_without_a_token_is_one_unknown_word(tmp_path):
    lines = ["text,label"] + [f"word{n},{'xy'[n % 2]}" for n in range(60)] + ['"",x', '" ; ",y']
    (tmp_path / "one.csv").write_text("\n".join(lines) + "\n")
    found = prepare(
        _data(tmp_path / "one.csv", tmp_path / "cache", validation_fraction=0.0, test_fraction=0.3)
    )
    rows = [row for split in ("train", "test") for row in _texts(found, split)]
    assert len(rows) == 62
    assert sum(ids == (UNKNOWN,) for _, ids in rows) >= 2


@pytest.mark.ray
def test_a_users_mistake_in_a_task_is_one_line(through_ray, tmp_path):
    (tmp_path / "one.csv").write_text("body,label\nhello,x\n")
    with pytest.raises(DataError, match="no column 'text'; its columns are body, label"):
        prepare(_data(tmp_path / "one.csv", tmp_path / "cache"))


@pytest.mark.ray
def test_shared_parts_give_the_same_rows(prepared, ray_session):
    for in_store in (False, True):
        parts = share_split(prepared, "train", in_store=in_store)
        assert all((part.ref is not None) == in_store for part in parts)
        loaded = [part.part().load() for part in parts]
        assert sum(map(len, loaded)) == prepared.splits["train"].num_rows
        assert np.concatenate([rows.ids for rows in loaded]).sum() == sum(
            sum(ids) for _, ids in _texts(prepared, "train")
        )


def test_real_ag_news(ag_news_dir, cache_dir):
    data = Config.load(None, {"data.source": str(ag_news_dir), "data.cache_dir": cache_dir}).data
    found = prepare(data)
    with (ag_news_dir / "train.csv").open(newline="", encoding="utf-8") as file:
        num_rows = sum(1 for _ in csv.reader(file))
    assert found.splits["train"].num_rows + found.splits["validation"].num_rows == num_rows
    assert found.splits["test"].num_rows == 5000
    assert found.splits["test"].num_known / found.splits["test"].num_tokens > 0.97


def test_what_was_prepared_without_test_rows_is_not_trained_on(tmp_path):
    rows = [(n % 4 + 1, "alpha", f"text {n}") for n in range(80)]
    data = _data(_write(tmp_path / "in", "train.csv", rows), tmp_path / "cache", test_fraction=0.0)
    assert not prepare(data, require_test=False).splits["test"].num_rows
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"no test rows; set data\.test_source or test_fraction"
        ):
            prepare(data)


def test_a_cache_that_is_named_from_here_is_read_from_elsewhere(tmp_path, monkeypatch):
    folder = _corpus(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    prepared = prepare(_data(folder, "cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = prepare(_data(folder, "../cache"))
    assert again.from_cache
    assert _texts(again, "test") == _texts(prepared, "test")


def test_a_file_that_changes_while_it_is_read_does_not_reach_the_cache(tmp_path):
    folder = _corpus(tmp_path / "in")
    more = '"1","alpha","one more"\n'

    def change(line):
        if line.startswith("read "):
            with (folder / "train.csv").open("a") as file:
                file.write(more)

    with pytest.raises(DataError, match=r"train\.csv: changed while it was read"):
        prepare(_data(folder, tmp_path / "cache"), change)
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    assert not prepare(_data(folder, tmp_path / "cache")).from_cache


def test_settings_that_were_chosen_are_those_of_a_run_that_goes_on(tmp_path):
    folder = _corpus(tmp_path / "in")
    prepared = prepare(_data(folder, tmp_path / "cache"))
    assert prepared.choices
    chosen = {choice.name.removeprefix("data."): choice.value for choice in prepared.choices}
    again = prepare(_data(folder, tmp_path / "cache", **chosen))
    assert again.from_cache
    assert again.fingerprint == prepared.fingerprint
    assert not again.choices


def test_the_share_for_validation_goes_by_the_rows_that_are_not_for_the_test(tmp_path):
    rows = [(f"w{number} {'good' if number % 2 else 'bad'}", number % 2) for number in range(1500)]
    _write(tmp_path / "in", "all.csv", rows)
    prepared = prepare(_data(tmp_path / "in", tmp_path / "cache", test_fraction=0.2))
    chosen = {choice.name: choice.value for choice in prepared.choices}
    share = chosen["data.validation_fraction"]
    assert share == pytest.approx(0.05 * 2500 / 1200, abs=1e-4)  # of 1,200 rows
    assert prepared.splits["validation"].num_rows == pytest.approx(1200 * share, abs=2)


@pytest.mark.ray
def test_ray_data_gives_as_many_rows_for_validation(through_ray, tmp_path):
    rows = [(f"w{number} {'good' if number % 2 else 'bad'}", number % 2) for number in range(700)]
    _write(tmp_path / "in", "all.csv", rows)
    there = prepare(_data(tmp_path / "in", tmp_path / "cache"))
    chosen = {choice.name: choice.value for choice in there.choices}
    assert chosen["data.validation_fraction"] == 0.15


def test_no_more_is_read_than_shows_that_rows_are_not_few(monkeypatch):
    read = []

    def blocks(source, file):
        read.append(file)
        yield pa.table({"a": [0] * 2000})

    monkeypatch.setattr(preparation, "read_blocks", blocks)
    source = SimpleNamespace(train=["a", "b", "c"], test=["d"], validation=[])
    (choice,) = preparation.share_choice(DataConfig(), source)
    assert read == ["a", "b"]
    assert choice.value == 0.05
    assert not list(preparation.share_choice(DataConfig(validation_fraction=0.3), source))
