import bz2
import gzip
import itertools
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnntune.config.schema import DataConfig
from rnntune.data.discovery import find_files
from rnntune.data.formats.records import read_columns
from rnntune.data.formats.schema import BLOCK_ROWS, ROW_SCHEMA, RecordFormat
from rnntune.data.recognition import AG_NEWS_CLASSES, detect_format
from rnntune.data.sources import read_blocks, read_dataset, resolve_source, source_fingerprint
from rnntune.errors import DataError

AG_NEWS = '"1","Talks","in Geneva"\n"2","Cup final"," tonight\\again "\n"4","","Chips, ""fast"""\n'


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def rows(file: str, **settings) -> list[dict]:
    source = resolve_source(DataConfig(source=file, **settings))
    tables = list(read_blocks(source, source.train[0]))
    assert all(table.schema.equals(ROW_SCHEMA) for table in tables)
    found = pa.concat_tables(tables).to_pylist()
    assert [row["row"] for row in found] == list(range(1, len(found) + 1))
    assert {row["file"] for row in found} == {source.train[0]}
    return found


def good(found: list[dict]) -> list[tuple[str, str]]:
    return [(row["label"], row["text"]) for row in found if row["problem"] is None]


def bad(found: list[dict]) -> dict[int, str]:
    return {row["row"]: row["problem"] for row in found if row["problem"] is not None}


# --- What a place stands for -------------------------------------------------------------


def test_sample():
    source = resolve_source(DataConfig())
    assert source.format == "sample"
    assert source.class_names == ("World", "Sports", "Business", "Sci/Tech")
    for files, num_rows in ((source.train, 8000), (source.test, 1000)):
        table = pa.concat_tables(read_blocks(source, files[0]))
        assert table.num_rows == num_rows
        assert table["problem"].null_count == num_rows
        assert table["row"].to_pylist() == list(range(1, num_rows + 1))


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_folder_in_ag_news_form(tmp_path, ending):
    pack = gzip.compress if ending else bytes
    train = write(tmp_path / f"train.csv{ending}", pack(AG_NEWS.encode()))
    test = write(tmp_path / f"test.csv{ending}", pack(AG_NEWS.encode()))
    write(tmp_path / "train.csv.lock", "")
    source = resolve_source(DataConfig(source=str(tmp_path)))
    assert (source.train, source.test) == ((train,), (test,))
    assert source.format == "ag_news"
    assert source.clean
    assert source.class_names == AG_NEWS_CLASSES
    assert not resolve_source(DataConfig(source=str(tmp_path), clean=False)).clean


def test_classes_beside_the_files(tmp_path):
    write(tmp_path / "classes.txt", "a\nb\nc\nd\ne\n")
    file = write(tmp_path / "train.csv", '"5","t","x"\n"6","t","y"\n')
    assert resolve_source(DataConfig(source=file)).class_names == tuple("abcde")
    found = rows(file)
    assert good(found) == [("5", "t x")]
    assert bad(found) == {2: "label '6' is not one of 1 to 5"}


def test_csv_with_header_is_told_from_ag_news(tmp_path):
    assert rows(write(tmp_path / "a.csv", "id,label,text\n1,x,hello\n"))[0]["text"] == "hello"
    assert detect_format(write(tmp_path / "b.csv", AG_NEWS), DataConfig()) == "ag_news"
    assert detect_format(write(tmp_path / "c.csv", "5,a,b\n"), DataConfig()) == "csv"


