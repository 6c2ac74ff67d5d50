"""Forms of files: what is recognised, what is read, and what is refused because it is not clear."""

import codecs
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnntune.config.schema import DataConfig
from rnntune.data import sources
from rnntune.data.formats.records import FORMS, read_columns, read_rows
from rnntune.data.formats.schema import RecordFormat
from rnntune.data.sources import Source, read_blocks, resolve_source
from rnntune.errors import ConfigError, DataError, RnntuneError

WORDS = ["bad food, cold", "nice; warm | soft", "so so", "a 'fine' \"day\"", "again bad"]
LABELS = ["neg", "pos", "neg", "pos", "neg"]
PAIRS = [(LABELS[n % 5], f"{WORDS[n % 5]} {n}") for n in range(15)]


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def lines(template: str, pairs=PAIRS) -> str:
    return "".join(template.format(label=label, text=text) + "\n" for label, text in pairs)


def read(source: Source, files=None) -> list[tuple[str, str]]:
    tables = [t for file in files or source.train for t in read_blocks(source, file)]
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["problem"] for row in rows if row["problem"]] == []
    return [(row["label"], row["text"]) for row in rows]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


PAIR_FILES = {
    "semicolon.csv": "text;label\n" + "".join(f"{quoted(t)};{la}\n" for la, t in PAIRS),
    "pipe.csv": "label|text\n" + "".join(f"{la}|{quoted(t)}\n" for la, t in PAIRS),
    "tab.csv": "label\ttext\n" + lines("{label}\t{text}"),
    "tab.tsv": "label\ttext\n" + lines("{label}\t{text}"),
    "quoted.tsv": "label\ttext\n" + "".join(f"{la}\t{quoted(t)}\n" for la, t in PAIRS),
    "spaces.csv": " text , label\n" + "".join(f"{quoted(t)},{la}\n" for la, t in PAIRS),
    "noheader.tsv": lines("{label}\t{text}"),
    "noheader.csv": "".join(f"{quoted(t)},{la}\n" for la, t in PAIRS),
    "sms.txt": lines("{label}\t{text}"),
    "trec.label": lines("{label} {text}"),
    "trec.txt": lines("{label}:x {text}", PAIRS * 2),
    "ft.txt": lines("__label__{label} {text}"),
    "ft.csv": lines("__label__{label} {text}"),
    "array.json": json.dumps([{"label": la, "text": t} for la, t in PAIRS], indent=1),
    "lines.json": "".join(json.dumps({"label": la, "text": t}) + "\n" for la, t in PAIRS),
    "known.csv": "id,Sentence,category\n"
    + "".join(f"{n},{quoted(t)},{la}\n" for n, (la, t) in enumerate(PAIRS)),
    "two.csv": "what,kind\n" + "".join(f"{quoted(t)},{la}\n" for la, t in PAIRS),
}


@pytest.mark.parametrize("name", PAIR_FILES)
def test_files_of_labels_and_texts(tmp_path, name):
    source = resolve_source(DataConfig(source=write(tmp_path / name, PAIR_FILES[name])))
    times = 2 if name == "trec.txt" else 1
    end = ":x" if name == "trec.txt" else ""
    assert read(source) == [(label + end, text) for label, text in PAIRS] * times
    chosen = name in ("noheader.tsv", "noheader.csv", "known.csv", "two.csv")
    assert (len(source.notes) == 1) == chosen, source.notes


def test_a_quoted_tsv_file_may_hold_lines(tmp_path):
    file = write(tmp_path / "a.tsv", 'label\ttext\na\t"one\ntwo"\nb\t"x ""y"""\n' * 1)
    assert read(resolve_source(DataConfig(source=file))) == [("a", "one\ntwo"), ("b", 'x "y"')]


def test_a_quote_in_a_tsv_file_swallows_nothing(tmp_path):
    file = write(tmp_path / "a.tsv", 'label\ttext\na\t"one\nb\ttwo\na\tsaid "three"\n')
    assert read(resolve_source(DataConfig(source=file))) == [
        ("a", '"one'), ("b", "two"), ("a", 'said "three"')
    ]  # fmt: skip


