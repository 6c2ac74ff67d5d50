import json

import pyarrow as pa
import pytest
from models import write_random_model

from rnntune.cli.main import main
from rnntune.config.schema import DataConfig
from rnntune.data.formats.records import read_columns
from rnntune.errors import DataError
from rnntune.inference.inputs import find_inputs

FILES = {
    "a.csv": "id,text\n1,the cup\n2,a final\n",
    "semicolon.csv": "id;text\n1;the cup\n2;a final\n",
    "a.tsv": "text\nthe cup\na final\n",
    "a.json": json.dumps([{"text": "the cup"}, {"text": "a final"}]),
    "a.ft": "__label__x the cup\na final\n",
    "a.label": "x the cup\ny a final\n",
}


@pytest.mark.parametrize("name", FILES)
def test_texts_without_labels(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    (file,) = find_inputs([str(tmp_path / name)], DataConfig(), None)
    table = pa.concat_tables(read_columns(file.uri, file.form))
    assert table["text"].to_pylist() == ["the cup", "a final"]


def test_a_folder_of_texts(tmp_path):
    for split, name in (("pos", "1"), ("pos", "2"), ("neg", "1")):
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / f"{name}.txt").write_text(f"{split} {name}")
    files = find_inputs([str(tmp_path)], DataConfig(), None)
    tables = [pa.concat_tables(read_columns(file.uri, file.form)).to_pydict() for file in files]
    assert tables == [
        {"label": ["neg"], "name": ["1.txt"], "text": ["neg 1"]},
        {"label": ["pos"] * 2, "name": ["1.txt", "2.txt"], "text": ["pos 1", "pos 2"]},
    ]
    (only,) = find_inputs([str(tmp_path / "pos")], DataConfig(), None)
    assert only.form.format == "class_folders"


def test_columns_of_the_model_by_number(tmp_path):
    (tmp_path / "a.tsv").write_text("ham\tthe cup\nspam\ta final\n")
    data = DataConfig(text_columns=("1",))
    (file,) = find_inputs([str(tmp_path / "a.tsv")], data, None)
    assert pa.concat_tables(read_columns(file.uri, file.form))["1"].to_pylist() == [
        "the cup", "a final"
    ]  # fmt: skip
    with pytest.raises(DataError, match="no column '7'"):
        find_inputs([str(tmp_path / "a.tsv")], DataConfig(text_columns=("7",)), None)


def test_settings_of_inputs(tmp_path):
    (tmp_path / "a.txt").write_bytes("caf\u00e9 one#2\nth\u00e9 two#3\n".encode("latin-1"))
    data = DataConfig(
        format="csv", delimiter="#", header=False, encoding="latin-1", text_columns=("0",)
    )
    (file,) = find_inputs([str(tmp_path / "a.txt")], data, None)
    assert pa.concat_tables(read_columns(file.uri, file.form))["0"].to_pylist() == [
        "caf\u00e9 one", "th\u00e9 two"
    ]  # fmt: skip


def test_the_commands_read_such_files(without_ray, tmp_path, capsys):
    model = write_random_model(tmp_path / "model")
    (tmp_path / "a.tsv").write_text("text\n=the cup\na final\n")
    command = ["predict", model, "--input", f"{tmp_path}/a.tsv", "--output", f"{tmp_path}/out"]
    assert main([*command, "--format", "csv", "--data.delimiter", "tab"]) == 0
    (part,) = tmp_path.glob("out/part-*.csv")
    assert part.read_text().splitlines()[1].startswith(f"{tmp_path}/a.tsv,1,'=the cup,")
    assert main([*command, "--format", "csv", "--no-escape", "--overwrite"]) == 0
    assert ",1,=the cup," in part.read_text()
    for split, name in (("World", "1"), ("Sports", "1"), ("Sports", "2")):
        (tmp_path / "texts" / split).mkdir(exist_ok=True, parents=True)
        (tmp_path / "texts" / split / f"{name}.txt").write_text(f"the {split} {name}")
    capsys.readouterr()
    assert main(["evaluate", model, "--data", f"{tmp_path}/texts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
