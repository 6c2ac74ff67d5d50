import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from rnntune.data.batching import EncodedRows
from rnntune.data.encoded_files import read_encoded, write_encoded
from rnntune.data.prepared import PreparedDataset, Split
from rnntune.training.evaluation import SplitPredictions
from rnntune.training.report_data import _counts, keep_report_data, telling_words
from rnntune.training.run_folder import RunFolder

WORDS = ["<pad>", "<unk>", "the", "ball", "vote", "cup"]


@pytest.fixture
def prepared(tmp_path) -> PreparedDataset:
    """Rows of two classes: 'the ball' and 'the vote', in files of three and two."""
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    splits = {}
    for name in ("train", "test"):
        files = []
        for number, labels in enumerate(([0, 1, 0], [1, 0])):
            files.append(str(tmp_path / f"{name}-{number}.parquet"))
            ids = np.array([[2, 3 + label, 1 if number else 5] for label in labels], np.int32)
            lengths = np.full(len(labels), 3, np.int32)
            write_encoded(
                files[-1],
                EncodedRows(ids=ids.ravel(), lengths=lengths, labels=np.array(labels, np.int32)),
            )
        splits[name] = Split(
            files=tuple(files), file_rows=(3, 2), num_rows=5, num_tokens=15, num_known=13,
            num_cut=0, class_rows=(3, 2), length_rows=(0, 0, 0, 5),
        )  # fmt: skip
    return PreparedDataset(
        uri=str(tmp_path), fingerprint="f", classes=("sport", "state"), splits=splits,
        num_skipped=0, problems=(), num_words=6, num_trained_words=6, rows_per_s=1.0, clean=False,
        tokenizer="basic_english",
    )  # fmt: skip


def predictions() -> SplitPredictions:
    return SplitPredictions(
        rows=np.arange(5),
        labels=np.array([0, 1, 0, 1, 0], np.int32),
        predicted=np.array([0, 0, 0, 1, 1], np.int32),
        probability=np.array([0.9, 0.8, 0.7, 0.6, 0.95], np.float32),
        calibrated=np.array([0.8, 0.7, 0.6, 0.55, 0.85], np.float32),
    )


def test_predictions_are_kept_with_the_texts_of_mistakes(prepared, tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    keep_report_data(folder, prepared, predictions())
    table = pq.read_table(folder.inside("test_predictions.parquet")).to_pydict()
    assert table["row"] == [0, 1, 2, 3, 4]
    assert table["label"] == [0, 1, 0, 1, 0]
    assert table["predicted"] == [0, 0, 0, 1, 1]
    assert table["calibrated"] == pytest.approx([0.8, 0.7, 0.6, 0.55, 0.85])
    assert table["text"] == [None, "the vote cup", None, None, "the ball <unk>"]
    content = json.loads((tmp_path / "run" / "data.json").read_text())
    assert content["fingerprint"] == "f"
    assert content["splits"]["test"]["class_rows"] == [3, 2]
    assert content["splits"]["train"]["length_rows"] == [0, 0, 0, 5]


def test_of_many_mistakes_the_surest_have_their_texts(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("rnntune.training.report_data._MOST_MISTAKES", 1)
    folder = RunFolder(str(tmp_path / "run"))
    keep_report_data(folder, prepared, predictions())
    texts = pq.read_table(folder.inside("test_predictions.parquet"))["text"].to_pylist()
    assert texts == [None, None, None, None, "the ball <unk>"]


def test_telling_words_are_those_of_one_class():
    #          pad unk  the ball vote cup
    counts = np.array([[0, 90, 900, 200, 2, 9], [0, 90, 900, 2, 200, 9]])
    assert telling_words(counts) == [[3], [4]]


def test_equal_classes_have_no_telling_words():
    assert telling_words(np.full((3, 50), 100)) == [[], [], []]


def test_sets_of_labels_are_kept_as_lists(prepared, tmp_path):
    for split in prepared.splits.values():
        for number, file in enumerate(split.files):
            labels = np.array([[1, 0], [1, 1], [0, 0]][: 3 - number], np.uint8)
            ids = np.array([[2, 3, 1], [2, 4, 5], [2, 5, 5]][: 3 - number], np.int32)
            write_encoded(
                file,
                EncodedRows(ids=ids.ravel(), lengths=np.full(len(ids), 3, np.int32), labels=labels),
            )
    given = np.array([[1, 0], [0, 1], [0, 0], [1, 0], [1, 1]], bool)
    labels = np.array([[1, 0], [1, 1], [0, 0], [1, 0], [1, 1]], bool)
    found = dataclasses.replace(predictions(), labels=labels, predicted=given)
    folder = RunFolder(str(tmp_path / "run"))
    keep_report_data(folder, prepared, found)
    table = pq.read_table(folder.inside("test_predictions.parquet")).to_pydict()
    assert table["label"] == [[0], [0, 1], [], [0], [0, 1]]
    assert table["predicted"] == [[0], [1], [], [0], [0, 1]]
    assert table["text"] == [None, "the vote cup", None, None, None]
    counts = _counts(read_encoded(prepared.splits["train"].files[0]), 6, 2)
    assert counts.tolist() == [[0, 1, 2, 1, 1, 1], [0, 0, 1, 0, 1, 1]]
