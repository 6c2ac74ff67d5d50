"""The network: embedding, RNN, LSTM or GRU over packed or uniform batches, pooling, classifier."""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnntune.config import ModelConfig
from rnntune.errors import ConfigError
from rnntune.text import PAD, UNKNOWN

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
        sparse: give the embedding sparse gradients, so that a step touches only the rows of
            words that occur in the batch.

    Raises:
        ConfigError: the vectors do not have the embedding's size.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        num_classes: int,
        word_vectors: torch.Tensor | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        padding_idx = PAD if config.packed else None  # what is read is trained
        self.embedding = nn.Embedding(vocab_size, config.embedding_dim, padding_idx, sparse=sparse)
        with torch.no_grad():  # was N(0, 1); small rows are soon outweighed by what they learn
            self.embedding.weight.mul_(config.embedding_std)
        self.frozen: nn.Embedding | None = None
        input_size = config.embedding_dim
        if word_vectors is not None and config.freeze_word_vectors:
            self.frozen = nn.Embedding.from_pretrained(word_vectors, freeze=True)
            input_size += word_vectors.shape[1]
        elif word_vectors is not None:
            self._start_from(word_vectors)
        self.rnn = _CELLS[config.cell](
            input_size,
            config.hidden_size,
            num_layers=config.num_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            batch_first=True,
        )
        if config.cell == "lstm":
            _remember(self.rnn)
        self.dropout = nn.Dropout(config.dropout)
        directions = 2 if config.bidirectional else 1
        self.classifier = nn.Linear(directions * config.hidden_size, num_classes)

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

    def forward(
        self, ids: torch.Tensor, lengths: torch.Tensor, *, uniform: bool = False
    ) -> torch.Tensor:
        """Logits of a batch.

        Args:
            ids: int64 (batch, time).
            lengths: int64 (batch,), on the CPU.
            uniform: all lengths are equal; packing would change nothing but the speed.

        Returns:
            float32 (batch, classes).
        """
        embedded = self.embed(ids)  # (batch, time, embedding)
        features = self.encode(embedded, lengths, uniform=uniform)  # (batch, directions * hidden)
        logits: torch.Tensor = self.classifier(self.dropout(features)).float()
        return logits

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed (batch, time) ids as (batch, time, embedding), with dropout in training.

        Source: https://arxiv.org/abs/1512.05287 for a mask that all words of a text share.
        """
        if self.training and self.config.word_dropout:
            dropped = torch.rand(ids.shape, device=ids.device) < self.config.word_dropout
            ids = ids.masked_fill(dropped & (ids != PAD), UNKNOWN)
        embedded: torch.Tensor = self.embedding(ids)
        if self.frozen is not None:
            embedded = torch.cat([embedded, self.frozen(ids)], dim=2)
        channels = embedded.transpose(1, 2)  # (batch, embedding, time)
        rate = self.config.embedding_dropout
        return nn.functional.dropout1d(channels, rate, self.training).transpose(1, 2)

    def encode(
        self, embedded: torch.Tensor, lengths: torch.Tensor, *, uniform: bool
    ) -> torch.Tensor:
        """Pool (batch, time, embedding) into (batch, directions * hidden)."""
        if uniform or not self.config.packed:
            outputs, state = self.rnn(embedded)  # outputs: (batch, time, directions * hidden)
            if self.config.pooling == "last":
                return self._final(state)
            return outputs.mean(dim=1) if self.config.pooling == "mean" else _maximum(outputs)
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
        return _maximum(outputs.masked_fill(padded[:, :, None], float("-inf")))

    def _final(self, state: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        hidden = state[0] if isinstance(state, tuple) else state  # (layers * directions, batch, h)
        if self.config.bidirectional:
            return torch.cat([hidden[-2], hidden[-1]], dim=1)
        return hidden[-1]


def _remember(lstm: nn.LSTM) -> None:
    """Open the forget gates: their bias starts at 1, so that a state lasts from the first step.

    Source: https://proceedings.mlr.press/v37/jozefowicz15.html.
    """
    forget = slice(lstm.hidden_size, 2 * lstm.hidden_size)  # of the gates input, forget, cell, out
    with torch.no_grad():
        for name, bias in lstm.named_parameters():
            if name.startswith("bias"):
                bias[forget] = 1.0 if name.startswith("bias_ih") else 0.0


def _maximum(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.max(dim=1).values


def num_parameters(model: nn.Module) -> int:
    """Parameters, trained and frozen."""
    return sum(parameter.numel() for parameter in model.parameters())
