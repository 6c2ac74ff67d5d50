"""Recurrent layers over padded batches: over whole texts, or over windows of their words."""

import functools

import torch
from torch import nn

__all__ = ["masked_outputs"]


def masked_outputs(
    rnn: nn.RNNBase, inputs: torch.Tensor, lengths: torch.Tensor, window: int | None = None
) -> torch.Tensor:
    """What packing gives, at the speed of padded batches: 2 to 3 times that of packed ones.

    Each direction runs over the padded batch by itself. What follows a text changes nothing of
    its outputs when it is read onward; backward, each text is turned round within its length.

    Args:
        rnn: recurrent layers, `batch_first`.
        inputs: float32 (batch, time, features).
        lengths: int64 (batch,), on the CPU.
        window: words that each output has read, itself the last one; None: all before it.

    Returns:
        float32 (batch, time, directions * hidden), zero where padded.
    """
    lengths = lengths.to(inputs.device)
    steps = torch.arange(inputs.shape[1], device=inputs.device)
    inside = steps < lengths[:, None]  # (batch, time)
    turned = torch.where(inside, lengths[:, None] - 1 - steps, steps)[:, :, None]
    run = _run_layer if window is None else functools.partial(_run_windows, window=window)
    outputs = inputs
    for layer in range(rnn.num_layers):
        if layer:
            outputs = nn.functional.dropout(outputs, rnn.dropout, rnn.training)
        directions = [run(rnn, outputs, f"l{layer}")]
        if rnn.bidirectional:
            backward = outputs.gather(1, turned.expand_as(outputs))
            backward = run(rnn, backward, f"l{layer}_reverse")
            directions.append(backward.gather(1, turned.expand_as(backward)))
        outputs = torch.cat(directions, dim=2)
    return outputs * inside[:, :, None]


def _run_layer(rnn: nn.RNNBase, inputs: torch.Tensor, name: str) -> torch.Tensor:
    """One layer in one direction: (batch, time, features) to (batch, time, hidden)."""
    weights = _weights(rnn, name)
    state = inputs.new_zeros(1, len(inputs), rnn.hidden_size)
    settings = (weights, True, 1, 0.0, rnn.training, False, True)
    outputs: torch.Tensor
    if rnn.mode == "LSTM":
        outputs = torch.lstm(inputs, (state, state), *settings)[0]
    elif rnn.mode == "GRU":
        outputs = torch.gru(inputs, state, *settings)[0]
    else:
        outputs = torch.rnn_tanh(inputs, state, *settings)[0]
    return outputs


def _run_windows(rnn: nn.RNNBase, inputs: torch.Tensor, name: str, *, window: int) -> torch.Tensor:
    """The same for windows: each output is the state after the last `window` words alone.

    All windows take each step at once, and what the words give to the gates is computed once,
    not for each window that has them. Words before a text are zeros.

    Source: Wang 2018, https://aclanthology.org/P18-1215 (disconnected recurrent networks).
    """
    weight_ih, weight_hh, bias_ih, bias_hh = _weights(rnn, name)
    given = nn.functional.linear(inputs, weight_ih, bias_ih)  # (batch, time, gates)
    batch, time, num_gates = given.shape
    before = bias_ih.to(given.dtype).expand(batch, window - 1, num_gates)
    given = torch.cat([before, given], dim=1)
    state = given.new_zeros(batch, time, rnn.hidden_size)
    cell = torch.zeros_like(state)
    for step in range(window):
        words = given[:, step : step + time]
        from_state = nn.functional.linear(state, weight_hh, bias_hh)
        if rnn.mode == "LSTM":
            in_, forget, new, out = (words + from_state).chunk(4, dim=2)
            cell = forget.sigmoid() * cell + in_.sigmoid() * new.tanh()
            state = out.sigmoid() * cell.tanh()
        elif rnn.mode == "GRU":
            reset, keep, new = words.chunk(3, dim=2)
            state_reset, state_keep, state_new = from_state.chunk(3, dim=2)
            new = (new + (reset + state_reset).sigmoid() * state_new).tanh()
            state = new.lerp(state, (keep + state_keep).sigmoid())
        else:
            state = (words + from_state).tanh()
    return state


def _weights(rnn: nn.RNNBase, name: str) -> list[torch.Tensor]:
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [getattr(rnn, f"{part}_{name}") for part in parts]