def test_the_title_stands_before_the_text(tmp_path):
    rows = "".join(f"{n % 2},T{n} and more,some body {n}\n" for n in range(20))
    file = write(tmp_path / "a.csv", "class,title,content\n" + rows)
    source = resolve_source(DataConfig(source=file))
    assert source.text_columns == ("title", "content")
    assert read(source)[1] == ("1", "T1 and more some body 1")
    assert source.notes == (
        f"{file}: text from column title and content, label from column class "
        "(data.text_columns, data.label_column)",
    )


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_columns_of_other_forms_are_chosen_too(tmp_path, form):
    columns = {"review": WORDS * 4, "stars": [1.0, 2.0] * 10, "sentiment": [0, 1] * 10}
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        write(path, "\n".join(map(json.dumps, rows)))
    source = resolve_source(DataConfig(source=str(path)))
    assert (source.text_columns, source.label_column) == (("review",), "sentiment")
    assert read(source)[:2] == [("0", WORDS[0]), ("1", WORDS[1])]


TWENTY = range(20)


@pytest.mark.parametrize(
    "content",
    [
        "sentence,review,label\n" + "".join(f"a b {n},c d {n},x{n % 2}\n" for n in TWENTY),
        "text,category,topic\n" + "".join(f"a b {n},x{n % 2},y{n % 2}\n" for n in TWENTY),
        "a,b,c\n" + "".join(f"a b {n},x{n % 2},y{n % 2}\n" for n in TWENTY),
        "text,target\n" + "".join(f"a b {n},0.{n + 1}\n" for n in TWENTY),  # a regression
        "text,category\n" + "".join(f"a b {n},x{n}\n" for n in TWENTY),  # an identifier
        "id,kind\n" + "".join(f"{n},x{n % 2}\n" for n in TWENTY),  # no text
        "one,two\n" + "".join(f"x{n % 3},y{n % 2}\n" for n in TWENTY),  # two labels
        "sentence,sentence,label\n" + "".join(f"a {n},b {n},{n % 2}\n" for n in TWENTY),
    ],
)
def test_columns_that_are_not_clear_are_not_chosen(tmp_path, content):
    file = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=r"no column '(text|label)'; its columns are .*data.text_"):
        resolve_source(DataConfig(source=file))


def test_columns_by_number(tmp_path):
    file = write(tmp_path / "a.csv", "1,good day,x\n2,bad day,y\n3,good night,x\n")
    data = DataConfig(source=file, text_columns=("1",), label_column="2")
    assert read(resolve_source(data)) == [("x", "good day"), ("y", "bad day"), ("x", "good night")]
    assert DataConfig(source=file, text_columns=[1], label_column=2) == data
    with pytest.raises(DataError, match="no column 3; its columns are 0 to 2"):
        resolve_source(DataConfig(source=file, text_columns=("3",), label_column="2"))


def test_a_column_that_is_named_by_a_digit(tmp_path):
    file = write(tmp_path / "a.csv", "0,1,2\nfirst text,x,y\nsecond text,z,y\n")
    source = resolve_source(DataConfig(source=file, text_columns=("0",), label_column="1"))
    assert read(source) == [("x", "first text"), ("z", "second text")]
    source = resolve_source(
        DataConfig(source=file, text_columns=("0",), label_column="1", header=False)
    )
    assert read(source)[0] == ("1", "0")


def test_numbers_of_columns_beside_a_header(tmp_path):
    file = write(tmp_path / "a.csv", "id,text,topic\n" + "a,one two,x\nb,three four,y\n" * 3)
    source = resolve_source(DataConfig(source=file, text_columns=("1",), label_column="2"))
    assert source.header
    assert "its first record names the columns: id, text, topic" in source.notes[0]
    assert len(read(source)) == 6
    other = DataConfig(source=file, text_columns=("1",), label_column="2", header=False)
    assert read(resolve_source(other))[0] == ("topic", "text")


