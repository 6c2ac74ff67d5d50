import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from models import CLASSES, texts, write_random_model
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from rnntune.config.schema import DataConfig
from rnntune.data.formats.schema import BLOCK_ROWS
from rnntune.data.sources import read_blocks, resolve_source
from rnntune.errors import ConfigError, DataError, RunError
from rnntune.inference.classifier import load
from rnntune.inference.evaluate import evaluate
from rnntune.inference.metrics import MetricAccumulator

NUM_ROWS = 2 * BLOCK_ROWS + 1_000


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return write_random_model(tmp_path_factory.mktemp("model"))


def write_rows(path: Path, rows) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def labelled(num_rows: int) -> list[tuple[str, str]]:
    return [(CLASSES[row % 4], text) for row, text in enumerate(texts(num_rows))]


# --- Scores, without a cluster -----------------------------------------------------------


def block(probabilities, labels, problems=None) -> pa.Table:
    num_rows = len(labels)
    return pa.table(
        {
            "file": ["f.csv"] * num_rows,
            "row": pa.array(range(1, num_rows + 1), pa.int64()),
            "text": [f"text {row}" for row in range(num_rows)],
            "problem": pa.array(problems or [None] * num_rows, pa.string()),
            "label": pa.array(labels, pa.int32()),
            "probabilities": pa.array(probabilities, pa.list_(pa.float32())),
        }
    )


def test_scores_are_those_of_all_rows_at_once():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 500)
    probabilities = random.dirichlet([0.5, 0.5, 0.5], 500).astype(np.float32)
    tally = MetricAccumulator("abc", "error", keep_errors=False)
    for start, end in ((0, 10), (10, 400), (400, 500)):
        tally.add(block(probabilities[start:end].tolist(), labels[start:end].tolist()))
    found = tally.evaluation("here")
    given = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, given)
    assert found.rows == 500
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, given))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, given, average="macro"))
    assert found.loss == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-4)
    assert [scores.precision for scores in found.classes] == pytest.approx(precision)
    assert [scores.recall for scores in found.classes] == pytest.approx(recall)
    assert [scores.f1 for scores in found.classes] == pytest.approx(f1)
    assert [scores.support for scores in found.classes] == support.tolist()
    assert np.array(found.confusion).tolist() == metrics.confusion_matrix(labels, given).tolist()
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), 3, n_bins=15
    )
    assert found.expected_calibration_error == pytest.approx(float(expected))


def test_calibration_error_of_a_known_case():
    tally = MetricAccumulator("ab", "error", keep_errors=False)
    tally.add(block([[0.9, 0.1]] * 4, [0, 0, 1, 1]))
    assert tally.evaluation("here").expected_calibration_error == pytest.approx(0.4)


def test_a_class_without_rows_or_predictions_scores_zero():
    tally = MetricAccumulator("abc", "error", keep_errors=False)
    tally.add(block([[0.8, 0.2, 0.0], [0.7, 0.3, 0.0]], [0, 1]))
    third = tally.evaluation("here").classes[2]
    assert (third.precision, third.recall, third.f1, third.support) == (0, 0, 0, 0)


def test_of_very_many_errors_the_surest_are_kept(monkeypatch):
    """So that the misclassified rows of a large file do not fill the driver's memory."""
    monkeypatch.setattr("rnntune.inference.scored_rows.MOST_ERRORS", 3)
    tally = MetricAccumulator("ab", "error", keep_errors=True)
    sure = np.array([0.6, 0.9, 0.7, 0.8, 0.95, 0.65, 0.99, 0.55, 0.85])
    for row, probability in enumerate(sure):
        one = block([[1 - probability, probability]], [0])
        tally.add(one.set_column(1, "row", pa.array([row])))
        assert sum(table.num_rows for table in tally._errors) <= 6
    assert tally.num_errors == 9
    assert [error["row"] for error in tally.errors()] == [6, 4, 1]


def test_no_row_to_score():
    tally = MetricAccumulator("ab", "skip", keep_errors=False)
    tally.add(block([[]], [-1], ["label is empty"]))
    with pytest.raises(DataError, match=r"here: no row .*f\.csv: row 1: label is empty"):
        tally.evaluation("here")


