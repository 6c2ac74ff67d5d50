"""The network as an ONNX graph, built by hand.

`torch.onnx.export` traces a packed network for the one shape of its example and is wrong for every
other. ONNX has recurrent operators that take the length of each row, so the graph is written
with them: what it computes does not depend on the batch or its padding.

A branch beside the recurrent one is one more function that gives logits, and one more `Add` in
`build_model`.

Source: https://onnx.ai/onnx/operators/ (LSTM, GRU, RNN, version 14).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from rnntune.config.schema import ModelConfig
from rnntune.data.task import Task
from rnntune.data.vocabulary import UNKNOWN
from rnntune.inference.ngram_choice import KeptFeatures
from rnntune.inference.onnx_builder import GraphBuilder, Precision, Tokens
from rnntune.inference.onnx_ngrams import Letters, ngram_logits
from rnntune.inference.onnx_recurrent import Weights, recurrent_outputs
from rnntune.inference.product_codes import CodedRows

__all__ = ["GraphMember", "build_ensemble", "build_model"]
_SMALLEST, _CLOSEST = 1e-30, 1e-7  # of a mean of probabilities, and of a float32 to 0 and 1


def build_model(
    weights: Weights,
    config: ModelConfig,
    letters: Letters | None = None,
    *,
    temperature: float = 1.0,
    task: Task = Task.SINGLE_LABEL,
    precision: Precision | None = None,
    coded: CodedRows | None = None,
    kept: KeptFeatures | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a classifier.

    Its inputs are `ids` int64 (batch, time), where what lies behind a row's length is not read,
    and `lengths` int64 (batch,), 0 for a text without a token, which is read as one unknown word.
    Its output is `probabilities` float32 (batch, classes).

    Args:
        weights: the classifier's tensors by name.
        config: its architecture.
        letters: what `framed_letters` gives for its vocabulary; needed where it has such n-grams.
        temperature: what the logits are divided by.
        task: whether a row has one label, or a set of them.
        precision: how numbers are stored.
        coded: what is stored in place of the rows of the embedding.
        kept: features of the n-gram branch that have rows of their own; None: all.
    """
    graph = GraphBuilder(precision or Precision())
    tokens = _read_inputs(graph, _num_trained_words(weights, config))
    logits = _logits(graph, tokens, weights, config, letters, coded, kept)
    _to_probabilities(graph, logits, temperature, task)
    return graph.model(num_classes=len(weights["classifier.bias"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphMember:
    """One network of an ensemble.

    Args:
        weights: its tensors by name.
        config: its architecture.
        share: its weight in the mean, of 1.
    """

    weights: Weights
    config: ModelConfig
    share: float


def build_ensemble(
    members: Sequence[GraphMember],
    letters: Letters | None = None,
    *,
    temperature: float = 1.0,
    task: Task = Task.SINGLE_LABEL,
    precision: Precision | None = None,
) -> onnx.ModelProto:
    """The ONNX model of several classifiers of the same words: the mean of their probabilities.

    Args:
        members: the classifiers.
        letters: see `build_model`, which has the other arguments, too.
        temperature: what the logits of the mean are divided by.
        task: whether a row has one label, or a set of them.
        precision: how numbers are stored.
    """
    graph = GraphBuilder(precision or Precision())
    first = members[0]
    tokens = _read_inputs(graph, _num_trained_words(first.weights, first.config))
    parts = []
    for number, member in enumerate(members):
        graph.prefix = f"member_{number}."
        logits = _logits(graph, tokens, member.weights, member.config, letters)
        each = _probabilities(graph, logits, task)
        parts.append(graph.add("Mul", each, graph.constant(np.float32(member.share))))
    mean = graph.add("Sum", *parts)
    smallest = graph.constant(np.float32(_CLOSEST if task.is_multi_label else _SMALLEST))
    mean = graph.add("Max", mean, smallest)
    logits = graph.add("Log", mean)
    if task.is_multi_label:
        mean = graph.add("Min", mean, graph.constant(np.float32(1 - _CLOSEST)))
        rest = graph.add("Sub", graph.constant(np.float32(1)), mean)
        logits = graph.add("Sub", graph.add("Log", mean), graph.add("Log", rest))
    _to_probabilities(graph, logits, temperature, task)
    return graph.model(num_classes=len(first.weights["classifier.bias"]))


def _logits(
    graph: GraphBuilder,
    tokens: Tokens,
    weights: Weights,
    config: ModelConfig,
    letters: Letters | None,
    coded: CodedRows | None = None,
    kept: KeptFeatures | None = None,
) -> str:
    """Logits of a classifier, all its branches added, float32 (batch, classes)."""
    logits = _recurrent_logits(graph, tokens, weights, config, coded)
    if config.ngrams:
        branches = [logits, ngram_logits(graph, tokens, weights, config, letters, kept)]
        if "branch_weights" in weights:
            parts = zip(branches, weights["branch_weights"], strict=True)
            branches = [graph.add("Mul", name, graph.constant(weight)) for name, weight in parts]
        logits = graph.add("Add", *branches)
    return logits


def _to_probabilities(graph: GraphBuilder, logits: str, temperature: float, task: Task) -> None:
    """Add the output."""
    scaled = graph.add("Div", logits, graph.constant(np.float32(temperature)))
    _probabilities(graph, scaled, task, "probabilities")


def _probabilities(graph: GraphBuilder, logits: str, task: Task, output: str | None = None) -> str:
    if task.is_multi_label:
        return graph.add("Sigmoid", logits, output=output)
    return graph.add("Softmax", logits, axis=1, output=output)


def _num_trained_words(weights: Weights, config: ModelConfig) -> int:
    """Words that have more than a word vector."""
    if not config.ngrams:
        return len(weights["embedding.weight"])
    hashed = config.letter_buckets + (config.ngram_buckets if config.ngrams > 1 else 0)
    return len(weights["ngrams.idf"]) - hashed


def _read_inputs(graph: GraphBuilder, num_trained: int) -> Tokens:
    """The inputs with one column more, so that a batch of texts without tokens has one, too."""
    zero, one = graph.numbers(0), graph.numbers(1)
    shape = graph.add("Shape", "lengths")
    column = graph.add("Expand", zero, graph.add("Concat", shape, one, axis=0))
    wider = graph.add("Concat", "ids", column, axis=1)  # (batch, time)
    by_time = graph.add("Transpose", wider, perm=[1, 0])  # (time, batch)
    num_steps = graph.add("Gather", graph.add("Shape", by_time), graph.number(0))
    steps = graph.add("Range", graph.number(0), num_steps, graph.number(1))
    steps = graph.add("Unsqueeze", steps, one)  # (time, 1)
    given = graph.add("Less", steps, "lengths")
    ids = graph.add("Where", given, by_time, graph.number(UNKNOWN))
    lengths = graph.add("Max", "lengths", one)
    mask = graph.add("Less", steps, lengths)
    has_row = graph.add("Less", ids, graph.number(num_trained))
    trained = graph.add("Where", has_row, ids, graph.number(UNKNOWN))
    return Tokens(ids=ids, trained=trained, lengths=lengths, mask=mask)


def _recurrent_logits(
    graph: GraphBuilder,
    tokens: Tokens,
    weights: Weights,
    config: ModelConfig,
    coded: CodedRows | None,
) -> str:
    """Logits of the recurrent branch, float32 (batch, classes)."""
    if config.recurrent_length is not None:
        tokens = _first_tokens(graph, tokens, config.recurrent_length)
    table = weights["embedding.weight"]  # merged with word vectors, it has a row for each word
    ids = tokens.trained if len(table) == _num_trained_words(weights, config) else tokens.ids
    if coded is None:
        embedded = graph.take_rows("embedding.weight", table, ids)
    else:
        embedded = graph.take_coded("embedding.weight", coded, ids)
    if "frozen.weight" in weights:
        vectors = graph.take_rows("frozen.weight", weights["frozen.weight"], tokens.ids)
        embedded = graph.add("Concat", embedded, vectors, axis=2)  # (time, batch, embedding)
    outputs, final = recurrent_outputs(graph, embedded, tokens, weights, config)
    pooled = final if config.pooling == "last" else _pooled(graph, outputs, tokens, config)
    by_row = graph.add("Transpose", pooled, perm=[1, 0, 2])  # (batch, directions, hidden)
    features = graph.add("Reshape", by_row, graph.numbers(0, -1))
    matrix = graph.matrix("classifier.weight", weights["classifier.weight"])
    bias = graph.constant(weights["classifier.bias"], "classifier.bias")
    return graph.add("Gemm", features, matrix, bias, transB=1)


def _first_tokens(graph: GraphBuilder, tokens: Tokens, longest: int) -> Tokens:
    bounds = graph.numbers(0), graph.numbers(longest)
    return Tokens(
        ids=graph.add("Slice", tokens.ids, *bounds),
        trained=graph.add("Slice", tokens.trained, *bounds),
        lengths=graph.add("Min", tokens.lengths, graph.number(longest)),
        mask=graph.add("Slice", tokens.mask, *bounds),
    )


def _pooled(graph: GraphBuilder, outputs: str, tokens: Tokens, config: ModelConfig) -> str:
    """Mean or maximum of outputs over the tokens of each row, (directions, batch, hidden)."""
    axes = graph.numbers(1, 3)
    mask = graph.add("Unsqueeze", tokens.mask, axes)  # (time, 1, batch, 1)
    if config.pooling == "max":
        masked = graph.add("Where", mask, outputs, graph.constant(np.float32(-np.inf)))
        return graph.add("ReduceMax", masked, axes=[0], keepdims=0)
    masked = graph.add("Where", mask, outputs, graph.constant(np.float32(0)))
    axis = graph.numbers(0)
    total = graph.add("ReduceSum", masked, axis, keepdims=0)
    count = graph.add("Cast", tokens.lengths, to=TensorProto.FLOAT)
    column = graph.numbers(1)
    return graph.add("Div", total, graph.add("Unsqueeze", count, column))
