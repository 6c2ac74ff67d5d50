import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from models import CLASSES, WORDS, texts, write_random_ensemble, write_random_model

import rnntune
from rnntune.cli.main import main
from rnntune.console import Terminal
from rnntune.data.batching import EncodedRows
from rnntune.data.task import Task
from rnntune.errors import ConfigError, DataError, RunError
from rnntune.inference.classifier import TextClassifier

pytest.importorskip("onnx", reason="onnx is not installed (extra `export`)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `export`)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra `export`)")

from rnntune.inference import export_source
from rnntune.inference.export import export_model
from rnntune.inference.low_rank import merge_tables
from rnntune.inference.onnx_builder import Precision

NGRAMS = {"ngrams": 2, "ngram_buckets": 64, "letter_buckets": 64, "recurrent_weight": 0.7}


@pytest.fixture
def exported(tmp_path):
    model = write_random_model(tmp_path / "model", max_length=12)
    export_model(model, str(tmp_path / "export"))
    return model, str(tmp_path / "export")


def _with_rows(monkeypatch, num_rows=400, classes=4):
    """Give a model validation rows, as the cache of its run would."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, num_rows).astype(np.int32)
    rows = EncodedRows(
        ids=rng.integers(1, len(WORDS) + 2, lengths.sum()).astype(np.int32),
        lengths=lengths,
        labels=rng.integers(0, classes, num_rows),
    )
    counts = np.bincount(rows.ids, minlength=len(WORDS) + 2)
    monkeypatch.setattr(export_source, "_own_rows", lambda *_: (rows, counts))
    return rows


@pytest.mark.parametrize("settings", [{}, {"packed": False, "cell": "gru"}, NGRAMS])
@pytest.mark.parametrize("tokenizer", ["basic_english", "words"])
def test_an_export_gives_what_its_model_gives(tmp_path, settings, tokenizer):
    model = write_random_model(
        tmp_path / "model", model=settings, tokenizer=tokenizer, clean=True, temperature=1.5
    )
    done = export_model(model, str(tmp_path / "export"))
    assert done.checks["parity"] < 1e-5
    assert done.checks["equal_labels"] == 1
    rows = [*texts(150), "", "\udcff the cup", "<b>the</b> cup's final", "CUP " * 40]
    found, expected = rnntune.load(done.output), rnntune.load(model)
    assert found.classes == CLASSES
    np.testing.assert_allclose(
        found.predict_proba(rows), expected.predict_proba(rows), rtol=0, atol=1e-5
    )
    assert found.predict(rows) == expected.predict(rows)
    assert found.predict_proba([]).shape == (0, 4)
    with pytest.raises(DataError, match="not one string"):
        found.predict("the cup")
    assert pickle.loads(pickle.dumps(found)).predict(rows[:5]) == expected.predict(rows[:5])


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch):
    model = write_random_model(tmp_path / "model")
    build = export_source.build_model
    monkeypatch.setattr(
        export_source, "build_model", lambda *a, **k: build(*a, **{**k, "temperature": 1.001})
    )
    with pytest.raises(RunError, match="not exported: the graph differs from the model by"):
        export_model(model, str(tmp_path / "export"))
    assert not (tmp_path / "export").exists()


def test_a_tokenizer_that_differs_is_refused(tmp_path, monkeypatch):
    model = write_random_model(tmp_path / "model")
    build = export_source.build_tokenizer
    monkeypatch.setattr(
        export_source, "build_tokenizer", lambda words, *a, **k: build(words[:9], *a, **k)
    )
    with pytest.raises(RunError, match=r"tokenizer\.json gives other tokens for"):
        export_model(model, str(tmp_path / "export"))


def test_eight_bits_are_measured_on_validation_rows(tmp_path, monkeypatch):
    rows = _with_rows(monkeypatch)
    sizes = {"hidden_size": 32, "embedding_dim": 64}
    model = write_random_model(tmp_path / "model", model=sizes, std=0.3)
    whole = export_model(model, str(tmp_path / "whole"))
    small = export_model(model, str(tmp_path / "small"), quantize="int8")
    assert whole.checks["rows"] == small.checks["rows"] == len(rows)
    assert whole.checks["accuracy"] == whole.checks["model_accuracy"]
    assert small.checks["equal_labels"] >= 0.995
    assert small.files["model.onnx"] < 0.4 * whole.files["model.onnx"]  # names and shapes stay
    about = json.loads((tmp_path / "small" / "metadata.json").read_text())
    assert about["checks"] == small.checks
    assert (about["table_bits"], about["matrix_bits"]) == (8, 8)


def test_eight_bits_that_change_labels_are_refused(tmp_path, monkeypatch):
    _with_rows(monkeypatch)
    model = write_random_model(tmp_path / "model")
    build = export_source.build_model

    def coarse(weights, *args, precision, **kwargs):
        if precision.tables == 8:
            weights = {**weights, "classifier.bias": np.array([9, 0, 0, 0], dtype=np.float32)}
        return build(weights, *args, precision=precision, **kwargs)

    monkeypatch.setattr(export_source, "build_model", coarse)
    with pytest.raises(RunError, match=r"with 8 bits .* of 400 validation rows are equal"):
        export_model(model, str(tmp_path / "export"), quantize="int8")
    assert not (tmp_path / "export").exists()


def test_a_size_is_kept_and_its_words_are_the_first(tmp_path, monkeypatch):
    _with_rows(monkeypatch)
    model = write_random_model(tmp_path / "model", model=NGRAMS)
    whole = export_model(model, str(tmp_path / "whole"))
    least = whole.num_bytes - 700
    small = export_model(model, str(tmp_path / "small"), max_bytes=least)
    assert small.num_bytes <= least
    assert sum(file.stat().st_size for file in (tmp_path / "small").iterdir()) == small.num_bytes
    assert rnntune.load(small.output).predict_proba(["the cup final"]).shape == (1, 4)
    with pytest.raises(ConfigError, match=r"100 bytes are too few; the smallest export has"):
        export_model(model, str(tmp_path / "tiny"), max_bytes=100)


def test_a_branch_of_n_grams_leaves_out_what_moves_least(tmp_path, monkeypatch):
    _with_rows(monkeypatch)
    buckets = {**NGRAMS, "ngram_buckets": 40_000, "letter_buckets": 40_000}
    model = write_random_model(tmp_path / "model", model=buckets, std=0.5)
    lines = []
    small = export_model(model, str(tmp_path / "small"), max_bytes=300_000, terminal=_Lines(lines))
    assert small.num_bytes <= 300_000 < 0.3 * (tmp_path / "model/model.safetensors").stat().st_size
    assert "% of the n-grams" in lines[-1]
    assert small.checks["divergence"] < 0.1


class _Lines(Terminal):
    def __init__(self, lines):
        super().__init__(silent=True)
        self.line = lines.append


def test_features_of_all_texts_alone_change_nothing(tmp_path):
    model = write_random_model(tmp_path / "model", model=NGRAMS)
    source = export_source.read_source(model)
    found = source.build(export_source.Form(ngram_share=1.0)).predict_proba(texts(60))
    expected = source.classifier.predict_proba(texts(60))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_words_are_kept_that_would_be_missed_most(tmp_path, monkeypatch):
    rows = _with_rows(monkeypatch)
    model = write_random_model(tmp_path / "model")
    source = export_source.read_source(model)
    weights = dict(source.weights)
    weights["embedding.weight"] = weights["embedding.weight"].copy()
    like_unknown = [3, 4, 5]
    weights["embedding.weight"][like_unknown] = weights["embedding.weight"][1]
    source = dataclasses.replace(source, weights=weights)
    form = export_source.Form(num_words=len(source.words) - 3)
    kept = source.kept_words(form).tolist()
    assert kept == [n for n in range(len(source.words)) if n not in like_unknown]
    cut = source.build(form)
    assert cut.description.num_words == len(kept)
    recoded = source.encode_again(rows, form)
    expected = source.build(export_source.Form()).predict_encoded(rows)
    np.testing.assert_allclose(cut.predict_encoded(recoded), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, NGRAMS])
def test_a_few_bytes_a_word(tmp_path, settings):
    model = write_random_model(tmp_path / "model", model=settings)
    source = export_source.read_source(model)
    form = export_source.Form(rank=8, pieces=4, precision=Precision(tables=8, matrices=32))
    coded = source.build(form)
    assert coded.description.table_bits == 4
    expected = source.classifier.predict_proba(texts(60))
    np.testing.assert_allclose(coded.predict_proba(texts(60)), expected, rtol=0, atol=0.03)
    kept = source.kept_words(dataclasses.replace(form, num_words=10))
    words = " ".join(source.words[number] for number in kept[2:])
    cut = source.build(dataclasses.replace(form, num_words=10))
    np.testing.assert_allclose(
        cut.predict_proba([words]), coded.predict_proba([words]), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("settings", [{}, NGRAMS])
def test_dropped_words_are_unknown_words(tmp_path, settings):
    model = write_random_model(tmp_path / "model", model=settings)
    source = export_source.read_source(model)
    cut = source.build(export_source.Form(num_words=10))
    kept = source.kept_words(export_source.Form(num_words=10))
    words = [source.words[number] for number in kept[2:]]
    assert set(np.concatenate(cut.encode(list(source.words[2:])))) == set(range(1, 10))
    known = [f"{a} {b}" for a in words for b in words]
    expected = source.classifier.predict_proba(known)
    np.testing.assert_allclose(cut.predict_proba(known), expected, rtol=0, atol=1e-5)
    other = next(word for word in source.words[2:] if word not in words)
    dropped = [f"{words[0]} {other}", f"{words[0]} zebra"]
    found = cut.predict_proba(dropped)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_a_table_of_all_numbers_changes_nothing_and_of_few_the_least():
    rng = np.random.default_rng(0)
    weights = {
        "embedding.weight": rng.normal(size=(30, 4)).astype(np.float32),
        "frozen.weight": rng.normal(size=(40, 5)).astype(np.float32),
        "rnn.weight_ih_l0": rng.normal(size=(12, 9)).astype(np.float32),
        "rnn.weight_ih_l0_reverse": rng.normal(size=(12, 9)).astype(np.float32),
    }
    rows = np.r_[0:30, [1] * 10]  # words that have a vector alone have the unknown word's row
    whole = np.concatenate([weights["embedding.weight"][rows], weights["frozen.weight"]], axis=1)
    for name in ("rnn.weight_ih_l0", "rnn.weight_ih_l0_reverse"):
        errors = []
        for rank in (9, 6, 3):
            merged = merge_tables(weights, rank)
            assert merged["embedding.weight"].shape == (40, rank)
            assert "frozen.weight" not in merged
            error = merged["embedding.weight"] @ merged[name].T - whole @ weights[name].T
            errors.append(float(np.abs(error).mean()))
        assert errors[0] < 1e-5 < errors[1] < errors[2]


def test_words_that_have_vectors_alone_are_exported_too(tmp_path):
    model = write_random_model(tmp_path / "model", model=NGRAMS)
    source = export_source.read_source(model)
    network, description = source.classifier._model, source.classifier.description
    from rnntune.model.network import Classifier
    from rnntune.model.ngrams import letter_ngrams

    torch.manual_seed(0)
    letters = letter_ngrams(source.words[:12])
    extended = Classifier(
        network.config,
        len(source.words),
        4,
        torch.randn(len(source.words), 5),
        letters,
        num_trained_words=12,
    ).eval()
    weights = {name: value.numpy() for name, value in extended.state_dict().items()}
    from rnntune.data.vocabulary import Lookup

    whole = export_source.ExportSource(
        classifier=TextClassifier(extended, Lookup(source.words), description),
        words=source.words,
        weights=weights,
        rows=None,
    )
    for form in (export_source.Form(), export_source.Form(rank=8 + 5)):
        found = whole.build(form).predict_proba(texts(60))
        expected = whole.classifier.predict_proba(texts(60))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_the_commands(exported, tmp_path, capsys):
    model, folder = exported
    assert main(["export", model, "--output", folder]) == 2
    assert "an export is there already; use --overwrite" in capsys.readouterr().err
    again = ["export", model, "--output", folder, "--overwrite", "--quantize", "int8", "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out)["table_bits"] == 8
    assert main(["export", model, "--output", str(tmp_path)]) == 2
    assert "not empty and holds no export" in capsys.readouterr().err
    assert main(["export", model, "--output", folder, "--max-size", "2 parsecs"]) == 2
    assert "--max-size 2 parsecs: not a size such as 2MB" in capsys.readouterr().err


def _alone(*commands: list[str]) -> str:
    """Run commands in a process that must load neither torch nor Ray; gives what it prints."""
    code = (
        "import sys\nfrom rnntune.cli.main import main\n"
        f"for command in {commands!r}:\n    assert main(command) == 0\n"
        "assert not {'torch', 'ray', 'torchmetrics'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_export_does_without_torch(exported, tmp_path):
    model, folder = exported
    rows = texts(50)
    labels = rnntune.load(model).predict(rows)
    lines = [json.dumps({"text": t, "label": n}) for t, n in zip(rows, labels, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    file, output = str(tmp_path / "rows.jsonl"), str(tmp_path / "out")
    printed = _alone(
        ["predict", folder, "the cup final", "--json"],
        ["predict", folder, "--input", file, "--output", output, "--format", "jsonl", "--json"],
        ["evaluate", folder, "--data", file, "--json"],
    )
    one, files, scores = map(json.loads, printed.splitlines())
    assert one["label"] == rnntune.load(model).predict(["the cup final"])[0]
    assert files["rows"] == scores["rows"] == 50
    part = tmp_path / "out" / files["files"][0]
    assert [json.loads(row)["predicted"] for row in part.read_text().splitlines()] == labels
    assert scores["accuracy"] == 1


def test_the_ten_lines_of_the_readme(exported, tmp_path):
    model, folder = exported
    code = (tmp_path / "export" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 10
    code = code.replace('"Stocks fall as oil hits a record"', '"the cup final ends", ""')
    alone = "import sys\n" + code + "assert 'torch' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-c", alone], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = ["the cup final ends", "", "The cup final ends in a draw"]
    assert done.stdout.strip() == str(rnntune.load(model).predict(rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"no graph", "damaged"),
        ("tokenizer.json", b"{}", "damaged"),
        ("tokenizer.json", b"\xff", "is not an export's"),
        ("metadata.json", b"{}", "is not an export's"),
        ("metadata.json", None, "was not finished"),
    ],
)
def test_a_damaged_export_is_refused(exported, tmp_path, name, content, message):
    file = tmp_path / "export" / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(RunError, match=message):
        rnntune.load(exported[1])


MEMBERS = [(3, {"hidden_size": 5}), (2, {"cell": "gru", "pooling": "mean"}), (1, NGRAMS)]


@pytest.mark.parametrize("several", [False, True])
def test_an_ensemble_is_one_graph(tmp_path, several):
    settings = {"task": Task.MULTI_LABEL, "thresholds": (0.3, 0.5, 0.6, 0.4)} if several else {}
    settings["temperature"] = 1.0 if several else 1.4
    model = write_random_ensemble(tmp_path / "model", MEMBERS, **settings)
    done = export_model(model, str(tmp_path / "export"))
    assert done.checks["parity"] < 1e-5
    found, expected = rnntune.load(done.output), rnntune.load(model)
    rows = [*texts(80), ""]
    np.testing.assert_allclose(
        found.predict_proba(rows), expected.predict_proba(rows), rtol=0, atol=1e-5
    )
    assert found.predict(rows) == expected.predict(rows)


def test_an_ensemble_in_eight_bits(tmp_path, monkeypatch):
    _with_rows(monkeypatch)
    settings = {"hidden_size": 32, "embedding_dim": 64}
    model = write_random_ensemble(tmp_path / "model", [(1, settings), (1, settings)], std=0.3)
    whole = export_model(model, str(tmp_path / "whole"))
    small = export_model(model, str(tmp_path / "small"), quantize="int8")
    assert small.checks["equal_labels"] >= 0.995
    assert small.files["model.onnx"] < 0.4 * whole.files["model.onnx"]
    with pytest.raises(ConfigError, match=r"--max-size: .*model holds 2 networks"):
        export_model(model, str(tmp_path / "fitted"), max_bytes=100_000)
    assert not (tmp_path / "fitted").exists()


def test_what_networks_share_is_stored_once(tmp_path):
    import onnx

    model = write_random_ensemble(tmp_path / "model", [(1, NGRAMS), (1, NGRAMS)])
    graph = export_source.read_source(model).build(export_source.Form()).files[0]
    names = [constant.name for constant in onnx.load_from_string(graph).graph.initializer]
    assert len(names) == len(set(names))
    assert "member_0.embedding.weight" in names
    assert "member_1.embedding.weight" in names
    alone = export_source.read_source(f"{model}-0").build(export_source.Form()).files[0]
    several = len([name for name in names if name.startswith("constant_")])
    initializers = onnx.load_from_string(alone).graph.initializer
    assert several < 1.5 * len([c for c in initializers if c.name.startswith("constant_")])