def test_scores_as_json():
    tally = MetricAccumulator(["[bold]x", "y"], "error", keep_errors=False)
    tally.add(block([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1]))
    tree = json.loads(json.dumps(tally.evaluation("here").to_dict()))
    assert tree["rows"] == 3
    assert tree["confusion"] == [[1, 0], [1, 1]]
    assert tree["classes"][0]["name"] == "[bold]x"
    assert tree["classes"][1]["recall"] == 0.5


# --- Rows of files -----------------------------------------------------------------------


@pytest.mark.ray
def test_every_row_once_whatever_the_number_of_workers(model, ray_session, tmp_path):
    rows = labelled(NUM_ROWS)
    data = DataConfig(source=write_rows(tmp_path / "rows.csv", [("label", "text"), *rows]))
    found = {
        workers: evaluate(
            model, data, num_workers=workers, errors=str(tmp_path / f"{workers}.jsonl")
        )
        for workers in (1, 2, None)
    }
    assert found[1] == found[2] == found[None]
    assert found[1].rows == NUM_ROWS
    assert sum(map(sum, found[1].confusion)) == NUM_ROWS
    assert [scores.support for scores in found[1].classes] == [
        sum(label == name for label, _ in rows) for name in CLASSES
    ]
    given = load(model).predict([text for _, text in rows])
    right = [label == name for (label, _), name in zip(rows, given, strict=True)]
    assert found[1].accuracy == pytest.approx(np.mean(right))
    errors = [json.loads(line) for line in (tmp_path / "1.jsonl").read_text().splitlines()]
    assert sorted(error["row"] for error in errors) == [
        number for number, is_right in enumerate(right, start=1) if not is_right
    ]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


@pytest.mark.ray
def test_errors_file_has_the_surest_first(model, ray_session, tmp_path):
    rows = labelled(40)
    rows[3] = (rows[3][0], 'a "quoted", text\nof two lines')
    source = write_rows(tmp_path / "rows.csv", [("label", "text"), *rows])
    uri = tmp_path / "errors.csv"
    evaluate(model, DataConfig(source=source), errors=str(uri))
    with uri.open(newline="", encoding="utf-8") as file:
        errors = list(csv.DictReader(file))
    surest = [float(error["probability"]) for error in errors]
    assert len(surest) > 5
    assert surest == sorted(surest, reverse=True)
    assert len(set(surest)) > 5
    expected = load(model).predict_proba([text for _, text in rows])
    for error in errors:
        row = int(error["row"]) - 1
        assert error["file"] == source
        assert (error["label"], error["text"]) == rows[row]
        assert error["predicted"] == CLASSES[expected[row].argmax()]
        assert error["predicted"] != error["label"]
        found = [float(error[f"probability_{name}"]) for name in CLASSES]
        assert found == pytest.approx(expected[row].tolist(), abs=2e-6)
        assert float(error["probability"]) == max(found)


@pytest.mark.ray
def test_errors_file_of_a_model_without_errors(model, ray_session, tmp_path):
    given = load(model).predict(texts(5))
    rows = [("label", "text"), *zip(given, texts(5), strict=True)]
    source = write_rows(tmp_path / "rows.csv", rows)
    found = evaluate(model, DataConfig(source=source), errors=str(tmp_path / "errors.csv"))
    assert found.accuracy == 1
    assert (tmp_path / "errors.csv").read_text() == ""


def test_errors_file_of_another_form(model, tmp_path):
    with pytest.raises(ConfigError, match=r"errors: .*\.csv or \.jsonl, .*errors\.txt"):
        evaluate(model, DataConfig(), errors=str(tmp_path / "errors.txt"))


def test_no_workers(model):
    with pytest.raises(ConfigError, match="num_workers must be at least 1, not 0"):
        evaluate(model, DataConfig(), num_workers=0)


def test_no_model(tmp_path):
    with pytest.raises(RunError, match="no model here"):
        evaluate(str(tmp_path), DataConfig())


@pytest.mark.ray
def test_splits_of_a_folder_in_ag_news_form(model, ray_session, tmp_path):
    for name, num_rows in (("train", 30), ("test", 20)):
        write_rows(
            tmp_path / f"{name}.csv",
            [(1 + row % 4, text, "the cup") for row, text in enumerate(texts(num_rows))],
        )
    data = DataConfig(source=str(tmp_path))
    rows = {split: evaluate(model, data, split=split).rows for split in ("test", "train", "all")}
    assert rows == {"test": 20, "train": 30, "all": 50}
    found = evaluate(model, data)
    given = load(model).predict([f"{text} the cup" for text in texts(20)])
    right = [CLASSES[row % 4] == name for row, name in enumerate(given)]
    assert found.accuracy == pytest.approx(np.mean(right))
    assert evaluate(model, dataclasses.replace(data, source=f"{tmp_path}/test.csv")) == found


