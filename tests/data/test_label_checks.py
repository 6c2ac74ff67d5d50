"""Labels and bad rows, through a whole preparation in this process."""

import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnntune.cli.main import main
from rnntune.config.schema import DataConfig
from rnntune.data.label_checks import bad_rows_error, label_notes, sort_labels
from rnntune.data.preprocess import prepare
from rnntune.errors import DataError


def _prepare(tmp_path, labels, told=None, **settings):
    """Rows of different texts with these labels, in turn."""
    rows = [{"text": f"word{n} {n}", "label": label} for n, label in enumerate(labels)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(
        source=str(tmp_path / "a.jsonl"), cache_dir=str(tmp_path / "cache"),
        **{"test_fraction": 0.0, "validation_fraction": 0.0, **settings},
    )  # fmt: skip
    return prepare(data, (told if told is not None else []).append, require_test=False)


@pytest.mark.parametrize("order", [("01", "1", "--1", "-2"), ("-2", "--1", "1", "01")])
def test_labels_have_an_order_of_their_own(tmp_path, order):
    told: list[str] = []
    classes = _prepare(tmp_path, [*order, "10", "2", "x"] * 9, told).classes
    assert classes == ("-2", "01", "1", "2", "10", "--1", "x")
    assert "labels '01' and '1' are kept as two classes" in told


def test_equal_numbers_are_sorted_by_their_spelling():
    assert sort_labels(["1", "01", "-1"]) == sort_labels(["01", "1", "-1"]) == ["-1", "01", "1"]


@given(st.lists(st.text(max_size=5) | st.integers().map(str), unique=True))
def test_sorting_does_not_depend_on_the_order(labels):
    assert len({tuple(sort_labels(p)) for p in itertools.permutations(labels[:4])}) == 1
    assert sorted(sort_labels(labels)) == sorted(labels)


def test_a_number_in_two_spellings(tmp_path):
    with pytest.raises(DataError, match=r"a.jsonl: row 3: label '1.0' is the number of label '1'"):
        _prepare(tmp_path, ["1", "2", "1.0"] * 9)
    assert _prepare(tmp_path, ["1.0", "2.0"] * 9).classes == ("1.0", "2.0")


def test_a_class_of_one_row_is_named(tmp_path):
    told: list[str] = []
    _prepare(tmp_path, ["a", "b"] * 9 + ["[/c]"], told)
    assert "one row alone is of class '[/c]'; nothing can be learned from it" in told
    many = label_notes({f"c{n}": 1 for n in range(12)})
    assert many[0].endswith("'c7' and 4 more; nothing can be learned from it")


def test_rows_without_a_label_are_skipped_and_counted(tmp_path):
    labels = [1.0, float("nan"), 2.0, None] * 9
    table = pa.table({"label": pa.array(labels), "text": [f"t{n} x" for n in range(36)]})
    pq.write_table(table, tmp_path / "a.parquet")
    data = DataConfig(source=str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"row 2: label is NaN.*\(17 more bad rows\)"):
        prepare(data)
    skipping = DataConfig(source=data.source, cache_dir=data.cache_dir, on_bad_rows="skip")
    prepared = prepare(skipping, require_test=False)
    assert (prepared.num_skipped, prepared.classes) == (18, ("1", "2"))


def test_only_bad_rows(tmp_path):
    with pytest.raises(
        DataError, match=r"^all 9 rows are bad, the first: .*: row 1: label is empt"
    ):
        _prepare(tmp_path, [""] * 9)
    with pytest.raises(
        DataError, match=r"rows have none; of 9 rows some are bad, the first: .* row 1"
    ):
        _prepare(tmp_path, [""] * 9, on_bad_rows="skip")


def test_the_error_of_bad_rows():
    assert str(bad_rows_error("f: row 1: x", 2, 5)).startswith("f: row 1: x (1 more bad row); ")
    assert str(bad_rows_error("f: row 1: x", 1, 1)) == "the one row is bad: f: row 1: x"
    assert str(bad_rows_error("f: row 1: bytes that are not UTF-8", 1, 5)).endswith("encoding")


def test_a_folder_of_classes_is_prepared(tmp_path):
    for split, label in itertools.product(("train", "test"), ("neg", "pos")):
        for number in range(20):
            file = tmp_path / "texts" / split / label / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{split} {label} {number}" if number else "equal")
    told: list[str] = []
    data = DataConfig(source=str(tmp_path / "texts"), cache_dir=str(tmp_path / "cache"))
    prepared = prepare(data, told.append)
    assert prepared.classes == ("neg", "pos")
    assert prepared.splits["test"].num_rows == 40
    assert "2 training rows have their text in the test rows, too" in told
    assert prepare(data).from_cache
    file.write_text("changed")
    assert not prepare(data).from_cache


def test_chosen_columns_are_kept_for_the_model(tmp_path):
    rows = "".join(f"some words {n},c{n % 2}\n" for n in range(40))
    (tmp_path / "a.csv").write_text("Review,Stars\n" + rows)
    told: list[str] = []
    data = DataConfig(source=str(tmp_path / "a.csv"), cache_dir=str(tmp_path / "cache"))
    prepared = prepare(data, told.append)
    assert (prepared.text_columns, prepared.label_column) == (("Review",), "Stars")
    assert "text from column Review, label from column Stars" in told[0]
    assert prepare(data).text_columns == ("Review",)


def test_a_label_that_looks_like_markup(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"word {n},{label}\n" for n in range(60) for label in ("[/a]", "[b]", ":cat:"))
    (tmp_path / "a.csv").write_text("text,label\n" + rows)
    assert main(["prepare", "--data", "a.csv", "--data.cache_dir", "cache"]) == 0
    out = capsys.readouterr().out
    assert all(label in out for label in ("[/a]", "[b]", ":cat:"))