def test_globs_lists_and_order(tmp_path, monkeypatch):
    for name in ("b/2.jsonl", "b/1.jsonl", "a/1.jsonl", "a/1.csv"):
        write(tmp_path / name, '{"label": 1, "text": "x"}\n')
    monkeypatch.chdir(tmp_path)
    assert find_files("*/*.jsonl") == ("a/1.jsonl", "b/1.jsonl", "b/2.jsonl")
    assert find_files(f"{tmp_path}/b/[12].jsonl") == (
        f"{tmp_path}/b/1.jsonl",
        f"{tmp_path}/b/2.jsonl",
    )
    assert find_files("b/2.jsonl, a/1.jsonl,b") == ("b/2.jsonl", "a/1.jsonl", "b/1.jsonl")
    assert find_files(f"file://{tmp_path}/a/?.csv") == (f"file://{tmp_path}/a/1.csv",)


def test_test_source(tmp_path):
    train = write(tmp_path / "a.csv", "label,text\n1,x\n")
    test = write(tmp_path / "b.csv", "label,text\n1,x\n")
    source = resolve_source(DataConfig(source=train, test_source=test))
    assert (source.train, source.test) == ((train,), (test,))
    assert not source.clean


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("none.csv", "none.csv: no such file or folder"),
        ("*.nothing", "no file matches"),
        ("empty", "no data files in this folder"),
        ("a.csv,,b.csv", "an empty name"),
        ("notes.txt", "set data.format"),
        ("a.csv,b.jsonl", "all must be of one form"),
        ("nosuch://x/y", "nosuch://x/y"),
    ],
)
def test_places_that_are_not_there(tmp_path, monkeypatch, uri, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "notes.txt", "x")
    write(tmp_path / "a.csv", "label,text\n1,x\n")
    write(tmp_path / "b.csv", "label,text\n1,x\n")
    write(tmp_path / "b.jsonl", "{}\n")
    with pytest.raises(DataError, match=message.replace("*", r"\*")) as caught:
        resolve_source(DataConfig(source=uri))
    assert "\n" not in str(caught.value)


# --- Rows --------------------------------------------------------------------------------


def test_ag_news_rows(tmp_path):
    expected = [
        ("1", "Talks in Geneva"),
        ("2", "Cup final  tonight\\again"),
        ("4", 'Chips, "fast"'),
    ]
    assert good(rows(write(tmp_path / "a.csv", AG_NEWS))) == expected
    assert good(rows(write(tmp_path / "a.csv.gz", gzip.compress(AG_NEWS.encode())))) == expected
    assert good(rows(write(tmp_path / "a.csv.bz2", bz2.compress(AG_NEWS.encode())))) == expected
    assert good(rows(write(tmp_path / "bom.csv", b"\xef\xbb\xbf" + AG_NEWS.encode()))) == expected
    crlf = AG_NEWS.replace("\n", "\r\n")
    assert good(rows(write(tmp_path / "crlf.csv", crlf))) == expected
    two = gzip.compress(AG_NEWS.encode()) * 2  # files put together with cat
    assert good(rows(write(tmp_path / "two.csv.gz", two))) == expected * 2


def test_bad_rows_of_ag_news_form(tmp_path):
    lines = [
        b'"1","good","one"',
        b'"1","two fields"',
        b'"0","wrong","label"',
        b'"","no","label"',
        b'"2","bad","\xff bytes"',
        b'"3","not closed","text',
        b'"3","not doubled "in","text"',
        b'"\xfe","t","x"',
        '"4","gut","\u00e4\u4e2d\U0001f600"'.encode(),
        b"",
        b'"2","line","one',
        b'line two"',
    ]
    found = rows(write(tmp_path / "a.csv", b"\n".join(lines) + b"\n"))
    assert good(found) == [
        ("1", "good one"),
        ("4", "gut \u00e4\u4e2d\U0001f600"),
        ("2", "line one\nline two"),
    ]
    problems = bad(found)
    assert problems[2] == "2 fields, not 3 (label, title, description)"
    assert problems[3] == "label '0' is not one of 1 to 4"
    assert problems[4] == "label '' is not one of 1 to 4"
    assert problems[5] == "bytes that are not UTF-8"
    assert "quote is not closed" in problems[6]
    assert "quote is not closed or not doubled" in problems[7]
    assert "label" in problems[8]
    assert set(problems) == set(range(2, 9))


