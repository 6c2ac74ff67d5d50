import csv
import io

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from models import write_random_model

from rnntune.inference.classifier import load
from rnntune.inference.csv_text import csv_text
from rnntune.inference.metrics import errors_writer
from rnntune.inference.prediction_writer import write_predictions

FORMULAS = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


def _read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_formulas_are_escaped_and_numbers_are_not():
    rows = [{"=a": value} for value in [*FORMULAS, "-5", "+1.5", -5, "text", None, [1, "x"], "'"]]
    escaped = [row[0] for row in _read(csv_text(["=a"], rows, escape_formulas=True)) if row]
    assert escaped == [
        "'=a", *(f"'{text}" for text in FORMULAS), "-5", "+1.5", "-5", "text", "", '[1, "x"]', "'"
    ]  # fmt: skip
    plain = _read(csv_text(["=a"], rows, escape_formulas=False))
    assert [row[0] for row in plain][:7] == ["=a", *FORMULAS]


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9))))
def test_csv_is_read_as_it_was_written(values):
    rows = [{"a": a, "b": b} for a, b in values]
    text = csv_text(["a", "b"], rows, escape_formulas=False)
    assert _read(text) == [["a", "b"], *map(list, values)]
    assert not any(
        cell.startswith(("=", "@"))
        for row in _read(csv_text(["a", "b"], rows, escape_formulas=True))
        for cell in row
    )


def test_misclassified_rows_are_escaped():
    rows = [{"text": "=1+1", "label": "a"}]
    assert _read(errors_writer("e.csv")(rows))[1] == ["'=1+1", "a"]
    assert _read(errors_writer("e.csv", escape_formulas=False)(rows))[1] == ["=1+1", "a"]


def test_predictions_as_csv(tmp_path):
    model = load(write_random_model(tmp_path / "model"))
    table = pa.table({"text": ["=the cup", None, 'a "b", c\nd'], "n": [[1], None, []]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    block = {
        "number": 0, "file": "a.jsonl", "uri": "a.jsonl", "text_columns": ["text"],
        "first_row": 1, "rows": sink.getvalue().to_pybytes(),
    }  # fmt: skip
    blocks = pa.Table.from_pylist([block])
    part = write_predictions(model, blocks, uri=str(tmp_path), format="csv").to_pylist()[0]
    header, *rows = _read((tmp_path / part["name"]).read_text())
    assert header[:6] == ["file", "row", "text", "n", "predicted", "probability"]
    assert [row[1:4] for row in rows] == [
        ["1", "'=the cup", "[1]"], ["2", "", ""], ["3", 'a "b", c\nd', "[]"]
    ]  # fmt: skip
    assert rows[1][4:] == [""] * 6
    assert sum(map(float, rows[0][6:])) > 0.999