def test_the_wanted_names_tell_the_delimiter(tmp_path):
    file = write(tmp_path / "a.csv", "label;text\na;x\nb;x;y\nb;x;y\n")
    source = resolve_source(DataConfig(source=file))
    table = pa.concat_tables(read_blocks(source, file))
    wrong = "3 fields, not 2 as in the header"
    assert table["problem"].to_pylist() == [None, wrong, wrong]


def test_the_settings_decide(tmp_path):
    file = write(tmp_path / "a.csv", "label#text\nx#a,b\ny#c;d\n")
    assert read(resolve_source(DataConfig(source=file, delimiter="#"))) == [
        ("x", "a,b"),
        ("y", "c;d"),
    ]
    with pytest.raises(DataError, match=r"no column 'text'; its columns are label#text"):
        resolve_source(DataConfig(source=file))
    file = write(tmp_path / "b.txt", "Some prose.\nAnd more of it.\n")
    with pytest.raises(
        DataError, match=r"not clear from its first line, 'Some prose.'; set data.f"
    ):
        resolve_source(DataConfig(source=file))
    source = resolve_source(DataConfig(source=file, format="label_first"))
    assert read(source) == [("Some", "prose."), ("And", "more of it.")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_names_the_encoding(tmp_path, encoding):
    text = "label,text\n" + "a,caf\u00e9\nb,\u4e2d\u6587\n" * 3
    file = write(tmp_path / "a.csv", text.encode(encoding))
    assert read(resolve_source(DataConfig(source=file)))[:2] == [
        ("a", "caf\u00e9"),
        ("b", "\u4e2d\u6587"),
    ]
    array = json.dumps([{"label": "a", "text": "caf\u00e9"}], ensure_ascii=False)
    file = write(tmp_path / "a.json", array.encode(encoding))
    assert read(resolve_source(DataConfig(source=file))) == [("a", "caf\u00e9")]


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("latin-1", "caf\u00e9 au lait", "latin-1"),
        ("cp1252", "caf\u00e9 \u2013 \u201cbon\u201d", "cp1252"),
        ("utf-16-le", "caf\u00e9", "utf-16-le"),
        ("utf-16-be", "caf\u00e9", "utf-16-be"),
    ],
)
def test_another_encoding_is_named(tmp_path, encoding, text, name):
    rows = [("a", text), ("b", text)] * 3
    file = write(
        tmp_path / "a.csv", ("label,text\n" + lines("{label},{text}", rows)).encode(encoding)
    )
    with pytest.raises(DataError, match=rf"a.csv: .*data.encoding: {name}( reads it)?$"):
        resolve_source(DataConfig(source=file))
    assert read(resolve_source(DataConfig(source=file, encoding=name))) == rows
    skipped = DataConfig(source=file, on_bad_rows="skip")
    if encoding in ("latin-1", "cp1252"):
        assert resolve_source(skipped).notes == (
            f"{file}: not UTF-8; data.encoding: {name} reads it",
        )


def test_one_bad_row_is_not_another_encoding(tmp_path):
    rows = "label,text\n" + "a,caf\u00e9\nb,\u4e2d\u6587\n" * 3
    file = write(tmp_path / "a.csv", rows.encode() + b"a,\xff\xfe\n")
    assert not resolve_source(DataConfig(source=file)).notes


# --- Folders -----------------------------------------------------------------------------


def test_a_folder_for_each_class(tmp_path):
    for split, classes in (("train", ("neg", "pos", "unsup")), ("test", ("neg", "pos"))):
        for name in classes:
            for number in (1, 2):
                write(tmp_path / split / name / f"{number}_7.txt", f"{split} {name}\n{number}\n")
        write(tmp_path / split / "labeledBow.feat", "9 0:9")
    write(tmp_path / "README", "about")
    source = resolve_source(DataConfig(source=str(tmp_path)))
    assert source.format == "class_folders"
    assert read(source) == [
        ("neg", "train neg\n1"), ("neg", "train neg\n2"),
        ("pos", "train pos\n1"), ("pos", "train pos\n2"),
    ]  # fmt: skip
    assert len(read(source, source.test)) == 4
    assert source.notes == (f"{tmp_path}/train/unsup: not read, its texts have no class",)
    write(tmp_path / "train" / "pos" / "3_1.txt", b"caf\xe9")
    problems = pa.concat_tables(read_blocks(source, source.train[1]))["problem"].to_pylist()
    assert problems == [None, None, "3_1.txt: bytes that are not UTF-8"]


