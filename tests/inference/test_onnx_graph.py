import itertools

import numpy as np
import pytest
import torch
from models import PLAIN

from rnntune.config.schema import ModelConfig
from rnntune.model.network import Classifier
from rnntune.model.ngrams import framed_letters, letter_ngrams

pytest.importorskip("onnx", reason="onnx is not installed (extra `export`)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from rnntune.inference.onnx_builder import Precision  # noqa: E402
from rnntune.inference.onnx_graph import build_model  # noqa: E402

WORDS = [
    "<pad>",
    "<unk>",
    *("".join(w) for n in (1, 2, 4) for w in itertools.product("abc", repeat=n)),
]
SIZES = {
    "embedding_dim": 6,
    "hidden_size": 5,
    "ngram_buckets": 97,
    "letter_buckets": 0,
    "recurrent_weight": 0.7,
}
SHAPES = [(1, 1), (3, 256), (9, 17), (64, 5)]


def _network(*, vectors=False, **settings) -> Classifier:
    torch.manual_seed(0)
    config = ModelConfig(**{**PLAIN, **SIZES, **settings})
    letters = letter_ngrams(WORDS) if config.letter_buckets else None
    table = torch.randn(len(WORDS), 4) if vectors else None
    model = Classifier(config, len(WORDS), 4, table, letters).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6)
        if model.ngrams is not None:
            model.ngrams.idf.uniform_(0, 3)
            model.ngrams.idf[:2] = 0
    return model


def _session(model: Classifier, **options) -> "onnxruntime.InferenceSession":
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    letters = framed_letters(WORDS) if model.config.letter_buckets else None
    graph = build_model(weights, model.config, letters, **options)
    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = threads.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), threads)


def _expected(model: Classifier, ids, lengths, temperature: float):
    """Row by row, so that nothing depends on padding."""
    rows = []
    with torch.inference_mode():
        for row, length in zip(torch.from_numpy(ids), lengths.tolist(), strict=True):
            alone = row[None, :length]
            logits = model(alone, torch.tensor([length]), same_length=True)
            rows.append((logits / temperature).softmax(dim=1))
    return torch.cat(rows).numpy()


def _check(model: Classifier, temperature: float = 1.7) -> None:
    session = _session(model, temperature=temperature)
    rng = np.random.default_rng(0)
    for rows, longest in SHAPES:
        lengths = rng.integers(1, longest + 1, rows)
        ids = rng.integers(1, len(WORDS), (rows, longest))
        found = session.run(None, {"ids": ids, "lengths": lengths})[0]
        assert found.dtype == np.float32
        expected = _expected(model, ids, lengths, temperature)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "pooling", "bidirectional", "num_layers"),
    list(itertools.product(("rnn", "lstm", "gru"), ("last", "mean", "max"), (False, True), (1, 2))),
)
@pytest.mark.parametrize(
    ("packed", "vectors", "window"),
    [(True, False, None), (False, True, None), (True, False, 1), (True, False, 4)],
)
def test_the_graph_gives_what_the_network_gives(
    cell, pooling, bidirectional, num_layers, packed, vectors, window
):
    _check(
        _network(
            cell=cell,
            pooling=pooling,
            bidirectional=bidirectional,
            num_layers=num_layers,
            packed=packed,
            vectors=vectors,
            window=window,
        )
    )


@pytest.mark.parametrize("ngrams", [1, 3])
@pytest.mark.parametrize("letter_buckets", [0, 50, 70_000])
@pytest.mark.parametrize("recurrent_length", [None, 3])
def test_n_grams_beside_the_recurrent_layers(ngrams, letter_buckets, recurrent_length):
    _check(
        _network(
            ngrams=ngrams,
            ngram_buckets=97,
            letter_buckets=letter_buckets,
            recurrent_length=recurrent_length,
        )
    )


@pytest.mark.parametrize("ngrams", [0, 2])
def test_a_text_without_a_token_is_one_unknown_word(ngrams):
    model = _network(ngrams=ngrams, ngram_buckets=50, letter_buckets=20 if ngrams else 0)
    session = _session(model)
    unknown = _expected(model, np.array([[1]]), np.array([1]), 1.0)
    for ids in (np.zeros((2, 0)), np.zeros((2, 1)), np.full((2, 4), 7)):
        given = {"ids": ids.astype(np.int64), "lengths": np.zeros(2, dtype=np.int64)}
        found = session.run(None, given)[0]
        np.testing.assert_allclose(found, np.repeat(unknown, 2, axis=0), atol=1e-5)


def test_what_lies_behind_the_end_of_a_row_is_not_read():
    model = _network(ngrams=2, ngram_buckets=50)
    session = _session(model)
    ids, lengths = np.array([[5, 6, 0, 0], [7, 8, 9, 2]]), np.array([2, 4])
    clean = session.run(None, {"ids": ids, "lengths": lengths})[0]
    ids[0, 2:] = -99
    np.testing.assert_array_equal(session.run(None, {"ids": ids, "lengths": lengths})[0], clean)


@pytest.mark.parametrize(("tables", "matrices", "most"), [(8, 8, 0.02), (4, 8, 0.2), (32, 8, 0.02)])
def test_fewer_bits_change_little(tables, matrices, most):
    settings = {"ngrams": 2, "ngram_buckets": 97, "letter_buckets": 50, "embedding_dim": 7}
    model = _network(vectors=True, **settings)
    session = _session(model, precision=Precision(tables=tables, matrices=matrices))
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(1, len(WORDS), (50, 20)), rng.integers(1, 21, 50)
    found = session.run(None, {"ids": ids, "lengths": lengths})[0]
    distance = np.abs(found - _expected(model, ids, lengths, 1.0)).max()
    assert 0 < distance < most