@pytest.mark.parametrize("at_end", [False, True])
def test_unclosed_quote_costs_one_row(tmp_path, at_end):
    lines = [f"{1 + i % 4},title {i},no quotes here" for i in range(20_000)]
    where = len(lines) - 1 if at_end else 5_000
    lines[where] = '1,"never closed,text'
    found = rows(write(tmp_path / "a.csv", "\n".join(lines)))
    assert len(found) == 20_000
    assert list(bad(found)) == [where + 1]
    assert "quote is not closed" in bad(found)[where + 1]
    assert good(found)[-1 if not at_end else 0][1].startswith(f"title {0 if at_end else 19999} ")


def test_overlong_line_costs_one_row(tmp_path):
    line = "x," * (9 << 20)
    text = f"label,text\n1,a\n{line}\n2,b\n"
    found = rows(write(tmp_path / "a.csv", text))
    assert good(found) == [("1", "a"), ("2", "b")]
    assert "longer than" in bad(found)[2]
    text = f'{{"label": 1, "text": "a"}}\n"{line}"\n{{"label": 2, "text": "b"}}\n'
    found = rows(write(tmp_path / "a.jsonl", text))
    assert good(found) == [("1", "a"), ("2", "b")]
    assert "longer than" in bad(found)[2]


def test_csv_rows(tmp_path):
    text = 'kind,title,body,other\n a ,x," y ",\xe9\nb,,,0\n,x,y,0\nc,x,y\nd,"x\ny",z,0\n'
    columns = {"text_columns": ("body", "title"), "label_column": "kind"}
    found = rows(write(tmp_path / "a.csv", text), **columns)
    assert good(found) == [("a", "y  x"), ("b", ""), ("d", "z x\ny")]
    assert bad(found) == {3: "label is empty", 4: "3 fields, not 4 as in the header"}
    found = rows(write(tmp_path / "b.csv", b"text,label\n\xff,1\nx,\xfe\n"))
    assert [row["text"] for row in found] == ["\ufffd", "x"]
    assert bad(found) == dict.fromkeys((1, 2), "bytes that are not UTF-8")


def test_json_rows(tmp_path):
    records = [
        '{"label": 1, "text": "one"}',
        '{"label": "two", "text": ""}',
        "",
        '{"label": 3.0, "text": "three"}',
        '{"label": true, "text": "four"}',
        '{"label": 1, "text": 5}',
        '{"label": null, "text": "x"}',
        '{"label": 1, "text": null}',
        '{"label": 1}',
        '{"text": "x"}',
        '{"label": 1.5, "text": "x"}',
        '{"label": [1], "text": "x"}',
        '{"label": "", "text": "x"}',
        '{"label": 1, "text": "x"',
        "[1, 2]",
        '{"label": 1, "text": "\\ud800"}',
        "[" * 100_000,
    ]
    content = "\n".join(records).encode() + b'\n{"label": 1, "text": "\xff"}'
    found = rows(write(tmp_path / "a.jsonl", content))
    assert good(found) == [("1", "one"), ("two", ""), ("3", "three"), ("true", "four")]
    problems = bad(found)
    assert problems[5] == "text is not a string but 5"
    assert problems[6] == problems[9] == "label is null or missing"
    assert problems[7] == problems[8] == "text is null or missing"
    assert problems[10] == "label is not a string or an integer but 1.5"
    assert problems[11] == "label is not a string or an integer but [1]"
    assert problems[12] == "label is empty"
    assert problems[13].startswith("not JSON")
    assert problems[14] == "not a JSON object"
    assert problems[15] == problems[17] == "bytes that are not UTF-8"
    assert problems[16].startswith("not JSON")
    assert len(found) == 17


