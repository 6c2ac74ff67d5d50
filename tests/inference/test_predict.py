import csv
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from models import CLASSES, texts, write_random_model

from rnntune.data.formats.schema import BLOCK_ROWS
from rnntune.errors import ConfigError, DataError, RnntuneError, RunError, StorageError
from rnntune.inference.classifier import load
from rnntune.inference.predict import predict_files

NUM_ROWS = 2 * BLOCK_ROWS + 500
ADDED = ["predicted", "probability", *[f"probability_{name}" for name in CLASSES]]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return write_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def classifier(model):
    return load(model)


def write_csv(path: Path, rows) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def write_jsonl(path: Path, rows) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


# --- In this process ---------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_a_batch_equals_its_rows_one_by_one(tmp_path, packed, cell, pooling):
    network = {"packed": packed, "cell": cell, "pooling": pooling}
    classifier = load(write_random_model(tmp_path, model=network))
    rows = texts(60)
    together = classifier.predict_proba(rows)
    alone = np.concatenate([classifier.predict_proba([text]) for text in rows])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    assert len(np.unique(together.round(4), axis=0)) > 20


def test_order_is_kept(classifier):
    rows = texts(700)
    shuffled = np.random.default_rng(0).permutation(700)
    together = classifier.predict_proba(rows)
    other = classifier.predict_proba([rows[i] for i in shuffled])
    np.testing.assert_allclose(other, together[shuffled], atol=2e-6)


def test_probabilities_and_classes(classifier):
    probabilities = classifier.predict_proba(texts(50))
    assert probabilities.shape == (50, 4)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert classifier.classes == CLASSES
    predicted = classifier.predict(texts(50))
    assert predicted == [CLASSES[i] for i in probabilities.argmax(axis=1)]
    assert len(set(predicted)) > 1


def test_no_texts(classifier):
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, 4)
    assert classifier.predict_proba([]).dtype == np.float32


def test_texts_without_a_known_word_are_one_unknown_word(classifier):
    found = classifier.predict_proba(["", "   \n", "zebra", "\ud800", "the"])
    np.testing.assert_allclose(found[:4], np.tile(found[0], (4, 1)), atol=2e-6)
    assert not np.allclose(found[4], found[0], atol=1e-3)


def test_long_texts_are_cut(classifier):
    long = " ".join(texts(30))
    cut = " ".join(long.split()[:12])
    np.testing.assert_allclose(
        classifier.predict_proba([long]), classifier.predict_proba([cut]), atol=2e-6
    )


def test_cleaning_is_that_of_the_model(tmp_path):
    dirty, tidy = "the cup\\final &lt;b&gt; talks #39; chips", "the cup final talks ' chips"
    for clean in (True, False):
        classifier = load(write_random_model(tmp_path / str(clean), clean=clean))
        found = classifier.predict_proba([dirty, tidy])
        assert np.allclose(found[0], found[1], atol=2e-6) is clean


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("the cup", "a sequence of strings, not one string"),
        (["the cup", None], r"texts\[1\] is not a string but None"),
        ([b"the cup"], r"texts\[0\] is not a string but b'the cup'"),
    ],
)
def test_not_texts(classifier, given, message):
    with pytest.raises(DataError, match=message):
        classifier.predict(given)


def test_threads_share_a_classifier(classifier):
    rows = texts(300)
    expected = classifier.predict(rows)
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(classifier.predict(rows))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


# --- Models that cannot be used ----------------------------------------------------------


def cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_weights(tmp_path, part):
    uri = write_random_model(tmp_path)
    cut(tmp_path / "model.safetensors", part)
    with pytest.raises(RunError, match=r"model\.safetensors is truncated or damaged"):
        load(uri)


