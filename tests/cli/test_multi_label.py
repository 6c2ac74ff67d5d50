"""Rows of several labels from `train` to `predict`, in this process."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from models import write_random_model

import rnntune
from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.data.task import Task

TOPICS = {"food": ("soup", "bread", "rice"), "sport": ("goal", "match"), "art": ("film", "song")}
SHARES = {"food": 0.5, "sport": 0.35, "art": 0.15}


def rows(num_rows: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(num_rows):
        labels = [name for name in TOPICS if random.random() < SHARES[name]]
        words = [f"w{n}" for n in random.integers(0, 40, 4)] + [f"row{number % 50}"]
        words += [str(random.choice(TOPICS[name])) for name in labels]
        found.append((" ".join(random.permutation(words)), labels))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on synthetic rows; gives its folder and the file of its rows."""
    folder = tmp_path_factory.mktemp("multi_label")
    file = folder / "rows.jsonl"
    lines = [json.dumps({"text": text, "labels": labels}) for text, labels in rows(900)]
    file.write_text("\n".join(lines))
    config = Config.load(
        None,
        {
            "data.source": str(file), "data.cache_dir": str(folder / "cache"),
            "output": str(folder / "run"), "train.epochs": 4, "train.learning_rate": 0.01,
            "model.embedding_dim": 16, "model.hidden_size": 16, "model.ngrams": 2,
            "model.ngram_buckets": 1024, "model.letter_buckets": 0, "train.num_threads": 1,
            "train.trackers": (),
        },
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnntune.training.api.runs_locally", lambda _: True)
        rnntune.train(config)
    return folder / "run", file


def test_a_run_learns_sets_of_labels(run):
    folder, _ = run
    result = json.loads((folder / "result.json").read_text())
    assert result["test_micro_f1"] > 0.93
    assert result["test_macro_f1"] > 0.9
    assert result["validation_micro_f1"] > 0.93
    assert 0.8 < result["test_accuracy"] <= 1
    assert result["auto"]["train.metric"][0] == "validation_micro_f1"
    model = rnntune.load(str(folder))
    assert model.description.task is Task.MULTI_LABEL
    assert len(model.thresholds) == 3
    assert model.description.temperature == result["temperature"]
    assert result["temperature"] != 1
    assert result["validation_calibration_error"] < 0.05
    assert model.predict(["soup goal", "w1 w2", "film"]) == [["food", "sport"], [], ["art"]]
    assert model.predict_proba(["soup goal"]).sum() > 1.5  # each by itself


def test_the_command_line_predicts_sets(run, tmp_path, capsys):
    folder, file = run
    capsys.readouterr()
    assert main(["predict", str(folder), "soup goal", "w1 w2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    labels, probabilities, text = first.split("\t")
    assert (labels, text) == ("food|sport", "soup goal")
    assert all(float(each) > 0.5 for each in probabilities.split("|"))
    assert second == "\t\tw1 w2"
    assert main(["predict", str(folder), "--json", "soup"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["food"]

    output = {}
    for form in ("csv", "jsonl", "parquet"):
        target = tmp_path / form
        argv = ["predict", str(folder), "--input", str(file), "--output", str(target)]
        assert main([*argv, "--format", form, "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)
        output[form] = next(target.glob(f"*.{form}"))
    found = [json.loads(line) for line in output["jsonl"].read_text().splitlines()]
    cells = list(csv.DictReader(output["csv"].open()))
    assert [each["predicted"].split("|") for each in cells] == [
        each["predicted"] or [""] for each in found
    ]
    assert all(len(each["predicted"]) == len(each["probability"]) for each in found)
    right = [set(each["predicted"]) == set(each["labels"]) for each in found]
    assert np.mean(right) > 0.9
    assert summary["class_rows"]["food"] == sum("food" in each["predicted"] for each in found)


def test_evaluate_gives_scores_of_sets(run, tmp_path, capsys):
    folder, file = run
    own = rnntune.evaluate(str(folder), None)
    result = json.loads((folder / "result.json").read_text())
    for name in ("accuracy", "micro_f1", "macro_f1"):
        assert getattr(own, name) == pytest.approx(result[f"test_{name}"])
    errors = tmp_path / "errors.jsonl"
    capsys.readouterr()
    argv = ["evaluate", str(folder), "--data", str(file), "--errors", str(errors)]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "micro F1" in shown
    assert "all labels right" in shown
    assert main([*argv, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    model = rnntune.load(str(folder))
    texts, labels = zip(*rows(900), strict=True)
    given = model.predict(texts)
    wrong = [set(one) != set(other) for one, other in zip(given, labels, strict=True)]
    assert scores["accuracy"] == pytest.approx(1 - np.mean(wrong))
    kept = [json.loads(line) for line in errors.read_text().splitlines()]
    assert len(kept) == sum(wrong)
    for each in kept:
        missed, added = set(each["missed"]), set(each["added"])
        assert set(each["label"]) - missed | added == set(each["predicted"])
        assert missed | added
    support = {each["name"]: each["support"] for each in scores["classes"]}
    assert support == {name: sum(name in each for each in labels) for name in TOPICS}


def test_without_a_mistake_the_file_of_errors_is_empty(run, tmp_path):
    folder, _ = run
    right = tmp_path / "a.jsonl"
    text, errors = "soup goal", str(tmp_path / "errors.csv")
    right.write_text(json.dumps({"text": text, "labels": ["food", "sport"]}) + "\n")
    found = rnntune.evaluate(str(folder), rnntune.DataConfig(source=str(right)), errors=errors)
    assert found.accuracy == found.micro_f1 == 1
    assert Path(errors).read_text() == ""


def test_what_a_model_cannot_score_is_refused(run, tmp_path, capsys):
    folder, _ = run
    unknown = tmp_path / "a.jsonl"
    unknown.write_text('{"text": "x", "labels": ["food", "new"]}\n')
    assert main(["evaluate", str(folder), "--data", str(unknown)]) == 2
    assert "row 1: label 'new' is none of the model's classes" in capsys.readouterr().err
    single = tmp_path / "b.csv"
    single.write_text("text,labels\nsoup goal,food\nw1,\n")
    found = rnntune.evaluate(str(folder), rnntune.DataConfig(source=str(single)))
    assert found.rows == 2
    assert main(["train", "--data", str(single), "--train.metric", "validation_micro_f1"]) == 2


def test_other_columns_than_the_model_was_trained_on_are_scored(tmp_path, capsys):
    classes = ("food", "sport")
    model = write_random_model(
        tmp_path / "model", classes=classes, task=Task.MULTI_LABEL, thresholds=(0.5, 0.5),
        label_column=classes,
    )  # fmt: skip
    (tmp_path / "a.csv").write_text("text,food,sport\nthe cup,1,0\nchips,0,0\n")
    (tmp_path / "b.csv").write_text("text,label\nthe cup,food\nchips,\n")
    scores = []
    for name, more in (("a.csv", []), ("b.csv", ["--data.label_delimiter", "|"])):
        assert main(["evaluate", model, "--json", "--data", str(tmp_path / name), *more]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    split = write_random_model(
        tmp_path / "split", classes=classes, task=Task.MULTI_LABEL, thresholds=(0.5, 0.5),
        label_delimiter="|",
    )  # fmt: skip
    lists = [("the cup", ["food"]), ("chips", [])]
    lines = [json.dumps({"text": text, "label": labels}) for text, labels in lists]
    (tmp_path / "lists.jsonl").write_text("\n".join(lines))
    for name in ("b.csv", "lists.jsonl"):
        assert main(["evaluate", split, "--json", "--data", str(tmp_path / name)]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert all(each == scores[0] for each in scores)
    argv = ["evaluate", model, "--data", str(tmp_path / "b.csv"), "--data.multi_label", "false"]
    assert main(argv) == 2
    assert "data.multi_label is false, but the model gives sets" in capsys.readouterr().err
    single = write_random_model(tmp_path / "single", classes=classes)
    (tmp_path / "c.jsonl").write_text('{"text": "x", "label": ["food"]}\n')
    assert main(["evaluate", single, "--data", str(tmp_path / "c.jsonl")]) == 2
    assert "rows of several labels, but the model gives one a row" in capsys.readouterr().err


def test_the_page_and_the_card_show_each_class(run):
    folder, _ = run
    from rnntune.report.page import write_report

    text = Path(write_report([str(folder)])).read_text()
    for shown in ("Scores of each class", "all labels right", "micro F1", "Micro F1 by epoch"):
        assert shown in text
    assert "Confusion matrix" not in text
    text = Path(write_report([str(folder), str(folder)], str(folder / "two.html"))).read_text()
    assert "validation micro f1" in text.lower()
    card = (folder / "model" / "README.md").read_text()
    assert "calibration error, validation rows" in card
    assert "into sets of 3 classes" in card
    assert "| all labels right, " in card


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_an_export_predicts_the_same_sets(run, tmp_path, quantize):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `export`)")
    pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra `export`)")
    from rnntune.inference.export import export_model

    folder, _ = run
    done = export_model(str(folder), str(tmp_path / "export"), quantize=quantize)
    assert done.checks["equal_labels"] >= (1 if quantize is None else 0.99)
    model, export = rnntune.load(str(folder)), rnntune.load(done.output)
    assert export.thresholds == model.thresholds
    texts = [text for text, _ in rows(200, seed=3)]
    expected = model.predict_proba(texts)
    np.testing.assert_allclose(
        export.predict_proba(texts), expected, atol=1e-5 if quantize is None else 0.1
    )
    if quantize is None:
        assert export.predict(texts) == model.predict(texts)
        readme = (tmp_path / "export" / "README.md").read_text()
        code = readme.split("```python\n")[1].split("```")[0]
        code = code.replace('"Stocks fall as oil hits a record"', '"soup goal"')
        shown: list[object] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path / "export")
            exec(code, {"print": shown.append})
        assert shown[0][0] == ["food", "sport"]