def test_news_groups(tmp_path):
    for split in ("20news-bydate-train", "20news-bydate-test"):
        for name in ("alt.atheism", "sci.space"):
            write(tmp_path / split / name / "49960", f"From: {split}")
    source = resolve_source(DataConfig(source=str(tmp_path)))
    assert read(source) == [
        (name, "From: 20news-bydate-train") for name in ("alt.atheism", "sci.space")
    ]
    assert [Path(file).parent.name for file in source.test] == ["20news-bydate-test"] * 2
    train = DataConfig(
        source=f"{tmp_path}/20news-bydate-train", test_source=f"{tmp_path}/20news-bydate-test"
    )
    assert resolve_source(train) == source


CSV = "label,text\na,x\nb,y\n"
LAYOUTS = {
    "plain": (["train.csv", "test.csv"], (1, 0, 1)),
    "dev": (["train.tsv", "dev.tsv", "test.tsv"], (1, 1, 1)),
    "valid": (["train.jsonl", "valid.jsonl"], (1, 1, 0)),
    "validation": (["train.parquet", "validation.parquet", "test.parquet"], (1, 1, 1)),
    "shards": (
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet",
         "test-00000-of-00001.parquet", "README.md"],
        (2, 0, 1),
    ),
    "data": (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], (1, 0, 1)),
    "one": (["plain_text/train-00000-of-00001.parquet", ".huggingface/x"], (1, 0, 0)),
    "folders": (["train/a.csv", "train/b.csv", "test/c.csv"], (2, 0, 1)),
    "suffix": (["news_train.csv", "news_test.csv"], (1, 0, 1)),
    "numbered": (["train-1.csv", "train-2.csv", "test.csv"], (2, 0, 1)),
    "no names": (["a.csv", "b.csv"], (2, 0, 0)),
    "fasttext": (["train.txt", "test.txt", "classes.txt"], (1, 0, 1)),
    "gzip": (["train.csv.gz", "test.csv.gz"], (1, 0, 1)),
}  # fmt: skip


