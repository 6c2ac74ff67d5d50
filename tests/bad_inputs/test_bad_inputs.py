"""Bad files, configurations and command lines: each is one line on standard error and status 2.

A line of the table: the command, `;`-separated files are made first, and a part of the message.
No cluster is started: what is refused here is refused at once.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from models import write_random_model

import rnntune.cluster.session
from rnntune.cli.main import main

GOOD = "label,text\n" + "a,one two\nb,three four\n" * 3
TRAIN = ["train", "--output", "run", "--data"]
PREPARE = ["prepare", "--data"]


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def csv(*rows: str, header: str = "label,text") -> str:
    return "\n".join([header, *rows, ""])


def latin(text: str) -> bytes:
    return text.encode("latin-1")


CAFE = latin(csv(*["a,caf\u00e9 one", "b,th\u00e9 two"] * 4))
NUMBERED = csv(*[f"x{n % 2},{n},t {n}" for n in range(20)], header="what,number,words")

# Name of the case: files, command, part of the one line.
DATA_CASES = {
    "no such file": ({}, "none.csv", "none.csv: no such file or folder"),
    "no match": ({}, "*.csv", "*.csv: no file matches"),
    "an empty name": ({"a.csv": GOOD}, "a.csv,", "an empty name in the list of files"),
    "an unknown scheme": ({}, "nosuch://a/b", "cannot open nosuch://a/b"),
    "an empty file": ({"a.csv": ""}, "a.csv", "a.csv: empty file"),
    "a header alone": ({"a.csv": "label,text\n"}, "a.csv", "a.csv: no rows"),
    "an unknown suffix": ({"a.xyz": "x"}, "a.xyz", "its name does not tell its form; set data"),
    "prose": ({"a.txt": "Some prose.\nMore.\n"}, "a.txt", "first line, 'Some prose.'; set data.fo"),
    "empty text": ({"a.txt": "\n\n"}, "a.txt", "a.txt: empty file"),
    "Latin-1": ({"a.csv": CAFE}, "a.csv", "a.csv: not UTF-8; data.encoding: latin-1 reads it"),
    "cp1252": (
        {"a.csv": csv(*["a,\u201cx\u201d", "b,\u201cy\u201d"] * 3).encode("cp1252")},
        "a.csv", "not UTF-8; data.encoding: cp1252 reads it",
    ),
    "UTF-16 without a mark": (
        {"a.csv": GOOD.encode("utf-16-le")}, "a.csv", "it seems; set data.encoding: utf-16-le"
    ),
    "one line of Latin-1": (
        {"a.csv": GOOD.encode() + latin("a,caf\u00e9\n")}, "a.csv",
        "a.csv: row 7: bytes that are not UTF-8; data.on_bad_rows: skip leaves such rows out; "
        "data.encoding names another encoding",
    ),
    "a workbook": ({"a.csv": b"PK\x03\x04rest"}, "a.csv", "a zip archive, or a workbook of Excel"),
    "gzip without its name": ({"a.csv": b"\x1f\x8b\x08rest"}, "a.csv", "end its name in .gz"),
    "Parquet named CSV": ({"a.csv": parquet(label=["a"])}, "a.csv", "it is Parquet; set data.for"),
    "CSV named Parquet": ({"a.parquet": GOOD}, "a.parquet", "a.parquet: cannot be read"),
    "a PDF": ({"a.txt": b"%PDF-1.7"}, "a.txt", "a.txt: it is a PDF"),
    "damaged gzip": ({"a.csv.gz": b"\x1f\x8b\x08damaged"}, "a.csv.gz", "a.csv.gz: cannot be read"),
    "no text column": (
        {"a.csv": NUMBERED}, "a.csv",
        "no column 'text'; its columns are what, number, words; data.text_columns and data.label",
    ),
    "a column twice": (
        {"a.csv": csv("a,b,one two", "b,a,three", header="label,label,text")}, "a.csv",
        "its header names 2 columns 'label'",
    ),
    "no column in JSON": (
        {"a.jsonl": '{"class": "a", "x": 1, "y": 2}\n' * 3}, "a.jsonl",
        "no column 'text'; its columns are class, x, y",
    ),
    "no column in Parquet": (
        {"a.parquet": parquet(kind=["a"], x=[1], y=[2])}, "a.parquet",
        "no column 'text'; its columns are kind, x, y",
    ),
    "numbers as text": (
        {"a.parquet": parquet(label=["a"], text=[1])}, "a.parquet",
        "column text holds int64, not strings",
    ),
    "only bad rows": (
        {"a.csv": csv(",one", ",two", ",three")}, "a.csv",
        "all 3 rows are bad, the first: a.csv: row 1: label is empty",
    ),
    "some bad rows": (
        {"a.csv": csv("a,one", ",two", "b,three", "c", ",x")}, "a.csv",
        "a.csv: row 2: label is empty (2 more bad rows); data.on_bad_rows: skip leaves such rows",
    ),
    "too many fields": (
        {"a.csv": csv("a,one, or two", "b,three")}, "a.csv",
        "a.csv: row 1: 3 fields, not 2 as in the header",
    ),
    "an unclosed quote": (
        {"a.csv": csv('"good,a', "bad,b", header="text,label")}, "a.csv",
        "a.csv: row 1: a quote is not closed ('\"good,a' ...)",
    ),
    "an unclosed quote in the header": (
        {"a.csv": 'label,"text\na,b\n'}, "a.csv", "a.csv: header: a quote is not closed"
    ),
    "one class": ({"a.csv": csv("a,x", "a,y")}, "a.csv", "training rows have only 'a'"),
    "1 and 1.0": (
        {"a.csv": csv("1,x", "2,y", "1.0,z", "2.0,z")}, "a.csv",
        "a.csv: row 3: label '1.0' is the number of label '1' (a.csv: row 1); write it in one way",
    ),
    "not JSON": ({"a.jsonl": "label,text\na,b\n"}, "a.jsonl", "a.jsonl: row 1: not JSON"),
    "an object over several lines": (
        {"a.json": json.dumps({"rows": [{"label": 1}]}, indent=1)}, "a.json",
        "row 1: an object over several lines; write one object a line, or an array",
    ),
    "an array that ends": (
        {"a.json": '[{"label": "a", "text": "x"},'}, "a.json",
        "a.json: row 2: the array is not closed",
    ),
    "an empty array": ({"a.json": "[]"}, "a.json", "a.json: no rows"),
    "an array of numbers": ({"a.json": "[1, 2]"}, "a.json", "a.json: row 1: not a JSON object"),
    "a text that is a number": (
        {"a.jsonl": '{"label": "a", "text": 5}\n{"label": "b", "text": "x"}\n'}, "a.jsonl",
        "a.jsonl: row 1: text is not a string but 5",
    ),
    "a label that is an object": (
        {"a.jsonl": '{"label": {"a": 1}, "text": "x"}\n{"label": "b", "text": "x"}\n'}, "a.jsonl",
        'a.jsonl: row 1: label is not a string or an integer but {"a": 1}',
    ),
    "a list that holds an object": (
        {"a.jsonl": '{"label": ["a"], "text": "x"}\n{"label": [{}], "text": "x"}\n'}, "a.jsonl",
        "a.jsonl: row 2: a label is not a string or an integer but {}",
    ),
    "an empty label in a list": (
        {"a.jsonl": '{"label": ["a", " "], "text": "x"}\n'}, "a.jsonl",
        "a.jsonl: row 1: a label is empty",
    ),
    "a label that is a list": (
        {"a.jsonl": '{"label": ["a"], "text": "x"}\n{"label": "b", "text": "x"}\n'}, "a.jsonl",
        'a.jsonl: row 1: label is not a string or an integer but ["a"]',
    ),
    "a label that is NaN": (
        {"a.jsonl": '{"label": NaN, "text": "x"}\n{"label": "b", "text": "x"}\n'}, "a.jsonl",
        "a.jsonl: row 1: label is not a string or an integer but NaN",
    ),
    "NaN in Parquet": (
        {"a.parquet": parquet(label=pa.array([1.0, float("nan")]), text=["x", "y"])}, "a.parquet",
        "a.parquet: row 2: label is NaN or not an integer",
    ),
    "a folder of other files": (
        {"d/a.xlsx": "x", "d/b.doc": "x"}, "d", "d: no data files in this folder"
    ),
    "several training files": (
        {"d/train.csv": GOOD, "d/train-2.csv": GOOD}, "d",
        "d has several files of its train split: train-2.csv, train.csv",
    ),
    "a missing part": (
        {"d/train-00001-of-00003.csv": GOOD}, "d", "d: 1 of 3 parts of its train split"
    ),
    "no training file": (
        {"d/test.csv": GOOD, "d/x.csv": GOOD}, "d", "d: no training file among test.csv, x.csv"
    ),
    "two forms": ({"a.csv": GOOD, "b.jsonl": "{}"}, "a.csv,b.jsonl", "all must be of one form"),
    "no text in a folder": ({"d/a/x.bin": "x"}, "d", "it holds a/"),
}  # fmt: skip

SETTING_CASES = {
    "a delimiter for lists": (
        {"a.jsonl": '{"label": ["a"], "text": "x"}\n'}, ["a.jsonl", "--data.label_delimiter", "|"],
        "a.jsonl: column 'label' holds lists of labels, so data.label_delimiter '|' has no use",
    ),
    "lists that must not be": (
        {"a.jsonl": '{"label": ["a"], "text": "x"}\n'}, ["a.jsonl", "--data.multi_label", "false"],
        "a.jsonl: column 'label' holds lists of labels, but data.multi_label is false",
    ),
    "a column of 0 and 1 that holds 2": (
        {"a.csv": "text,toxic,rude\nx,0,1\ny,2,1\n"},
        ["a.csv", "--data.label_column", "toxic,rude"],
        "a.csv: row 2: toxic is '2', not 0 or 1",
    ),
    "one of several columns that is missing": (
        {"a.csv": "text,toxic\nx,0\n"}, ["a.csv", "--data.label_column", "toxic,rude"],
        "a.csv: no column 'rude'; its columns are text, toxic",
    ),
    "several labels of the sample": (
        {}, ["sample", "--data.multi_label", "true"], "sample: the sample has one label a row",
    ),
    "several labels": (
        {"a.txt": "__label__a __label__b x\n__label__a y\n"},
        ["a.txt", "--data.multi_label", "false"],
        "a.txt: row 1: several labels (__label__a and __label__b)",
    ),
    "a test file in training": (
        {"a.csv": GOOD}, ["a.csv", "--data.test_source", "a.csv"],
        "a.csv: both a train and a test file (data.test_source)",
    ),
    "a validation file in training": (
        {"a.csv": GOOD, "b.csv": GOOD}, ["a.csv,b.csv", "--data.validation_source", "./b.csv"],
        "both a train and a validation file (data.validation_source)",
    ),
    "no such test file": (
        {"a.csv": GOOD}, ["a.csv", "--data.test_source", "t.csv"], "t.csv: no such file or folder"
    ),
    "a test file without a column": (
        {"a.csv": GOOD, "t.csv": csv("x,y", header="kind,words")},
        ["a.csv", "--data.test_source", "t.csv"],
        "t.csv: no column 'text'; its columns are kind, words",
    ),
    "files beside the sample": (
        {"t.csv": GOOD}, ["sample", "--data.test_source", "t.csv"], "the sample is not read with"
    ),
    "a wrong column": (
        {"a.csv": GOOD}, ["a.csv", "--data.label_column", "kind"],
        "a.csv: no column 'kind'; its columns are label, text",
    ),
    "a column number too large": (
        {"a.csv": "a,x\nb,y\n"}, ["a.csv", "--data.text_columns", "1", "--data.label_column", "7"],
        "a.csv: no column 7; its columns are 0 to 1",
    ),
    "names without a header": (
        {"a.csv": "1,x y\n2,z w\n"}, ["a.csv", "--data.header", "false"],
        "a.csv: its first record is '1', 'x y'; without a header data.text_columns",
    ),
    "a wrong encoding": (
        {"a.csv": GOOD}, ["a.csv", "--data.encoding", "klingon"],
        "data.encoding: must be auto, utf-8, utf-16, latin-1, cp1252 or another encoding",
    ),
    "UTF-8 read as UTF-16": (
        {"a.csv": GOOD + "x"}, ["a.csv", "--data.encoding", "utf-16"], "a.csv: "
    ),
    "a codec that is no encoding": (
        {"a.csv": GOOD}, ["a.csv", "--data.encoding", "zip"], "not 'zip'"
    ),
    "a long delimiter": (
        {"a.csv": GOOD}, ["a.csv", "--data.delimiter", "::"],
        "data.delimiter: must be one character or comma, tab",
    ),
    "a quote as delimiter": (
        {"a.csv": GOOD}, ["a.csv", "--data.delimiter", '"'], "data.delimiter: must be one character"
    ),
    "another delimiter": (
        {"a.csv": GOOD}, ["a.csv", "--data.delimiter", ";"],
        "a.csv: no column 'text'; its columns are label,text",
    ),
    "an unknown format": (
        {"a.csv": GOOD}, ["a.csv", "--data.format", "xml"], "data.format: input should be"
    ),
    "fastText that is CSV": (
        {"a.csv": GOOD}, ["a.csv", "--data.format", "fasttext"],
        "all 7 rows are bad, the first: a.csv: row 1: does not begin with __label__",
    ),
    "CSV that is fastText": (
        {"a.ft": "__label__a x\n__label__b y\n"}, ["a.ft", "--data.format", "csv"],
        "a.ft: no column 'text'; its columns are __label__a x",
    ),
    "all rows are skipped": (
        {"a.csv": csv(",x", ",y")}, ["a.csv", "--data.on_bad_rows", "skip"],
        "rows have none; of 2 rows some are bad, the first: a.csv: row 1: label is empty",
    ),
    "no test rows": ({"a.csv": GOOD}, ["a.csv", "--data.test_fraction", "2"], "data.test_fraction"),
    "a misspelt setting": ({}, ["sample", "--data.lable_column", "x"], "did you mean data.label_c"),
    "no value": ({}, ["sample", "--data.format="], "data.format: input should be"),
}  # fmt: skip

CONFIG_CASES = {
    "a missing file": (None, "c.yaml: no such file or folder"),
    "a list": ("[1, 2]", "c.yaml: must be a mapping of settings, not list"),
    "a broken mapping": ("data: {source: [", "c.yaml:1: "),
    "an unknown group": ("dta: {}", "unknown key dta (did you mean data?)"),
    "an unknown key": ("data: {sourc: x}", "unknown key data.sourc (did you mean data.source?)"),
    "one fold": ("tune: {folds: 1}", "tune.folds: input should be greater than or equal to 2"),
    "folds of several workers": (
        "tune: {folds: 3, workers_per_trial: 2}",
        "a trial of 2 workers trains on one split",
    ),
    "an empty group": ("data:", "data is empty"),
    "a scalar group": ("data: 5", "data must be a mapping of settings, not 5"),
    "a wrong type": ("data: {text_columns: 5}", "data.text_columns"),
    "a column that is a fraction": ("data: {label_column: 1.5}", "data.label_column"),
    "a null source": ("data: {source: null}", "data.source"),
    "a date": ("data: {source: 2026-13-45}", "c.yaml"),
    "Latin-1": (latin("data: {source: caf\u00e9.csv}"), "c.yaml"),
    "nested deeply": ("a: " + "[" * 2000, "c.yaml"),
    "a long value": ("data: {text_columns: {a: [" + "x, " * 9000 + "]}}", "data.text_columns"),
    "aliases that grow": (
        "x0: &x0 ["
        + "y, " * 9
        + "]\n"
        + "".join(f"x{n}: &x{n} [" + f"*x{n - 1}, " * 9 + "]\n" for n in range(1, 9))
        + "data: {source: [*x8, *x8]}",
        "c.yaml",
    ),
    "a tab": ("data:\n\tsource: x", "c.yaml:2"),
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder where no cluster can be started; gives its one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def started(**_):
        raise AssertionError("a cluster was started")

    for module in ("cluster.session", "inference.predict", "inference.evaluate", "data.passes"):
        monkeypatch.setattr(f"rnntune.{module}.connect", started)

    monkeypatch.setattr("rnntune.data.passes.LOCAL_BYTES", -1)  # small data would need none

    def command(files, argv) -> str:
        for name, content in files.items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1, err
        assert err.startswith("rnntune: ")
        assert len(err) < 1000
        assert not Path("run").exists()
        return err

    return command


@pytest.mark.parametrize("name", DATA_CASES)
def test_data(run, name):
    files, source, part = DATA_CASES[name]
    assert part in run(files, [*TRAIN, source])


@pytest.mark.parametrize("name", SETTING_CASES)
def test_settings_of_data(run, name):
    files, arguments, part = SETTING_CASES[name]
    assert part in run(files, [*PREPARE, *arguments])


@pytest.mark.parametrize("name", CONFIG_CASES)
def test_configurations(run, name):
    content, part = CONFIG_CASES[name]
    files = {} if content is None else {"c.yaml": content}
    assert part in run(files, ["train", "--config", "c.yaml", "--output", "run"])


PREDICT_CASES = {
    "no such input": ({}, ["none.csv"], "none.csv: no such file or folder"),
    "no text column": ({"a.csv": "x,y\n1,2\n"}, ["a.csv"], "no column 'text'; its columns are x"),
    "two text columns": (
        {"a.csv": "text,text\na,b\n"}, ["a.csv"], "its header names 2 columns 'text'"
    ),
    "Latin-1": ({"a.csv": CAFE}, ["a.csv"], "data.encoding: latin-1 reads it"),
    "a broken row": ({"a.csv": "text\na\nb,c\n"}, ["a.csv"], "a.csv: row 2: 2 fields, not 1"),
    "a large number": (
        {"a.jsonl": json.dumps({"text": "x", "id": 2**70})}, ["a.jsonl"], "a.jsonl: cannot be read"
    ),
    "an unknown form": ({"a.txt": "some prose\n"}, ["a.txt"], "set data.format"),
}  # fmt: skip


@pytest.mark.parametrize("name", PREDICT_CASES)
def test_inputs_of_predict(run, name, tmp_path_factory):
    model = str(write_random_model(tmp_path_factory.mktemp("model")))
    files, inputs, part = PREDICT_CASES[name]
    assert part in run(files, ["predict", model, "--input", *inputs, "--output", "run"])


def test_wrong_data_is_refused_before_the_large_libraries_are_loaded(tmp_path):
    (tmp_path / "a.csv").write_text(csv("a,one", ",two"))
    code = (
        "import sys; from rnntune.cli.main import main\n"
        "for verb in ('train', 'tune', 'prepare'):\n"
        "    for data in ('none.csv', 'a.csv'):\n"
        "        assert main([verb, '--data', data]) == 2\n"
        "heavy = {'torch', 'ray', 'torchtext', 'sklearn', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 6


def test_the_corpus_is_large():
    cases = (DATA_CASES, SETTING_CASES, CONFIG_CASES, PREDICT_CASES)
    assert sum(map(len, cases)) >= 60
    assert rnntune.cluster.session.connect is not None
