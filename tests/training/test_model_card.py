import dataclasses

from rnntune.config.load import Config
from rnntune.data.prepared import PreparedDataset, Split
from rnntune.data.task import Task
from rnntune.training.model_card import model_card

RESULT = {
    "test_accuracy": 0.9,
    "test_macro_f1": 0.85,
    "test_rows": 1000,
    "validation_accuracy": 0.92,
    "temperature": 1.25,
    "validation_calibration_error": 0.01,
    "validation_calibration_error_before": 0.05,
    "warnings": ["texts were cut"],
}
RESOLVED = Config().override({"data.max_length": 256})


def _split(*class_rows: int) -> Split:
    fields = {field.name: 0 for field in dataclasses.fields(Split)}
    return Split(**{**fields, "num_rows": sum(class_rows), "class_rows": class_rows})


def _prepared(*classes: str) -> PreparedDataset:
    fields = {field.name: None for field in dataclasses.fields(PreparedDataset)}
    rows = range(10, 10 + len(classes))
    splits = {name: _split(*rows) for name in ("train", "validation", "test")}
    changed = {"classes": classes, "splits": splits, "num_words": 5000, "task": Task.SINGLE_LABEL}
    return PreparedDataset(**{**fields, **changed})


def test_a_card_holds_scores_data_limits_and_settings():
    source = "s3://KEY:SECRET@bucket/mine.csv"
    config = Config().override({"data.max_length": 77})
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))
    text = model_card(config, _prepared("World", "Sport | <b>"), RESULT)
    assert "| accuracy, 1,000 test rows | 0.9000 | 0.8798 to 0.9171 |" in text
    assert "| the same before scaling by the temperature 1.25 | 0.0500 | |" in text
    assert "| World | 10 | 10 | 10 |" in text
    assert "| Sport \\| \\<b\\> | 11 | 11 | 11 |" in text
    assert "The first 77 tokens of a text are read" in text
    assert "- texts were cut" in text
    assert "model.cell: lstm" in text
    assert "Source: s3://bucket/mine.csv; 5,000 words" in text
    assert "SECRET" not in text


def test_many_classes_are_cut():
    text = model_card(RESOLVED, _prepared(*(f"c{n}" for n in range(130))), RESULT)
    assert "| c99 |" in text
    assert "| c100 |" not in text
    assert "| and 30 more | | | |" in text


def test_a_run_without_validation_rows_has_a_card():
    result = {**RESULT, "validation_accuracy": None, "validation_calibration_error": None}
    text = model_card(RESOLVED, _prepared("a", "b"), result)
    assert "accuracy, validation rows" not in text
    assert "calibration error" not in text


def test_an_ensemble_names_its_networks():
    members = [{"trial": 3, "weight": 9}, {"trial": 1, "weight": 2}]
    text = model_card(RESOLVED, _prepared("a", "b"), {**RESULT, "ensemble": {"members": members}})
    assert "weighted mean of 2 networks, of trials 3 (9), 1 (2)" in text
    distilled = {**RESULT, "ensemble": {"members": members}, "distilled": {}}
    text = model_card(RESOLVED, _prepared("a", "b"), distilled)
    assert "learned from an ensemble" in text
    assert "weighted mean" not in text
