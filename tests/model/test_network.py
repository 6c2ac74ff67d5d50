import itertools

import numpy as np
import pytest
import torch
from models import PLAIN
from strategies import coded_rows

from rnntune.config.schema import ModelConfig
from rnntune.data.batching import EncodedRows, collate
from rnntune.data.vocabulary import PAD
from rnntune.errors import ConfigError
from rnntune.model.network import Classifier, num_parameters

CELLS = ("rnn", "lstm", "gru")
POOLINGS = ("last", "mean", "max")


def _config(**settings) -> ModelConfig:
    steady = {"embedding_dropout": 0.0, "dropout": 0.0, "word_dropout": 0.0}
    sizes = {"embedding_dim": 6, "hidden_size": 5}
    return ModelConfig(**{**PLAIN, **sizes, **steady, **settings})


def _rows(*row_lengths: int) -> EncodedRows:
    found = coded_rows(np.array(row_lengths, dtype=np.int32))
    ids = found.ids % 37 + 2
    return EncodedRows(ids=ids.astype(np.int32), lengths=found.lengths, labels=found.labels)


@pytest.mark.parametrize(
    ("cell", "pooling", "bidirectional", "num_layers"),
    list(itertools.product(CELLS, POOLINGS, (False, True), (1, 2))),
)
def test_a_batch_equals_its_rows_one_by_one(cell, pooling, bidirectional, num_layers):
    torch.manual_seed(0)
    config = _config(cell=cell, pooling=pooling, bidirectional=bidirectional, num_layers=num_layers)
    model = Classifier(config, 40, 3).eval()
    rows = _rows(4, 1, 9, 4, 6)
    batch = collate(rows, np.arange(5))
    assert not batch.same_length
    together = model(batch.ids, batch.lengths, same_length=batch.same_length)
    assert together.shape == (5, 3)
    for row in range(5):
        alone = collate(rows, np.array([row]))
        assert alone.same_length
        logits = model(alone.ids, alone.lengths, same_length=True)
        torch.testing.assert_close(together[row], logits[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_packing_a_uniform_batch_changes_nothing(pooling):
    torch.manual_seed(0)
    model = Classifier(_config(pooling=pooling, cell="lstm"), 40, 3).eval()
    batch = collate(_rows(7, 7, 7), np.arange(3))
    plain = model(batch.ids, batch.lengths, same_length=True)
    packed = model(batch.ids, batch.lengths, same_length=False)
    torch.testing.assert_close(plain, packed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_unpacked_reads_the_padding(pooling):
    torch.manual_seed(0)
    batch = collate(_rows(3, 9), np.arange(2))
    packed = Classifier(_config(pooling=pooling, bidirectional=False), 40, 3).eval()
    padded = Classifier(_config(pooling=pooling, bidirectional=False, packed=False), 40, 3).eval()
    padded.load_state_dict(packed.state_dict())
    with_padding = padded(batch.ids, batch.lengths)
    without = packed(batch.ids, batch.lengths)
    assert not torch.allclose(with_padding[0], without[0], atol=1e-5)
    torch.testing.assert_close(with_padding[1], without[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("packed", "moves"), [(True, False), (False, True)])
def test_padding_is_trained_where_it_is_read(packed, moves):
    model = Classifier(_config(packed=packed), 40, 3)
    batch = collate(_rows(3, 9), np.arange(2))
    model(batch.ids, batch.lengths).square().sum().backward()
    assert bool(model.embedding.weight.grad[PAD].any()) == moves


def test_the_embedding_starts_with_the_spread_that_is_asked_for():
    torch.manual_seed(0)
    model = Classifier(_config(embedding_std=0.25), 4000, 3)
    assert abs(float(model.embedding.weight.detach().std()) - 0.25) < 0.01


def test_an_lstm_starts_with_open_forget_gates():
    model = Classifier(_config(num_layers=2), 40, 3)
    for layer in ("l0", "l1", "l0_reverse", "l1_reverse"):
        bias = getattr(model.rnn, f"bias_ih_{layer}") + getattr(model.rnn, f"bias_hh_{layer}")
        assert bias[5:10].tolist() == [1.0] * 5
        assert not (bias[:5] == 1.0).any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sparse", [False, True])
def test_every_parameter_gets_gradient(cell, sparse):
    torch.manual_seed(0)
    model = Classifier(_config(cell=cell, num_layers=2), 40, 3, sparse=sparse)
    batch = collate(_rows(4, 6), np.arange(2))
    model(batch.ids, batch.lengths).square().sum().backward()
    for name, parameter in model.named_parameters():
        gradient = (
            parameter.grad.to_dense() if sparse and name.startswith("emb") else parameter.grad
        )
        assert gradient.abs().sum() > 0, name


def test_frozen_vectors_stand_beside_the_embedding():
    vectors = torch.randn(40, 4)
    model = Classifier(_config(), 40, 3, vectors)
    batch = collate(_rows(4, 6), np.arange(2))
    model(batch.ids, batch.lengths).sum().backward()
    assert model.rnn.input_size == 6 + 4
    assert model.frozen.weight.grad is None
    torch.testing.assert_close(model.frozen.weight, vectors)


def test_vectors_that_are_not_frozen_are_the_start():
    vectors = torch.randn(40, 6)
    vectors[5] = 0  # a word without a vector keeps its random start
    model = Classifier(_config(freeze_word_vectors=False), 40, 3, vectors)
    torch.testing.assert_close(model.embedding.weight[6:], vectors[6:])
    assert model.embedding.weight[5].abs().sum() > 0
    with pytest.raises(ConfigError, match="embedding_dim is 6"):
        Classifier(_config(freeze_word_vectors=False), 40, 3, torch.randn(40, 7))


def test_word_dropout_works_in_training_alone():
    model = Classifier(_config(word_dropout=0.9), 40, 3)
    batch = collate(_rows(30, 30), np.arange(2))
    model.train()
    dropped = (model.embed(batch.ids) == model.embedding.weight[1]).all(dim=2)
    assert 0.5 < dropped.float().mean() < 1
    model.eval()
    assert not (model.embed(batch.ids) == model.embedding.weight[1]).all(dim=2).any()


def test_embedding_dropout_drops_the_same_of_all_words_of_a_text():
    model = Classifier(_config(embedding_dim=200, embedding_dropout=0.4), 40, 3)
    batch = collate(_rows(9, 9, 9), np.arange(3))
    model.train()
    embedded = model.embed(batch.ids)  # (batch, time, embedding)
    dropped = embedded == 0
    assert (dropped == dropped[:, :1]).all()
    assert (dropped[0, 0] != dropped[1, 0]).any()
    assert 0.3 < dropped.float().mean() < 0.5
    scaled = model.embedding(batch.ids) / 0.6
    torch.testing.assert_close(embedded[~dropped], scaled[~dropped])
    model.eval()
    torch.testing.assert_close(model.embed(batch.ids), model.embedding(batch.ids))


def test_parameters_are_counted():
    model = Classifier(_config(bidirectional=False), 40, 3)
    lstm = 4 * (6 * 5 + 5 * 5 + 5 + 5)
    assert num_parameters(model) == 40 * 6 + lstm + 5 * 3 + 3


def test_the_recurrent_layers_read_so_many_tokens():
    torch.manual_seed(0)
    model = Classifier(_config(recurrent_length=4), 40, 3).eval()
    batch = collate(_rows(9, 2, 5), np.arange(3))
    cut = model(batch.ids[:, :4], batch.lengths.clamp(max=4))
    torch.testing.assert_close(model(batch.ids, batch.lengths), cut)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_padding_changes_nothing_of_windows(pooling):
    torch.manual_seed(0)
    model = Classifier(_config(window=3, pooling=pooling), 40, 3).eval()
    batch = collate(_rows(9, 2, 5), np.arange(3))
    logits = model(batch.ids, batch.lengths)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = batch.ids[row : row + 1, :length]
        for same_length in (True, False):
            found = model(alone, torch.tensor([length]), same_length=same_length)
            torch.testing.assert_close(found, logits[row : row + 1])


def test_a_window_forgets_what_lies_before_it():
    torch.manual_seed(0)
    settings = {"bidirectional": False, "pooling": "last"}
    model = Classifier(_config(window=3, **settings), 40, 3).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9], [30, 31, 7, 8, 9]])
    first, second = model(ids, torch.tensor([5, 5]))
    torch.testing.assert_close(first, second)
    ids[1, 2] = 20
    assert not torch.allclose(*model(ids, torch.tensor([5, 5])))