@pytest.mark.parametrize("part", [0.4, 0.5])
def test_truncated_vocabulary(tmp_path, part):
    uri = write_random_model(tmp_path)
    cut(tmp_path / "vocab.txt", part)
    with pytest.raises(RnntuneError, match=r"vocab"):
        load(uri)


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.yaml"])
def test_missing_file(tmp_path, name):
    uri = write_random_model(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(RnntuneError, match=name):
        load(uri)


def test_bytes_that_are_not_text(tmp_path):
    uri = write_random_model(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"<pad>\n<unk>\n\xff\n")
    with pytest.raises(StorageError, match=r"vocab\.txt: not UTF-8"):
        load(uri)


# --- Files -------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize("num_workers", [1, 2])
def test_all_rows_and_columns_in_order(model, classifier, ray_session, tmp_path, num_workers):
    rows = texts(NUM_ROWS)
    uri = str(tmp_path / "rows.parquet")
    numbers = pa.array(range(NUM_ROWS), pa.int16())
    pq.write_table(pa.table({"number": numbers, "text": rows, "nested": [[1]] * NUM_ROWS}), uri)
    output = tmp_path / "out"
    summary = predict_files(model, [uri], str(output), num_workers=num_workers)
    found = pq.read_table(output)
    assert found.column_names == ["file", "row", "number", "text", "nested", *ADDED]
    assert found["number"].combine_chunks().equals(numbers)
    assert found["text"].to_pylist() == rows
    assert found["row"].to_pylist() == list(range(1, NUM_ROWS + 1))
    assert set(found["file"].to_pylist()) == {uri}
    expected = classifier.predict_proba(rows)
    each = np.stack([found[f"probability_{name}"].to_numpy() for name in CLASSES], axis=1)
    np.testing.assert_allclose(each, expected, atol=2e-6)
    np.testing.assert_array_equal(found["probability"].to_numpy(), each.max(axis=1))
    assert found["predicted"].to_pylist() == classifier.predict(rows)
    assert (summary.rows, summary.without_text, summary.renamed) == (NUM_ROWS, 0, {})
    assert sum(summary.class_rows.values()) == NUM_ROWS
    assert len(summary.files) == 3
    assert sorted(path.name for path in output.iterdir()) == ["_complete.json", *summary.files]
    assert json.loads((output / "_complete.json").read_text()) == summary.to_dict()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


@pytest.mark.ray
def test_json_lines(model, classifier, ray_session, tmp_path):
    uri = write_csv(tmp_path / "rows.csv", [("id", "text"), ("7", "the cüp"), ("8", "")])
    output = tmp_path / "out"
    summary = predict_files(model, [uri], str(output), format="jsonl")
    lines = (output / summary.files[0]).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [list(row) for row in rows] == [["file", "row", "id", "text", *ADDED]] * 2
    assert [row["id"] for row in rows] == ["7", "8"]
    assert "the cüp" in lines[0]
    assert [row["predicted"] for row in rows] == classifier.predict(["the cüp", ""])
    assert all(row["probability"] == row[f"probability_{row['predicted']}"] for row in rows)


@pytest.mark.ray
def test_json_lines_of_numbers_that_json_lacks(model, ray_session, tmp_path):
    uri = str(tmp_path / "rows.parquet")
    pq.write_table(
        pa.table(
            {"text": ["the", "cup"], "x": [float("nan"), 1.5], "day": pa.array([0, 1], pa.date32())}
        ),
        uri,
    )
    summary = predict_files(model, [uri], str(tmp_path / "out"), format="jsonl")
    rows = [
        json.loads(line) for line in (tmp_path / "out" / summary.files[0]).read_text().splitlines()
    ]
    assert [(row["x"], row["day"]) for row in rows] == [(None, "1970-01-01"), (1.5, "1970-01-02")]


@pytest.mark.ray
def test_ag_news_form(model, classifier, ray_session, tmp_path):
    rows = [(1, "the cup", "final"), (4, "chips", "rise, fast")]
    uri = write_csv(tmp_path / "test.csv", rows)
    predict_files(model, [uri], str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out")
    assert found.column_names == ["file", "row", "label", "title", "description", *ADDED]
    expected = classifier.predict(["the cup final", "chips rise, fast"])
    assert found["predicted"].to_pylist() == expected


@pytest.mark.ray
def test_several_files_of_different_columns(model, ray_session, tmp_path):
    uris = [
        write_csv(tmp_path / "b.csv", [("text",), ("the cup",)]),
        write_jsonl(tmp_path / "a.jsonl", [{"x": None, "text": "chips"}] * BLOCK_ROWS
                    + [{"text": "talks", "x": 2.5}]),
    ]  # fmt: skip
    predict_files(model, uris, str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out")
    assert found["text"].to_pylist() == ["the cup", *["chips"] * BLOCK_ROWS, "talks"]
    assert found["x"].to_pylist() == [None] * (BLOCK_ROWS + 1) + [2.5]
    assert found["row"].to_pylist() == [1, *range(1, BLOCK_ROWS + 2)]
    schemas = {pq.read_schema(path) for path in (tmp_path / "out").glob("*.parquet")}
    assert len(schemas) == 1


@pytest.mark.ray
def test_columns_that_do_not_fit_together(model, ray_session, tmp_path):
    uris = [
        write_jsonl(tmp_path / f"{i}.jsonl", [{"text": "a", "x": x}]) for i, x in enumerate("1", 2)
    ] + [write_jsonl(tmp_path / "other.jsonl", [{"text": "a", "x": 1}])]
    with pytest.raises(DataError, match=r"2\.jsonl and .*other\.jsonl: columns do not fit .*jsonl"):
        predict_files(model, uris, str(tmp_path / "out"))
    assert not list(tmp_path.glob("out*"))
    assert predict_files(model, uris, str(tmp_path / "out"), format="jsonl").rows == 2


@pytest.mark.ray
def test_columns_whose_names_are_taken(model, ray_session, tmp_path):
    rows = [{"text": "the", "row": 70, "predicted": "x", "input_row": 71, "probability_World": 0}]
    uri = write_jsonl(tmp_path / "rows.jsonl", rows)
    summary = predict_files(model, [uri], str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out").to_pylist()[0]
    assert summary.renamed == {
        "row": "input_input_row",
        "predicted": "input_predicted",
        "probability_World": "input_probability_World",
    }
    assert (found["row"], found["input_input_row"], found["input_row"]) == (1, 70, 71)
    assert found["input_predicted"] == "x"
    assert found["predicted"] in CLASSES


@pytest.mark.ray
def test_rows_without_text_have_no_prediction(model, classifier, ray_session, tmp_path):
    rows = [{"text": t} for t in (None, "the cup", None, "", "chips fall")]
    uri = write_jsonl(tmp_path / "rows.jsonl", rows)
    summary = predict_files(model, [uri], str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out")
    first, second, third = classifier.predict(["the cup", "", "chips fall"])
    assert found["predicted"].to_pylist() == [None, first, None, second, third]
    assert found["probability"].is_null().to_pylist() == [True, False, True, False, False]
    assert (summary.rows, summary.without_text) == (5, 2)
    assert sum(summary.class_rows.values()) == 3


@pytest.mark.ray
def test_text_columns(ray_session, tmp_path):
    model = write_random_model(tmp_path / "model", text_columns=("title", "body"))
    uri = write_csv(tmp_path / "rows.csv", [("body", "title"), ("chips", "the cup")])
    predict_files(model, [uri], str(tmp_path / "a"))
    predict_files(model, [uri], str(tmp_path / "b"), text_columns=("body",))
    found = [pq.read_table(tmp_path / name)["probability"][0].as_py() for name in "ab"]
    expected = load(model).predict_proba(["the cup chips", "chips"]).max(axis=1)
    assert found == pytest.approx(expected.tolist(), abs=2e-6)


# --- What is refused ---------------------------------------------------------------------


@pytest.fixture
def uri(tmp_path) -> str:
    return write_csv(tmp_path / "rows.csv", [("text",), ("the cup",)])


@pytest.mark.ray
def test_predictions_that_are_there(model, ray_session, tmp_path, uri):
    output = tmp_path / "out"
    output.mkdir()
    predict_files(model, [uri], str(output))
    before = sorted(output.iterdir())
    with pytest.raises(RunError, match="out: predictions are there already; use --overwrite"):
        predict_files(model, [uri], str(output))
    assert sorted(output.iterdir()) == before
    predict_files(model, [uri], str(output), format="jsonl", overwrite=True)
    assert len(list(output.glob("*.jsonl"))) == 1
    assert not list(output.glob("*.parquet"))


def test_a_folder_of_something_else(model, tmp_path, uri):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not empty and holds no predictions"):
        predict_files(model, [uri], str(tmp_path / "out"), overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_output_that_holds_the_input(model, tmp_path):
    (tmp_path / "out").mkdir()
    source = write_csv(tmp_path / "out" / "part-1.csv", [("text",), ("the cup",)])
    with pytest.raises(RunError, match=r"holds what is read, .*part-1\.csv; give another"):
        predict_files(model, [source], str(tmp_path / "out"), overwrite=True)


@pytest.mark.ray
def test_a_broken_record_leaves_nothing(model, ray_session, tmp_path):
    rows = [("id", "text"), *[("1", "the cup")] * (BLOCK_ROWS + 10), ("1",)]
    source = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=rf"rows\.csv: row {BLOCK_ROWS + 11}: 1 field"):
        predict_files(model, [source], str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_missing_column(model, tmp_path):
    source = write_csv(tmp_path / "rows.csv", [("body",), ("the cup",)])
    with pytest.raises(DataError, match=r"rows\.csv: no column 'text'; its columns are body"):
        predict_files(model, [source], str(tmp_path / "out"))


@pytest.mark.ray
def test_text_that_is_no_text(model, ray_session, tmp_path):
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": 5}])
    with pytest.raises(DataError, match=r"rows\.jsonl: column text holds int64, not strings"):
        predict_files(model, [source], str(tmp_path / "out"))


def test_settings_that_cannot_be(model, tmp_path, uri):
    with pytest.raises(ConfigError, match="num_workers must be at least 1, not 0"):
        predict_files(model, [uri], str(tmp_path / "out"), num_workers=0)
    with pytest.raises(ConfigError, match="format must be parquet, jsonl or csv, not 'xml'"):
        predict_files(model, [uri], str(tmp_path / "out"), format="xml")
    with pytest.raises(DataError, match="no input files"):
        predict_files(model, [], str(tmp_path / "out"))


def test_small_files_need_no_cluster(without_ray, model, classifier, tmp_path):
    rows = texts(BLOCK_ROWS + 10)
    one = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in rows])
    two = write_csv(tmp_path / "b.csv", [["text", "id"], ["the cup final", "7"]])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done = predict_files(model, [one, two], str(tmp_path / "out"), format="jsonl")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert done.rows == len(rows) + 1
    found = [
        json.loads(line)
        for name in done.files
        for line in (tmp_path / "out" / name).read_text().splitlines()
    ]
    assert [row["predicted"] for row in found] == classifier.predict([*rows, "the cup final"])
    assert [row["row"] for row in found] == [*range(1, len(rows) + 1), 1]
    assert found[-1]["id"] == "7"
