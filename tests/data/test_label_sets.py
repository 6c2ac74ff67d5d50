"""Rows of several labels: the forms that they come in, and what is refused."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from rnntune.config.load import Config
from rnntune.config.schema import DataConfig
from rnntune.data.encoded_files import read_encoded
from rnntune.data.preprocess import prepare
from rnntune.data.sources import read_blocks, resolve_source
from rnntune.data.task import Task
from rnntune.errors import DataError

SETS = [["1", "b"], ["b"], [], ["b", "1", "b"], ["1"]]
ROWS = [(f"word{n % 5} text{n}", SETS[n % 5]) for n in range(30)]
READ = [["1", "b"], ["b"], [], ["b", "1", "b"], ["1"]] * 6


def _csv(header, rows) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


def _parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


TEXTS = [text for text, _ in ROWS]
LISTS = [labels for _, labels in ROWS]
FLAGS = [(int("b" in labels), "TRUE" if "1" in labels else "") for labels in LISTS]
SORTED = [[name for name in ("b", "1") if name in labels] for labels in LISTS]
FILES = {
    "lists.parquet": (_parquet(text=TEXTS, labels=LISTS), {}, READ),
    "large.parquet": (
        _parquet(text=TEXTS, label=pa.array(LISTS, pa.large_list(pa.large_string()))), {}, READ,
    ),
    "lists.jsonl": (
        "".join(
            json.dumps({"text": t, "tags": [int(n) if n == "1" else n for n in la]}) + "\n"
            for t, la in ROWS
        ).encode(),
        {"label_column": "tags"}, READ,
    ),
    "array.json": (
        json.dumps([{"text": t, "label": la if la != ["b"] else "b"} for t, la in ROWS]).encode(),
        {}, READ,
    ),
    "cells.csv": (
        _csv(["text", "label"], [(t, " | ".join(la)) for t, la in ROWS]),
        {"label_delimiter": "|"}, READ,
    ),
    "cells.tsv": (
        b"text\tgenre\n" + "".join(f"{t}\t{','.join(la)}\n" for t, la in ROWS).encode(),
        {"label_delimiter": "comma"}, READ,
    ),
    "cells.parquet": (
        _parquet(text=TEXTS, label=[";".join(la) for la in LISTS]), {"label_delimiter": ";"}, READ,
    ),
    "columns.csv": (
        _csv(["b", "text", "1"], [(b, t, one) for t, (b, one) in zip(TEXTS, FLAGS, strict=True)]),
        {"label_column": ("b", "1")}, SORTED,
    ),
    "columns.parquet": (
        _parquet(
            text=TEXTS, b=[bool(b) for b, _ in FLAGS],
            **{"1": [1.0 if one else None for _, one in FLAGS]},
        ),
        {"label_column": ["b", 1]}, SORTED,
    ),
    "columns.jsonl": (
        "".join(
            json.dumps({"text": t, "b": b, **({"1": True} if one else {})}) + "\n"
            for t, (b, one) in zip(TEXTS, FLAGS, strict=True)
        ).encode(),
        {"label_column": "b,1"}, SORTED,
    ),
    "single.csv": (
        _csv(["text", "label"], [(t, "".join(la[:1])) for t, la in ROWS]),
        {"multi_label": True}, [la[:1] for la in READ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_sets_of_labels_are_read(tmp_path, name):
    content, settings, expected = FILES[name]
    (tmp_path / name).write_bytes(content)
    source = resolve_source(DataConfig(source=str(tmp_path / name), **settings))
    assert source.multi_label
    table = pa.concat_tables(read_blocks(source, source.train[0]))
    assert table["problem"].null_count == 30
    assert table["label"].to_pylist() == expected
    assert table["text"].to_pylist() == TEXTS


def test_lines_of_fasttext_may_have_several_labels(tmp_path):
    file = tmp_path / "a.txt"
    lines = [" ".join([*(f"__label__{name}" for name in la), t]) for t, la in ROWS if la]
    file.write_text("\n".join(["__label__b first", *lines]) + "\n")
    source = resolve_source(DataConfig(source=str(file)))
    table = pa.concat_tables(read_blocks(source, str(file)))
    assert table["label"].to_pylist() == [["b"], *(la for la in READ if la)]
    assert table["text"].to_pylist() == ["first", *(t for t, la in ROWS if la)]
    file.write_text("__label__a x\n__label__b y\n")
    assert not resolve_source(DataConfig(source=str(file))).multi_label
    assert resolve_source(DataConfig(source=str(file), multi_label=True)).multi_label


@pytest.mark.parametrize("name", ["columns.csv", "cells.csv", "lists.parquet"])
def test_prepared_rows_have_their_sets(tmp_path, name):
    content, settings, _ = FILES[name]
    (tmp_path / name).write_bytes(content)
    data = DataConfig(
        source=str(tmp_path / name), cache_dir=str(tmp_path / "cache"), extra_words=0,
        validation_fraction=0.2, test_fraction=0.2, **settings,
    )  # fmt: skip
    for _ in range(2):  # prepared, and then from the cache
        prepared = prepare(data, require_test=False)
        assert prepared.task is Task.MULTI_LABEL
        assert prepared.label_delimiter == settings.get("label_delimiter")
        assert prepared.classes == (("b", "1") if name == "columns.csv" else ("1", "b"))
        words = prepared.vocab_text().split("\n")
        expected = {f"word{n}": set(labels) for n, labels in enumerate(SETS)}
        num_rows = 0
        for split in prepared.splits.values():
            class_rows = np.zeros(2, dtype=int)
            for file in split.files:
                rows = read_encoded(file)
                assert rows.labels.shape == (len(rows), 2)
                class_rows += rows.labels.sum(axis=0, dtype=int)
                num_rows += len(rows)
                for start, has in zip(rows.starts, rows.labels, strict=True):
                    labels = {n for n, one in zip(prepared.classes, has, strict=True) if one}
                    assert labels == expected[words[rows.ids[start]]]
            assert class_rows.tolist() == list(split.class_rows)
        assert num_rows == 30


def test_a_label_that_training_lacks_is_a_bad_row(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"text": t, "label": la}) + "\n" for t, la in ROWS)
    )
    (tmp_path / "test.jsonl").write_text('{"text": "x", "label": ["b", "new"]}\n')
    data = DataConfig(source=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"test.jsonl: row 1: label 'new' is in no training row"):
        prepare(data)


def test_a_column_without_a_row_is_refused(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(_csv(["text", "a", "b"], [(t, 1, 0) for t in TEXTS]))
    data = DataConfig(source=str(file), label_column=("a", "b"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="no training row of class 'b'"):
        prepare(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_column": "a,b", "label_delimiter": "|"}, "nothing to split"),
        ({"label_column": "a,a"}, "several different ones"),
        ({"label_column": ()}, "must name one column"),
        ({"label_column": "a,b", "multi_label": False}, "asks for several"),
        ({"label_delimiter": "|", "multi_label": False}, "asks for several"),
        ({"label_delimiter": ""}, "must be some characters"),
    ],
)
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig(**settings)


def test_names_of_columns_are_written_as_they_are_read():
    for given, kept in [
        ("a,b", ("a", "b")), ("label", "label"), (["a,b"], ("a,b",)), (["a"], "a"), (3, "3"),
    ]:  # fmt: skip
        config = Config.load(None, {"data.label_column": given})
        assert config.data.label_column == kept
        assert Config.load({"data": config.to_dict()["data"]}) == config