@pytest.mark.ray
def test_classes_of_ag_news_form_go_by_name(model, ray_session, tmp_path):
    given = load(model).predict(texts(8))
    names = sorted(CLASSES)
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    rows = [(1 + names.index(name), text, "") for name, text in zip(given, texts(8), strict=True)]
    source = write_rows(tmp_path / "test.csv", rows)
    assert evaluate(model, DataConfig(source=source)).accuracy == 1


@pytest.mark.ray
def test_columns_are_those_of_the_model(ray_session, tmp_path):
    model = write_random_model(
        tmp_path / "model", text_columns=("title", "body"), label_column="topic"
    )
    rows = [("body", "topic", "title"), *[(text, "World", "the cup") for text in texts(10)]]
    source = write_rows(tmp_path / "rows.csv", rows)
    given = load(model).predict([f"the cup {text}" for text in texts(10)])
    found = evaluate(model, DataConfig(source=source))
    assert found.accuracy == given.count("World") / 10
    assert 0 < found.accuracy < 1
    other = DataConfig(source=source, text_columns=("body",))
    given = load(model).predict(texts(10))
    assert evaluate(model, other).accuracy == given.count("World") / 10


@pytest.mark.ray
def test_bad_rows(model, ray_session, tmp_path):
    rows: list[tuple[str, ...]] = [("label", "text"), *labelled(BLOCK_ROWS + 50)]
    rows[11] = ("Weather", "rain")
    rows[13] = ("World",)
    rows[-1] = ("", "the cup")
    source = write_rows(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError) as caught:
        evaluate(model, DataConfig(source=source))
    assert str(caught.value) == (
        f"{source}: row 11: label 'Weather' is none of the model's classes (World, Sports, "
        "Business, Sci/Tech); data.on_bad_rows: skip leaves such rows out"
    )
    found = evaluate(model, DataConfig(source=source, on_bad_rows="skip"))
    assert (found.rows, found.skipped) == (BLOCK_ROWS + 47, 3)
    assert [problem.split(": ")[1] for problem in found.problems] == [
        "row 11",
        "row 13",
        "row 8242",
    ]


@pytest.mark.ray
def test_missing_column(model, ray_session, tmp_path):
    source = write_rows(tmp_path / "rows.csv", [("colour", "text"), ("World", "the cup")])
    with pytest.raises(DataError, match=r"rows\.csv: no column 'label'; its columns are colour"):
        evaluate(model, DataConfig(source=source))


@pytest.mark.ray
def test_a_trained_model_scores_what_its_run_says(sample_run):
    found = evaluate(sample_run.uri, DataConfig(), num_workers=2)
    assert found.rows == sample_run.result["test_rows"] == 1_000
    assert found.accuracy == sample_run.result["test_accuracy"]
    assert found.macro_f1 == pytest.approx(sample_run.result["test_macro_f1"])
    source = resolve_source(DataConfig())
    rows = pa.concat_tables(read_blocks(source, "sample:test"))
    given = load(sample_run.uri).predict(rows["text"].to_pylist())
    assert evaluate(sample_run.uri, None) == found
    right = np.array(given) == np.array(rows["label"].to_pylist())
    assert found.accuracy == pytest.approx(right.mean())


def test_small_files_need_no_cluster(without_ray, model, tmp_path):
    rows = labelled(BLOCK_ROWS + 10)
    path = write_rows(tmp_path / "rows.csv", [("label", "text"), *rows])
    found = evaluate(model, DataConfig(source=path), split="all")
    classifier = load(model)
    given = classifier.predict([text for _, text in rows])
    assert found.rows == len(rows)
    assert found.accuracy == pytest.approx(np.mean([label for label, _ in rows] == np.array(given)))
    bad = write_rows(tmp_path / "bad.csv", [("label", "text"), *rows[:2], ("none", "x")])
    with pytest.raises(DataError, match="row 3: label 'none'"):
        evaluate(model, DataConfig(source=bad), split="all")
