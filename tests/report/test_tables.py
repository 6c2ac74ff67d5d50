import io
import re

import pytest
from rich.console import Console

from rnntune.inference.metrics import ClassScores, Evaluation
from rnntune.report.evaluation_table import confused_pairs, evaluation_table
from rnntune.report.tables import data_table, interval, run_table

SEVERAL = [f"banking class {number}" for number in range(77)]


def drawn(renderable, width=80) -> list[str]:
    console = Console(
        width=width, file=io.StringIO(), record=True, soft_wrap=True, markup=False, emoji=False
    )
    console.print(renderable)
    return console.export_text().splitlines()


def evaluation(names, wrong=()) -> Evaluation:
    confusion = [[0] * len(names) for _ in names]
    for number in range(len(names)):
        confusion[number][number] = 1_234
    for label, predicted, rows in wrong:
        confusion[label][predicted] = rows
    return Evaluation(
        rows=sum(map(sum, confusion)), skipped=0, problems=(), accuracy=0.98765, macro_f1=0.9,
        loss=0.12345, expected_calibration_error=0.0123,
        classes=tuple(
            ClassScores(name=name, precision=0.9, recall=0.8, f1=number / len(names), support=1_234)
            for number, name in enumerate(names)
        ),
        confusion=tuple(map(tuple, confusion)),
    )  # fmt: skip


def found(classes) -> dict:
    split = {
        "rows": 62_744, "tokens": 2_687_123, "coverage": 0.97123, "cut": 12, "length_mean": 42.83,
        "length_p99": 88, "length_max": 256,
        "classes": {name: 10 * number for number, name in enumerate(classes)},
    }  # fmt: skip
    return {
        "uri": f"/cache/{'0123456789' * 9}", "from_cache": True, "num_skipped": 3,
        "num_words": 61_234, "padding_fraction": 0.0123, "num_batches": 981,
        "splits": dict.fromkeys(("train", "validation", "test"), split),
    }  # fmt: skip


@pytest.mark.parametrize("classes", [["World", "Sports"], SEVERAL])
def test_what_was_prepared_fits_80_columns(classes):
    lines = drawn(data_table(found(classes)))
    text = "\n".join(lines)
    assert all(len(line) <= 80 for line in lines[:-1])
    assert "…" not in text
    for whole in ("validation", "2,687,123", "97.12%", "known tokens", "42.8"):
        assert whole in text
    assert lines[-1] == f"/cache/{'0123456789' * 9} (from the cache)"
    assert len(lines) < 50


def test_of_many_classes_the_largest_and_the_smallest_are_shown():
    text = "\n".join(drawn(data_table(found(SEVERAL))))
    assert "... 57 more classes ..." in text
    assert re.search(r"class 76 +│ +760 ", text)
    assert re.search(r"class 0 +│ +0 ", text)
    assert "class 40" not in text


def test_a_confusion_matrix_where_it_fits():
    names = ["World", "Sports", "Business", "Sci/Tech"]
    text = "\n".join(drawn(evaluation_table(evaluation(names, [(0, 1, 56)]))))
    assert "class / predicted" in text
    assert "taken for" not in text
    for whole in ("1,234", "0.9877", "precision"):
        assert whole in text


@pytest.mark.parametrize("width", [80, 120])
def test_pairs_of_classes_where_the_matrix_does_not_fit(width):
    wrong = [(3, 7, 40), (7, 3, 41), (5, 6, 2)]
    lines = drawn(evaluation_table(evaluation(SEVERAL, wrong)), width)
    text = "\n".join(lines)
    assert all(len(line) <= width for line in lines)
    assert "…" not in text
    assert "class / predicted" not in text
    pairs = re.findall(r"class (\d+) *│ banking class (\d+) *│ *(\d+)", text)
    assert pairs == [("7", "3", "41"), ("3", "7", "40"), ("5", "6", "2")]
    assert "the 30 of 77 classes with the lowest F1" in text


def test_a_matrix_of_few_classes_with_long_names_is_too_wide():
    names = [f"{'long ' * 6}{number}" for number in range(4)]
    text = "\n".join(drawn(evaluation_table(evaluation(names, [(0, 1, 5)]))))
    assert "taken for" in text
    assert "no class was taken" in "\n".join(drawn(evaluation_table(evaluation(names))))


def test_confused_pairs_have_the_share_of_their_class():
    pairs = confused_pairs("ab", [[6, 2], [1, 9]], 10)
    assert [(p.name, p.predicted, p.rows, p.share) for p in pairs] == [
        ("a", "b", 2, 0.25),
        ("b", "a", 1, 0.1),
    ]


def test_labels_are_inert():
    names = ["[/a]", "[bold]x\x1b[31m", ":smile:"]
    text = "\n".join(drawn(evaluation_table(evaluation(names))))
    assert "\x1b" not in text
    assert text.count("[bold]x\\x1b[31m") == 3
    assert text.count("[/a]") == 3
    assert ":smile:" in text
    text = "\n".join(drawn(data_table(found(names))))
    assert "[bold]x\\x1b[31m" in text


def test_a_result_says_where_model_and_page_are_in_lines_of_their_own():
    uri = f"/runs/{'x' * 100}"
    result = {
        "test_accuracy": 0.9, "test_rows": 1_000, "test_macro_f1": 0.89, "num_parameters": 123_456,
        "train_rows_per_s": 12_345.6, "padding_fraction": 0.01,
        "seconds": {"prepare": 1.25, "train": 4.0, "total": 7.5},
    }  # fmt: skip
    lines = drawn(run_table(uri, result, report=f"{uri}/report.html"))
    assert lines[-2:] == [f"model   {uri}/model", f"report  {uri}/report.html"]
    assert "0.9000 on 1,000 rows (95%: 0.8798 to 0.9171)" in "\n".join(lines)
    assert all(len(line) <= 80 for line in lines[:-2])


@pytest.mark.parametrize(
    ("accuracy", "rows", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (1.0, 1000, 0.9962, 1.0), (0.0, 10, 0.0, 0.2775)],
)
def test_the_interval_of_an_accuracy(accuracy, rows, low, high):
    assert interval(accuracy, rows) == pytest.approx((low, high), abs=1e-4)


def test_the_front_of_a_search_is_told_with_its_knee():
    result = {
        "test_accuracy": 0.9, "test_macro_f1": 0.9, "test_rows": 100, "num_parameters": 10,
        "train_rows_per_s": 100.0, "padding_fraction": None, "seconds": {"total": 1.0},
        "metrics": ["validation_accuracy", "latency_ms", "num_parameters"], "best_trial": 4,
        "front": [
            {"trial": 2, "validation_accuracy": 0.9, "latency_ms": 2.0, "num_parameters": 2e6},
            {"trial": 4, "validation_accuracy": 0.8, "latency_ms": 0.5, "num_parameters": 123_456},
        ],
    }  # fmt: skip
    lines = drawn(run_table("run", result), width=200)
    knee = "accuracy 0.8, latency ms 0.5, num parameters 123,456"
    assert any(f"2 trials; the knee: {knee}" in line for line in lines)
    assert "front   run/pareto.yaml" in lines
