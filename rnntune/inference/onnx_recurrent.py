"""Recurrent layers of an ONNX graph: over whole texts, or over windows of their words."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from rnntune.config.schema import ModelConfig
from rnntune.inference.onnx_builder import FloatArray, GraphBuilder, Tokens

__all__ = ["Weights", "recurrent_outputs"]
Weights = Mapping[str, FloatArray]

# Where torch's gates stand among ONNX's: LSTM i f g o against i o f c, GRU r z n against z r h.
_OPERATORS = {"lstm": ("LSTM", (0, 3, 1, 2)), "gru": ("GRU", (1, 0, 2)), "rnn": ("RNN", (0,))}


def recurrent_outputs(
    graph: GraphBuilder, embedded: str, tokens: Tokens, weights: Weights, config: ModelConfig
) -> tuple[str, str]:
    """All layers; gives outputs (time, directions, batch, hidden), final (directions, batch, h).

    Args:
        graph: that grows.
        embedded: float32 (time, batch, features).
        tokens: the inputs.
        weights: the classifier's tensors by name.
        config: its architecture.
    """
    outputs, final = embedded, ""
    lengths = graph.add("Cast", tokens.lengths, to=TensorProto.INT32)
    for number in range(config.num_layers):
        if number:
            outputs = _flat_directions(graph, outputs)
        layer = _Layer(graph, number, weights, config)
        if config.window is None:
            outputs, final = layer.over_texts(outputs, lengths)
        else:
            outputs, final = layer.over_windows(outputs, tokens, config.window)
    return outputs, final


def _flat_directions(graph: GraphBuilder, outputs: str) -> str:
    """(time, directions, batch, hidden) to (time, batch, directions * hidden)."""
    by_row = graph.add("Transpose", outputs, perm=[0, 2, 1, 3])
    return graph.add("Reshape", by_row, graph.numbers(0, 0, -1))


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A recurrent layer, of one direction or both."""

    graph: GraphBuilder
    number: int
    weights: Weights
    config: ModelConfig

    @property
    def _suffixes(self) -> list[str]:
        return ["", "_reverse"] if self.config.bidirectional else [""]

    def over_texts(self, inputs: str, lengths: str) -> tuple[str, str]:
        """Each text as long as it is: outputs (time, directions, batch, h), and final states."""
        return self._operator(inputs, self._suffixes, lengths)

    def over_windows(self, inputs: str, tokens: Tokens, window: int) -> tuple[str, str]:
        """The same with the last `window` words alone before each output, zeros before a text.

        Each window is a text of its own for ONNX's operator, of which the final state counts.
        """
        graph, hidden = self.graph, self.config.hidden_size
        mask = graph.add("Unsqueeze", tokens.mask, graph.numbers(2))
        inside = graph.add("Where", mask, inputs, graph.constant(np.float32(0)))
        pads = graph.numbers(window - 1, 0, 0, window - 1, 0, 0)
        padded = graph.add("Pad", inside, pads, graph.constant(np.float32(0)))
        shape = graph.add("Slice", graph.add("Shape", inputs), graph.numbers(0), graph.numbers(2))
        num_steps = graph.add("Gather", shape, graph.number(0))
        steps = graph.add("Range", graph.number(0), num_steps, graph.number(1))
        features = self.weights[f"rnn.weight_ih_l{self.number}"].shape[1]
        order = np.arange(window, dtype=np.int64)[:, None]
        outputs = []
        for suffix in self._suffixes:
            start = 2 * (window - 1) - order if suffix else order  # backward from the last word
            words = graph.add("Add", graph.constant(start), steps)  # (window, time)
            texts = graph.add("Gather", padded, words)  # (window, time, batch, features)
            flat = graph.add("Reshape", texts, graph.numbers(window, -1, features))
            _, state = self._operator(flat, [suffix], "")
            whole = graph.add("Concat", shape, graph.numbers(hidden), axis=0)
            outputs.append(graph.add("Reshape", state, whole))  # (time, batch, hidden)
        axis = graph.numbers(1)
        both = [graph.add("Unsqueeze", each, axis) for each in outputs]
        return graph.add("Concat", *both, axis=1), self._final(outputs, tokens)

    def _final(self, outputs: Sequence[str], tokens: Tokens) -> str:
        """(directions, batch, hidden): onward after the last word, backward after the first."""
        graph, one = self.graph, self.graph.numbers(1)
        last = graph.add("Unsqueeze", graph.add("Sub", tokens.lengths, one), graph.numbers(0, 2))
        hidden = graph.numbers(self.config.hidden_size)
        shape = graph.add("Concat", one, graph.add("Shape", tokens.lengths), hidden, axis=0)
        finals = [
            graph.add("GatherElements", outputs[0], graph.add("Expand", last, shape), axis=0),
            *(graph.add("Slice", each, graph.numbers(0), one) for each in outputs[1:]),
        ]
        return graph.add("Concat", *finals, axis=0)

    def _operator(self, inputs: str, suffixes: Sequence[str], lengths: str) -> tuple[str, str]:
        graph, config, layer = self.graph, self.config, self.number
        operator, _ = _OPERATORS[config.cell]
        biases = [self._stacked(kind, suffixes) for kind in ("bias_ih", "bias_hh")]
        name = f"l{layer}{suffixes[0]}"
        inputs_ = [
            inputs,
            graph.matrix(f"rnn.weight_ih_{name}", self._stacked("weight_ih", suffixes)),
            graph.matrix(f"rnn.weight_hh_{name}", self._stacked("weight_hh", suffixes)),
            graph.constant(np.concatenate(biases, axis=1), f"rnn.bias_{name}"),
            lengths,
        ]
        attributes: dict[str, Any] = {
            "hidden_size": config.hidden_size,
            "direction": "bidirectional" if len(suffixes) > 1 else "forward",
        }
        if config.cell == "gru":
            attributes["linear_before_reset"] = 1  # as torch's
        if config.cell == "rnn":
            attributes["activations"] = ["Tanh"] * len(suffixes)
        return graph.add_pair(operator, inputs_, **attributes)

    def _stacked(self, kind: str, suffixes: Sequence[str]) -> FloatArray:
        _, gates = _OPERATORS[self.config.cell]
        directions = []
        for suffix in suffixes:
            weights = self.weights[f"rnn.{kind}_l{self.number}{suffix}"]
            by_gate = np.split(weights, len(gates))
            directions.append(np.concatenate([by_gate[gate] for gate in gates]))
        return np.stack(directions)
