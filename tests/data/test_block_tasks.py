"""The two passes of the preparation, each on one block."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.data.block_tasks import (
    MAX_PROBLEMS,
    SPLITS,
    _labels,
    encode_block,
    tokenize_block,
    tokenize_blocks,
)
from rnntune.data.formats.schema import ROW_SCHEMA, row_arrays
from rnntune.data.stratification import Fractions, Reassigned
from rnntune.data.vocabulary import HashedVocabulary

WORDS = HashedVocabulary(pa.array(["<pad>", "<unk>", "cup", "final", "shares"]))
SETTINGS = {
    "clean": False,
    "tokenizer": "basic_english",
    "seed": 0,
    "max_tokens": 1_000,
    "fractions": Fractions(validation=0.0, test=0.0),
    "origin": 0,
    "compare_texts": True,
}


def block(texts, labels=None, problems=None) -> pa.Table:
    rows = len(texts)
    return pa.table(
        [
            pa.array(["a.csv"] * rows, pa.string()),
            pa.array(range(1, rows + 1), pa.int64()),
            pa.array(texts, pa.string()),
            pa.array(labels or ["x"] * rows, pa.string()),
            pa.array(problems or [None] * rows, pa.string()),
        ],
        schema=ROW_SCHEMA,
    )


def first_pass(table: pa.Table, **changes) -> dict:
    return tokenize_block(table, **{**SETTINGS, **changes}).to_pylist()[0]


def test_tokens_are_indices_into_the_words_of_the_block():
    found = first_pass(block(["Cup final", "final"], ["sport", "news"]))
    assert [found["words"][i] for i in found["indices"]] == ["cup", "final", "final"]
    assert found["lengths"] == [2, 1]
    assert dict(zip(found["words"], found["counts"], strict=True)) == {"cup": 1, "final": 2}
    assert [found["names"][i] for i in found["label_ids"]] == ["sport", "news"]
    assert (found["file"], found["first_row"], found["num_rows"]) == ("a.csv", 1, 2)


def test_rows_with_a_problem_are_left_out_and_the_first_are_kept():
    problems = ["no label"] * 30
    found = first_pass(block(["a", *["b"] * 30], problems=[None, *problems]))
    assert found["num_problems"] == 30
    assert [p["row"] for p in found["problems"]] == list(range(2, 2 + MAX_PROBLEMS))
    assert len(found["lengths"]) == 1


def test_texts_have_hashes_by_which_they_are_dealt_out():
    one, other = first_pass(block(["a", "b", "a"])), first_pass(block(["b", "a"]))
    assert one["hashes"] == [other["hashes"][number] for number in (1, 0, 1)]
    assert first_pass(block(["b"]), seed=1)["hashes"] != other["hashes"][:1]


def test_words_of_other_splits_are_not_counted():
    found = first_pass(block(["cup"]), origin=SPLITS.index("test"))
    assert sum(found["counts"]) == 0
    assert (found["hashes"], len(found["held_out"])) == ([], 1)


def second_pass(table: pa.Table, folder, **changes) -> list[dict]:
    given = {
        "words": WORDS, "labels": ["sport", "news"], "uri": str(folder), "max_length": 8,
        "fractions": SETTINGS["fractions"], "reassigned": Reassigned(),
        "held_out": {},
    }  # fmt: skip
    return encode_block(table, **{**given, **changes}).to_pylist()


def test_ids_and_labels_are_written_one_file_a_split(tmp_path):
    table = tokenize_block(block(["Cup final", "shares rise"], ["sport", "news"]), **SETTINGS)
    (written,) = second_pass(table, tmp_path)
    assert (written["split"], written["num_rows"], written["num_tokens"]) == (0, 2, 4)
    assert written["num_known"] == 3
    assert written["class_rows"] == [1, 1]
    assert written["length_rows"] == [0, 0, 2]
    rows = pq.read_table(tmp_path / written["uri"]).to_pydict()
    assert rows == {"ids": [[2, 3], [4, 1]], "label": [0, 1]}


def test_long_rows_are_cut_and_other_labels_left_out(tmp_path):
    table = tokenize_block(block(["cup " * 9, "final"], ["sport", "weather"]), **SETTINGS)
    (written,) = second_pass(table, tmp_path, max_length=4)
    assert (written["num_rows"], written["num_cut"], written["num_tokens"]) == (1, 1, 4)


def test_training_texts_that_stand_in_the_test_rows_are_counted(tmp_path):
    test = first_pass(block(["cup final"]), origin=2)
    table = tokenize_block(block(["cup final", "shares"], ["sport", "news"]), **SETTINGS)
    held_out = {2: np.array(test["held_out"], dtype=np.uint64)}
    (written,) = second_pass(table, tmp_path, held_out=held_out)
    assert written["num_repeated"] == [0, 0, 1]


def test_a_block_without_rows_writes_nothing(tmp_path):
    table = tokenize_block(block([]), **SETTINGS)
    assert second_pass(table, tmp_path) == []
    assert storage.list_folder(str(tmp_path)) == []


def test_a_label_that_a_row_has_twice_counts_once():
    names, ids, rows = _labels(pa.array([["b", "a", "b"], [], ["a"]], pa.list_(pa.string())))
    assert [(names[n], row) for n, row in zip(ids, rows, strict=True)] == [
        ("b", 0), ("a", 0), ("a", 2),
    ]  # fmt: skip
    names, ids, rows = _labels(pa.array(["b", "a", "b"]))
    assert [(names[n], row) for n, row in zip(ids, rows, strict=True)] == [
        ("b", 0), ("a", 1), ("b", 2),
    ]  # fmt: skip


def test_long_texts_go_in_pieces():
    texts = ["word " * 200_000] * 9 + ["word"] * 50
    pieces = list(tokenize_blocks(block(texts), **SETTINGS))
    assert 2 <= len(pieces) <= 4
    assert [p["num_rows"][0].as_py() for p in pieces] == [4, 4, 51]
    assert [p["first_row"][0].as_py() for p in pieces] == [1, 5, 9]
    assert (
        sum(p["counts"][0].values.to_pylist()[0] for p in pieces) == 9 * 1_001 + 50
    )  # one token more shows a cut
    (empty,) = tokenize_blocks(block([]), **SETTINGS)
    assert empty["num_rows"].to_pylist() == [0]


def test_readers_end_blocks_of_long_texts():
    rows = [("x" * 1_000_000, "a", None)] * 10 + [("x", "a", None)] * 9_000
    assert [len(texts) for texts, _, _ in row_arrays(rows)] == [5, 5, 8_192, 808]