def test_json_rows_gzip(tmp_path):
    line = b'{"label": "a", "text": "x"}\n'
    found = rows(write(tmp_path / "a.jsonl.gz", gzip.compress(line * 20_000)))
    assert good(found) == [("a", "x")] * 20_000


def parquet(path: Path, **columns) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 2, None], ["1", "2"]),
        (pa.array([1.0, 2.0, None]), ["1", "2"]),
        (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", " b ", ""], pa.large_string()), ["a", "b"]),
        (pa.array([True, False, None]), ["true", "false"]),
    ],
)
def test_parquet_rows(tmp_path, labels, expected):
    texts = [" x ", "", "z"]
    found = rows(parquet(tmp_path / "a.parquet", other=[1, 2, 3], label=labels, text=texts))
    assert good(found) == list(zip(expected, ["x", ""], strict=True))
    assert list(bad(found)) == [3]


def test_parquet_columns_are_joined_and_nulls_found(tmp_path):
    file = parquet(tmp_path / "a.parquet", label=[1, 2, 3], a=["x", None, "y"], b=["1", "2", "3"])
    found = rows(file, text_columns=("b", "a"))
    assert good(found) == [("1", "1 x"), ("3", "3 y")]
    assert bad(found) == {2: "text is null"}


def test_parquet_broken_bytes(tmp_path):
    raw = pa.array([b"good", b"\xff", None], pa.binary()).view(pa.string())
    found = rows(parquet(tmp_path / "a.parquet", label=["a", "b", "c"], text=raw))
    assert good(found) == [("a", "good")]
    assert bad(found) == {2: "bytes that are not UTF-8", 3: "text is null"}


def test_parquet_column_of_numbers_is_no_text(tmp_path):
    with pytest.raises(DataError, match=r"a.parquet: .*column text holds int64, not strings"):
        rows(parquet(tmp_path / "a.parquet", label=[1], text=[2]))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_missing_column(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        parquet(path, label=[1], body=["x"])
    else:
        write(path, "label,body\n1,x\n" if ending == "csv" else '{"label": 1, "body": "x"}\n')
    message = f"a.{ending}: no column 'text'; its columns are label, body"
    with pytest.raises(DataError, match=message):
        rows(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ""),
        ("a.csv", "label,text\n"),
        ("a.csv.gz", gzip.compress(b"", mtime=0)),
        ("a.jsonl", "\n\n"),
        ("a.parquet", None),
    ],
)
def test_empty_file(tmp_path, name, content):
    if content is None:
        parquet(tmp_path / name, label=pa.array([], "int64"), text=pa.array([], "string"))
    else:
        write(tmp_path / name, content)
    with pytest.raises(DataError, match=f"{name}: (empty file|no rows)"):
        rows(str(tmp_path / name))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_broken_container(tmp_path, form):
    content = gzip.compress(os.urandom(100_000).hex().encode())[:-5_000]
    name = f"a.{form}" if form == "parquet" else f"a.{form}.gz"
    with pytest.raises(DataError, match=f"{name}: cannot be read") as caught:
        rows(write(tmp_path / name, content), format=form)
    assert "\n" not in str(caught.value)


def test_blocks_and_flat_memory(tmp_path):
    line = '"3","a title of some words","a description of rather more words than the title"\n'
    small = write(tmp_path / "small.csv", line * 20_000)
    large = write(tmp_path / "large.csv", line * 60_000)
    peaks = []
    for file in (small, large):
        source = resolve_source(DataConfig(source=file))
        tracemalloc.start()
        sizes = [table.num_rows for table in read_blocks(source, file)]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert set(sizes[:-1]) == {BLOCK_ROWS}
    assert sum(sizes) == 60_000
    assert peaks[1] < 1.2 * peaks[0]


# --- Fingerprint -------------------------------------------------------------------------


