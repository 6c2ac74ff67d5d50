import json

import numpy as np
import pytest
from models import CLASSES, texts, write_random_model

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.data.batching import EncodedRows
from rnntune.data.encoded_files import write_encoded
from rnntune.data.prepared import PreparedDataset, Split
from rnntune.data.vocabulary import Lookup
from rnntune.errors import ConfigError, RunError
from rnntune.inference import own_split
from rnntune.inference.classifier import load
from rnntune.inference.evaluate import evaluate


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder, and its test split of 50 rows in two files in the cache."""
    uri = tmp_path / "run"
    write_random_model(uri / "model")
    (uri / "config.yaml").write_text(Config.load(None, {"data.source": "rows.csv"}).to_yaml())
    vocab = (uri / "model" / "vocab.txt").read_text()
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "vocab.txt").write_text(vocab)
    (tmp_path / "manifest.json").write_text("{}")
    lookup = Lookup(vocab.split("\n")[:-1])
    labels = np.arange(50, dtype=np.int32) % 4
    files = []
    for start, end in ((0, 30), (30, 50)):
        ids, lengths = lookup.encode(texts(50)[start:end], 12)
        files.append(str(tmp_path / f"test-{start}.parquet"))
        write_encoded(files[-1], EncodedRows(ids=ids, lengths=lengths, labels=labels[start:end]))
    split = Split(
        files=tuple(files), file_rows=(30, 20), num_rows=50, num_tokens=0, num_known=0, num_cut=0,
        class_rows=(), length_rows=(),
    )  # fmt: skip
    prepared = PreparedDataset(
        uri=str(rows), fingerprint="f", classes=CLASSES, splits={"test": split}, num_skipped=0,
        problems=(), num_words=len(lookup), num_trained_words=len(lookup), rows_per_s=1.0,
        tokenizer="basic_english", clean=False,
    )  # fmt: skip
    monkeypatch.setattr(own_split, "prepare", lambda *_, **__: prepared)
    return str(uri)


def test_the_own_test_split_is_scored_without_data_and_without_ray(run, capsys, tmp_path):
    errors = tmp_path / "errors.jsonl"
    assert main(["evaluate", run, "--json", "--errors", str(errors)]) == 0
    out, err = capsys.readouterr()
    given = load(run).predict(texts(50))
    right = [name == CLASSES[row % 4] for row, name in enumerate(given)]
    assert json.loads(out)["rows"] == 50
    assert json.loads(out)["accuracy"] == np.mean(right)
    assert "scoring the run's own test split: 50 rows of rows.csv" in err
    wrong = [json.loads(line) for line in errors.read_text().splitlines()]
    assert sorted(row["row"] - 1 for row in wrong) == np.flatnonzero(~np.array(right)).tolist()
    first = min(wrong, key=lambda row: row["row"])
    assert first["text"] == " ".join(texts(50)[first["row"] - 1].split()[:12])


def test_other_words_in_the_cache_are_refused(run, tmp_path):
    vocab = (tmp_path / "rows" / "vocab.txt").read_text()
    (tmp_path / "rows" / "vocab.txt").write_text(vocab.replace("cup", "mug"))
    with pytest.raises(RunError, match=r"rows\.csv: no longer the data of the run"):
        evaluate(run, None)


def test_a_model_without_a_run_needs_data(tmp_path):
    model = write_random_model(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"model: a model without its run; .* --data"):
        evaluate(model, None)


def test_settings_of_data_need_data(run, capsys):
    assert main(["evaluate", run, "--data.on_bad_rows", "skip"]) == 2
    assert "data.on_bad_rows without --data" in capsys.readouterr().err
