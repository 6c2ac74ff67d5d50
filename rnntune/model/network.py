"""The network: embedding, RNN, LSTM or GRU, pooling, classifier, and n-grams beside them."""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnntune.config.schema import ModelConfig
from rnntune.data.task import Task
from rnntune.data.vocabulary import PAD, UNKNOWN
from rnntune.errors import ConfigError
from rnntune.model.ngrams import NGramBranch
from rnntune.model.recurrent import masked_outputs

__all__ = ["Classifier", "num_parameters"]
_CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Classifier(nn.Module):
    """A recurrent text classifier.

    Args:
        config: the architecture.
        vocab_size: number of words.
        num_classes: number of classes.
        word_vectors: float32 (words, dim), or None. Frozen vectors stand beside the trained
            embedding; vectors that are not frozen are what the embedding starts from.
        letters: n-grams of the letters of each word, as `letter_ngrams` gives them; needed where
            `config.letter_buckets` is not 0.
        num_trained_words: words that training rows have, which come first; those after them have
            word vectors alone, and else are read as the unknown word. None: all.
        task: what its outputs are: of one class a row, or of a set of classes.
        sparse: give the embedding sparse gradients, so that a step touches only the rows of
            words that occur in the batch.

    Raises:
        ConfigError: the vectors do not have the embedding's size.
    """

    branch_weights: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        num_classes: int,
        word_vectors: torch.Tensor | None = None,
        letters: tuple[torch.Tensor, torch.Tensor] | None = None,
        *,
        num_trained_words: int | None = None,
        task: Task = Task.SINGLE_LABEL,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.task, self.num_classes = config, task, num_classes
        num_trained = num_trained_words or vocab_size
        self.num_trained_words = num_trained
        self.has_extra_words = num_trained < vocab_size
        padding_idx = PAD if config.packed else None  # what is read is trained
        self.embedding = nn.Embedding(num_trained, config.embedding_dim, padding_idx, sparse=sparse)
        with torch.no_grad():  # was N(0, 1); small rows are soon outweighed by what they learn
            self.embedding.weight.mul_(config.embedding_std)
        self.frozen: nn.Embedding | None = None
        input_size = config.embedding_dim
        if word_vectors is not None and config.freeze_word_vectors:
            self.frozen = nn.Embedding.from_pretrained(word_vectors, freeze=True)
            input_size += word_vectors.shape[1]
        elif word_vectors is not None:
            self._start_from(word_vectors[:num_trained])
        self.rnn = _CELLS[config.cell](
            input_size,
            config.hidden_size,
            num_layers=config.num_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            batch_first=True,
        )
        if config.cell == "lstm":
            _init_forget_gate_bias(self.rnn)
        self.dropout = nn.Dropout(config.dropout)
        directions = 2 if config.bidirectional else 1
        self.classifier = nn.Linear(directions * config.hidden_size, num_classes)
        self.ngrams: NGramBranch | None = None
        if config.ngrams:
            self.ngrams = NGramBranch(config, num_trained, num_classes, letters, sparse=sparse)
            self.register_buffer("branch_weights", torch.tensor([config.recurrent_weight, 1.0]))

    def _start_from(self, word_vectors: torch.Tensor) -> None:
        dim = word_vectors.shape[1]
        if dim != self.config.embedding_dim:
            raise ConfigError(
                f"model.embedding_dim is {self.config.embedding_dim}, but the word vectors to "
                f"start from have {dim} numbers"
            )
        found = (word_vectors != 0).any(dim=1, keepdim=True)
        with torch.no_grad():
            scale = word_vectors[found.squeeze(1)].std() if found.any() else torch.tensor(1.0)
            # Words without a vector start with the same spread.
            self.embedding.weight.mul_(scale / self.config.embedding_std)
            self.embedding.weight.copy_(torch.where(found, word_vectors, self.embedding.weight))
            self.embedding.weight[PAD] = 0

    @torch.no_grad()
    def start_from_rates(self, odds: torch.Tensor) -> None:
        """Let a network for sets of classes begin with how frequent each class is.

        Args:
            odds: float32 (classes,), rows with each class over rows without it.

        Source: https://arxiv.org/abs/1708.02002, section 4.1 (the bias of rare classes).
        """
        self.classifier.bias.copy_(odds.log())
        if self.ngrams is not None:
            self.ngrams.bias.copy_(odds.log())

    def forward(
        self, ids: torch.Tensor, lengths: torch.Tensor, *, same_length: bool = False
    ) -> torch.Tensor:
        """Logits of a batch.

        Args:
            ids: int64 (batch, time).
            lengths: int64 (batch,), on the CPU.
            same_length: all lengths are equal; packing would change nothing but the speed.

        Returns:
            float32 (batch, classes); in training (branches, batch, classes), which `combine`
            adds: each branch has a loss of its own, so that neither starves the other.
        """
        branches = self.branches(ids, lengths, same_length=same_length)
        return branches if self.training else self.combine(branches)

    def branches(
        self, ids: torch.Tensor, lengths: torch.Tensor, *, same_length: bool = False
    ) -> torch.Tensor:
        """Logits of each branch, the recurrent one first, float32 (branches, batch, classes)."""
        trained = self.trained_ids(ids)
        recurrent = self._recurrent_logits(ids, trained, lengths, same_length=same_length)
        if self.ngrams is None:
            return recurrent[None]
        return torch.stack([recurrent, self.ngrams(trained, lengths)])

    def trained_ids(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids with the words that have no trained rows read as the unknown word.

        Args:
            ids: int64 (batch, time).
        """
        if not self.has_extra_words:
            return ids
        return ids.masked_fill(ids >= self.num_trained_words, UNKNOWN)

    def combine(self, branches: torch.Tensor) -> torch.Tensor:
        """The weighted sum of (branches, batch, classes) logits, float32 (batch, classes)."""
        if self.ngrams is None:
            return branches[0]
        return (branches * self.branch_weights[:, None, None]).sum(dim=0)

    def _recurrent_logits(
        self,
        ids: torch.Tensor,
        trained: torch.Tensor,
        lengths: torch.Tensor,
        *,
        same_length: bool,
    ) -> torch.Tensor:
        longest = self.config.recurrent_length
        if longest is not None and ids.shape[1] > longest:
            ids, trained = ids[:, :longest], trained[:, :longest]
            lengths = lengths.clamp(max=longest)
            same_length = same_length or bool((lengths == longest).all())
        embedded = self.embed(ids, trained)  # (batch, time, embedding)
        features = self.encode(embedded, lengths, same_length=same_length)
        logits: torch.Tensor = self.classifier(self.dropout(features)).float()
        return logits

    def embed(self, ids: torch.Tensor, trained: torch.Tensor | None = None) -> torch.Tensor:
        """Embed (batch, time) ids as (batch, time, embedding), with dropout in training.

        Args:
            ids: of words with frozen vectors.
            trained: ids of words with trained rows; None: the same.

        Source: https://arxiv.org/abs/1512.05287 for a mask that all words of a text share.
        """
        trained = ids if trained is None else trained
        config = self.config
        if self.training and (config.word_dropout or config.row_dropout):
            chance = torch.rand(ids.shape, device=ids.device) + (ids == PAD)  # padding stays
            ids = ids.masked_fill(chance < config.word_dropout, UNKNOWN)
            share = 1 - (1 - config.word_dropout) * (1 - config.row_dropout)
            trained = trained.masked_fill(chance < share, UNKNOWN)
        embedded: torch.Tensor = self.embedding(trained)
        if self.frozen is not None:
            embedded = torch.cat([embedded, self.frozen(ids)], dim=2)
        channels = embedded.transpose(1, 2)  # (batch, embedding, time)
        rate = self.config.embedding_dropout
        return nn.functional.dropout1d(channels, rate, self.training).transpose(1, 2)

    def encode(
        self, embedded: torch.Tensor, lengths: torch.Tensor, *, same_length: bool
    ) -> torch.Tensor:
        """Pool (batch, time, embedding) into (batch, directions * hidden)."""
        window = self.config.window
        if same_length or not self.config.packed:
            if window is None:
                outputs, state = self.rnn(embedded)  # (batch, time, directions * hidden)
                if self.config.pooling == "last":
                    return self._final(state)
                mean = self.config.pooling == "mean"
                return outputs.mean(dim=1) if mean else _max_over_time(outputs)
            lengths = torch.full((len(embedded),), embedded.shape[1])
        if window is not None or not embedded.is_cuda:
            outputs = masked_outputs(self.rnn, embedded, lengths, window)
            if self.config.pooling == "last":
                return self._last(outputs, lengths)
        else:
            packed: PackedSequence = pack_padded_sequence(
                embedded, lengths, batch_first=True, enforce_sorted=False
            )
            packed_outputs, state = self.rnn(packed)
            if self.config.pooling == "last":
                return self._final(state)
            outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True)
        lengths = lengths.to(outputs.device)
        if self.config.pooling == "mean":
            return outputs.sum(dim=1) / lengths[:, None]  # padded outputs are zero
        padded = torch.arange(outputs.shape[1], device=outputs.device) >= lengths[:, None]
        return _max_over_time(outputs.masked_fill(padded[:, :, None], float("-inf")))

    def _final(self, state: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        hidden = state[0] if isinstance(state, tuple) else state  # (layers * directions, batch, h)
        if self.config.bidirectional:
            return torch.cat([hidden[-2], hidden[-1]], dim=1)
        return hidden[-1]

    def _last(self, outputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The final states of outputs (batch, time, directions * hidden)."""
        onward = outputs[torch.arange(len(outputs)), lengths - 1]
        if not self.config.bidirectional:
            return onward
        hidden = self.config.hidden_size
        return torch.cat([onward[:, :hidden], outputs[:, 0, hidden:]], dim=1)


def _init_forget_gate_bias(lstm: nn.LSTM) -> None:
    """Open the forget gates: their bias starts at 1, so that a state lasts from the first step.

    Source: https://proceedings.mlr.press/v37/jozefowicz15.html.
    """
    forget = slice(lstm.hidden_size, 2 * lstm.hidden_size)  # of the gates input, forget, cell, out
    with torch.no_grad():
        for name, bias in lstm.named_parameters():
            if name.startswith("bias"):
                bias[forget] = 1.0 if name.startswith("bias_ih") else 0.0


def _max_over_time(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.max(dim=1).values


def num_parameters(model: nn.Module) -> int:
    """Parameters, trained and frozen."""
    return sum(parameter.numel() for parameter in model.parameters())
