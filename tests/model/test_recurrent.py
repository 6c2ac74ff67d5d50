import itertools

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnntune.model.recurrent import masked_outputs


def _layers(cell: str, **settings) -> torch.nn.RNNBase:
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    return kind(4, 5, batch_first=True, **settings)


@pytest.mark.parametrize(
    ("cell", "bidirectional", "num_layers"),
    list(itertools.product(("rnn", "lstm", "gru"), (False, True), (1, 2))),
)
def test_masking_gives_what_packing_gives(cell, bidirectional, num_layers):
    torch.manual_seed(0)
    rnn = _layers(cell, num_layers=num_layers, bidirectional=bidirectional)
    inputs, lengths = torch.randn(4, 7, 4), torch.tensor([3, 7, 1, 7])
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True)
    torch.testing.assert_close(masked_outputs(rnn, inputs, lengths), expected)


@pytest.mark.parametrize("window", [1, 3, 9])
@pytest.mark.parametrize(
    ("cell", "backward"), list(itertools.product(("rnn", "lstm", "gru"), (0, 1)))
)
def test_each_output_is_the_state_after_a_window(cell, backward, window):
    torch.manual_seed(0)
    rnn = _layers(cell, bidirectional=bool(backward))
    inputs, lengths = torch.randn(3, 7, 4), torch.tensor([3, 7, 1])
    outputs = masked_outputs(rnn, inputs, lengths, window)
    zeros = torch.zeros(window - 1, 4)
    for row, length in enumerate(lengths.tolist()):
        text = inputs[row, :length]
        assert not outputs[row, length:].any()
        for time in range(length):
            words = torch.cat([zeros, text, zeros])[None, (window - 1) * backward + time :]
            words = words[:, :window]  # onward they end with the word, backward they begin with it
            found = rnn(words)[0][0, 0 if backward else -1, 5 * backward :][:5]
            torch.testing.assert_close(outputs[row, time, 5 * backward :][:5], found)


def test_gradients_of_windows_are_those_of_texts_of_their_own():
    torch.manual_seed(0)
    rnn = _layers("gru")
    inputs = torch.randn(2, 6, 4)
    masked_outputs(rnn, inputs, torch.tensor([6, 6]), 3).sum().backward()
    found = [parameter.grad.clone() for parameter in rnn.parameters()]
    rnn.zero_grad()
    padded = torch.cat([torch.zeros(2, 2, 4), inputs], dim=1)
    windows = padded.unfold(1, 3, 1).transpose(2, 3).reshape(12, 3, 4)
    rnn(windows)[1].sum().backward()
    for grad, parameter in zip(found, rnn.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)