def test_fingerprint(tmp_path):
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    write(a, "label,text\n1,x\n")
    write(b, "label,text\n1,x\n")

    def known(uri, **settings):
        return source_fingerprint(resolve_source(DataConfig(source=str(uri), **settings)))

    first = known(a)
    time.sleep(0.01)
    write(a, "label,text\n1,x\n")
    assert known(a) == first
    variants = [
        first,
        known(b),
        known(f"{a},{b}"),
        known(f"{b},{a}"),
        known(a, test_source=str(b)),
        known(a, text_columns=("label",)),
        known("sample"),
    ]
    write(a, "label,text\n1,y\n")
    variants.append(known(a))
    assert len(set(variants)) == len(variants)


def test_fingerprint_in_another_process():
    code = (
        "from rnntune.config.schema import DataConfig;"
        "from rnntune.data.sources import resolve_source, source_fingerprint;"
        "print(source_fingerprint(resolve_source(DataConfig())))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == source_fingerprint(resolve_source(DataConfig()))


def test_fingerprint_of_a_file_that_went_away(tmp_path):
    file = write(tmp_path / "a.csv", "label,text\n1,x\n")
    source = resolve_source(DataConfig(source=file))
    Path(file).unlink()
    with pytest.raises(DataError, match="no such file"):
        source_fingerprint(source)


# --- All columns -------------------------------------------------------------------------


def test_read_columns(tmp_path):
    columns = {"id": ["1", "2"], "text": ["x, y", "z"]}
    file = write(tmp_path / "a.csv", 'id,text\n1,"x, y"\n2,z\n')
    assert pa.concat_tables(read_columns(file, RecordFormat(format="csv"))).to_pydict() == columns
    lines = [json.dumps({"id": i, "text": t}) for i, t in zip(*columns.values(), strict=True)]
    file = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert pa.concat_tables(read_columns(file, RecordFormat(format="jsonl"))).to_pydict() == columns
    file = parquet(tmp_path / "a.parquet", **columns)
    assert (
        pa.concat_tables(read_columns(file, RecordFormat(format="parquet"))).to_pydict() == columns
    )
    file = write(tmp_path / "ag.csv", AG_NEWS)
    table = pa.concat_tables(read_columns(file, RecordFormat(format="ag_news")))
    assert table.column_names == ["label", "title", "description"]
    assert table.num_rows == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,text\n1,x\n2\n", "row 2: 1 field, not 2"),
        ("a.csv", b"id,text\n1,\xff\n", "row 1: bytes that are not UTF-8"),
        ("a.csv", b'id,text\n1,"x\n', "row 1: a quote is not closed"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', "row 2: not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "x"}\n', "cannot be read"),
        ("a.jsonl", b'{"a": "\\ud800"}\n', "cannot be read"),
        ("a.csv", b"", "empty file"),
    ],
)
def test_read_columns_errors(tmp_path, name, content, message):
    file = write(tmp_path / name, content)
    with pytest.raises(DataError, match=f"{name}: {message}"):
        list(read_columns(file, RecordFormat(format=name.partition(".")[2])))


# --- Ray ---------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("num_files", [1, 3])
def test_read_with_ray(tmp_path, num_files):
    files = []
    for number in range(num_files):
        lines = [f'"{1 + i % 4}","t{number}","{i}"\n' for i in range(20_000)]
        lines[10] = '"9","t","x"\n'
        files.append(write(tmp_path / f"{number}.csv", "".join(lines)))
    source = resolve_source(DataConfig(source=",".join(files)))
    dataset = read_dataset(source, source.train).materialize()
    expected = itertools.chain.from_iterable(read_blocks(source, f) for f in files)
    assert dataset.schema().names == ROW_SCHEMA.names
    assert dataset.num_blocks() >= 3 * num_files - num_files
    found = pa.concat_tables(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    assert found.to_pylist() == pa.concat_tables(expected).to_pylist()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ray_reads_the_sample():
    source = resolve_source(DataConfig())
    assert read_dataset(source, source.test).count() == 1000