def make_layout(folder: Path, names) -> None:
    for name in names:
        path = folder / name
        content = {
            ".jsonl": '{"label": "a", "text": "x"}\n',
            ".tsv": CSV.replace(",", "\t"),
            ".txt": "__label__a x\n__label__b y\n",
            ".gz": gzip.compress(CSV.encode()),
        }.get(path.suffix, CSV)
        write(path, content)
        if path.suffix == ".parquet":
            pq.write_table(pa.table({"label": ["a", "b"], "text": ["x", "y"]}), path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_folders(tmp_path, layout):
    names, expected = LAYOUTS[layout]
    make_layout(tmp_path, names)
    source = resolve_source(DataConfig(source=str(tmp_path)))
    assert tuple(map(len, (source.train, source.validation, source.test))) == expected
    assert all("train" not in Path(file).name for file in (*source.validation, *source.test))


def test_a_glob_does_not_train_on_test_files(tmp_path):
    make_layout(tmp_path, ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"])
    source = resolve_source(DataConfig(source=f"{tmp_path}/*.parquet"))
    assert (len(source.train), len(source.test)) == (1, 1)


REFUSED = {
    "train-2": (["train.csv", "train-2.csv"], "several files of its train split: train-2.csv, t"),
    "two forms": (["train.csv", "train.jsonl"], "has several files of its train split"),
    "a part is missing": (["train-00000-of-00002.parquet"], "1 of 2 parts of its train split"),
    "no train": (["data.csv", "test.csv"], "no training file among data.csv, test.csv"),
    "unknown": (["a.xlsx", "b.doc", "x/y.bin"], "it holds a.xlsx, b.doc, x"),
    "nothing": ([".hidden"], "it holds nothing"),
    "one class": (["pos/1.txt", "b.doc"], "it holds b.doc, pos"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_folders_that_are_not_clear(tmp_path, name):
    files, message = REFUSED[name]
    make_layout(tmp_path, files)
    with pytest.raises(DataError, match=message):
        resolve_source(DataConfig(source=str(tmp_path)))


def test_files_that_are_not_read_are_named(tmp_path):
    make_layout(tmp_path, ["train.csv", "test.csv", "notes.csv"])
    source = resolve_source(DataConfig(source=str(tmp_path)))
    assert source.notes == (f"{tmp_path}: not read, as no split is named so: notes.csv",)


def test_a_file_in_two_splits(tmp_path, monkeypatch):
    make_layout(tmp_path, ["a.csv", "b.csv"])
    (tmp_path / "c.csv").symlink_to(tmp_path / "a.csv")
    monkeypatch.chdir(tmp_path)
    for test in ("a.csv", f"{tmp_path}/b.csv", "c.csv"):
        with pytest.raises(DataError, match=r"both a train and a test file \(data.test_source\)"):
            resolve_source(DataConfig(source="a.csv,b.csv", test_source=test))
    with pytest.raises(DataError, match="both a validation and a test file"):
        resolve_source(DataConfig(source="a.csv", test_source="b.csv", validation_source="b.csv"))


# --- Rows --------------------------------------------------------------------------------


def test_a_long_text_is_read(tmp_path):
    text = "word " * 100_000
    file = write(tmp_path / "a.csv", f"label,text\na,{text}\nb,y\n")
    assert [len(t) for _, t in read(resolve_source(DataConfig(source=file)))] == [499_999, 1]


def test_bad_lines_of_labels(tmp_path):
    content = "__label__a x\nno label\n__label__a __label__b y\n__label__ z\n\n__label__b\n"
    data = DataConfig(source=write(tmp_path / "a.ft", content), multi_label=False)
    source = resolve_source(data)
    table = pa.concat_tables(read_blocks(source, source.train[0]))
    several = "several labels (__label__a and __label__b); data.multi_label true reads such rows"
    assert table["problem"].to_pylist() == [
        None, "does not begin with __label__", several,
        "label is empty", None,
    ]  # fmt: skip
    content = "a\tx\n\nb y\n\tz\n"
    data = DataConfig(source=write(tmp_path / "a.label", content), delimiter="tab")
    source = resolve_source(data)
    assert source.format == "label_first"
    table = pa.concat_tables(read_blocks(source, source.train[0]))
    assert table["problem"].to_pylist() == [None, "no tab after the label", "label is empty"]


def test_a_label_before_a_tab_may_have_spaces(tmp_path):
    file = write(tmp_path / "a.label", "very good\tone two\nbad\tthree\n")
    assert read(resolve_source(DataConfig(source=file))) == [
        ("very good", "one two"), ("bad", "three")
    ]  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_larger_than_a_chunk(tmp_path, indent):
    records = [{"label": n % 2, "text": f"{n} " * 2_000} for n in range(200)]
    records.append({"label": 1, "text": "x" * 3_000_000})
    file = write(tmp_path / "a.json", json.dumps(records, indent=indent))
    assert [len(t) for _, t in read(resolve_source(DataConfig(source=file)))] == [
        len(record["text"].strip()) for record in records
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"label": 1, "text": "x"}', "row 2: the array is not closed"),
        ('[{"label": 1, "text": "x"} {"label"', "row 2: not JSON"),
        ('[{"label": 1, "text": "x"}, 12', "row 2: not JSON|row 3: the array is not closed"),
        ("[{]", "row 1: not JSON"),
        ("[]", "no rows"),
    ],
)
def test_broken_arrays(tmp_path, content, message):
    file = write(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=message):
        list(read_rows(file, RecordFormat(format="json")))


def test_labels_of_parquet_that_are_no_integers(tmp_path):
    labels = [1.0, float("nan"), None, 1.5, float("inf"), 2.0]
    table = pa.table({"label": pa.array(labels, from_pandas=False), "text": list("abcdef")})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = pa.concat_tables(read_rows(str(tmp_path / "a.parquet"), RecordFormat(format="parquet")))
    wrong = "label is NaN or not an integer"
    assert rows["problem"].to_pylist() == [None, wrong, "label is null", wrong, wrong, None]
    assert rows["label"].to_pylist()[::5] == ["1", "2"]


def test_numbers_beyond_64_bits(tmp_path):
    file = write(tmp_path / "a.jsonl", json.dumps({"label": 2**70, "text": "x", "id": 2**70}))
    table = next(read_rows(file, RecordFormat(format="jsonl")))
    assert table["label"].to_pylist() == [str(2**70)]
    with pytest.raises(DataError, match="cannot be read"):
        list(read_columns(file, RecordFormat(format="jsonl")))


def test_settings_that_cannot_be():
    for wrong in ({"encoding": "hex"}, {"encoding": "klingon"}, {"delimiter": "ab"}):
        with pytest.raises(ValueError, match="must be"):
            DataConfig(**wrong)
    assert DataConfig(delimiter="\\t").delimiter == DataConfig(delimiter="tab").delimiter == "\t"
    assert not issubclass(ConfigError, DataError)


# --- Whatever the bytes ------------------------------------------------------------------

TEXT_FORMS = sorted(set(FORMS) - {"parquet", "class_folders"})
PIECES = st.sampled_from(
    [b'"', b",", b"\n", b"\r", b"\t", b";", b" ", b"[", b"]", b"{", b"}", b"\\", b"\0", b"\xff",
     b"__label__a ", b'{"label": 1, "text": "x"}', b"label,text\n", b"1,a,b\n", b"\xc3\xa9",
     codecs.BOM_UTF16_LE, codecs.BOM_UTF8, codecs.BOM_UTF32_BE, b"NaN", b"1e999", b"9" * 30]
)  # fmt: skip
CONTENTS = st.lists(PIECES | st.binary(max_size=6), max_size=25).map(b"".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=CONTENTS,
    form=st.sampled_from(TEXT_FORMS),
    header=st.booleans(),
    encoding=st.sampled_from(["auto", "latin-1", "utf-16", "gbk"]),
)
def test_any_bytes_give_rows_or_one_error(tmp_path, content, form, header, encoding):
    file = write(tmp_path / "any", content)
    columns = ("text",) if header else ("1",)
    record_format = RecordFormat(
        format=form, header=header, encoding=encoding, text_columns=columns,
        label_column="label" if header else "0",
    )  # fmt: skip
    messages = []
    for reader in (read_rows, read_columns):
        try:
            for table in reader(file, record_format):
                table.validate(full=True)
        except RnntuneError as error:
            messages.append(str(error))
    assert all(message.startswith(file) for message in messages)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENTS, suffix=st.sampled_from([".csv", ".tsv", ".txt", ".json", ".parquet", ""]))
def test_any_bytes_are_recognised_or_refused(tmp_path, content, suffix):
    file = write(tmp_path / f"any{suffix}", content)
    message = file
    try:
        list(read_blocks(resolve_source(DataConfig(source=file)), file))
    except RnntuneError as error:
        message = str(error)
    assert message.startswith(file)


def test_the_first_of_many_files_tell_the_form(tmp_path, monkeypatch):
    for number in range(60):
        write(tmp_path / f"{number:02}.csv", CSV)
    looked: list[str] = []
    detect = sources.detect_format
    monkeypatch.setattr(
        sources, "detect_format", lambda file, data: looked.append(file) or detect(file, data)
    )
    assert len(resolve_source(DataConfig(source=str(tmp_path))).train) == 60
    assert len(looked) == 20
