"""The n-gram branch: a linear model over TF-IDF of words, n-grams of words and n-grams of letters.

It stands beside the recurrent branch ("wide and deep"): few rows teach it which words and phrases
speak for which class, long before a recurrent network has learned to read. Everything is computed
from token ids, so it needs nothing of the data pipeline.

Source: Cheng et al. 2016, arXiv:1606.07792 (wide and deep); Joulin et al. 2016, arXiv:1607.01759
(hashed n-grams); Bojanowski et al. 2017, arXiv:1607.04606 (n-grams of letters).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rnntune.config.schema import ModelConfig
from rnntune.data.vocabulary import SPECIALS, UNKNOWN

__all__ = ["FACTOR", "LETTER_ORDERS", "PRIME", "NGramBranch", "framed_letters", "letter_ngrams"]

PRIME = 2_147_483_647
FACTOR = 1_000_003
LETTER_ORDERS = (3, 4, 5)
_MAX_LETTERS = 40  # of a word; longer ones are addresses and the like


def framed_letters(words: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """The letters of each word, its two ends marked.

    Args:
        words: the vocabulary in the order of ids; special words have no letters.

    Returns:
        Code points uint32 (letters of all words,), and how many each word has, int64 (words,).
    """
    framed = ["" if i < len(SPECIALS) else f"<{w[:_MAX_LETTERS]}>" for i, w in enumerate(words)]
    lengths = np.fromiter(map(len, framed), np.int64, len(framed))
    return np.frombuffer("".join(framed).encode("utf-32-le"), np.uint32), lengths


def letter_ngrams(words: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hashes of the n-grams of 3 to 5 letters of each word, its two ends marked.

    Args:
        words: the vocabulary in the order of ids; special words have no n-grams.

    Returns:
        int64 (n-grams of all words,), below 2**31, and int64 (words + 1,), where those of each
        word start.
    """
    points, lengths = framed_letters(words)
    letters = points.astype(np.uint64)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(letters))  # to the word's end
    word = np.repeat(np.arange(len(words)), lengths)
    hashes, owners = [], []
    for order in LETTER_ORDERS:
        starts = np.flatnonzero(left >= order)
        value = np.full(len(starts), order, np.uint64)
        for offset in range(order):
            value = (value * np.uint64(FACTOR) + letters[starts + offset]) % np.uint64(PRIME)
        hashes.append(value.astype(np.int64))
        owners.append(word[starts])
    owner = np.concatenate(owners)
    by_word = np.argsort(owner, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(words)))])
    return torch.from_numpy(np.concatenate(hashes)[by_word]), torch.from_numpy(starts)


class NGramBranch(nn.Module):
    """Logits that are linear in sublinear TF-IDF features.

    Features are numbered in blocks: words, hashed n-grams of words, hashed n-grams of letters.
    Words with their n-grams and letters are scaled to length 1 in each text, each by themselves.

    Args:
        config: longest n-gram of words, buckets of both kinds of n-grams.
        vocab_size: words; each is a feature of its own.
        num_classes: classes.
        letters: what `letter_ngrams` gives; needed where `config.letter_buckets` is not 0.
        sparse: give the table sparse gradients.
    """

    idf: torch.Tensor
    letters: torch.Tensor
    letter_starts: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        num_classes: int,
        letters: tuple[torch.Tensor, torch.Tensor] | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.longest = config.ngrams
        self.vocab_size, self.buckets = vocab_size, config.ngram_buckets
        self.first_letter = vocab_size + (self.buckets if self.longest > 1 else 0)
        self.num_features = self.first_letter + config.letter_buckets
        self.num_blocks = 2 if config.letter_buckets else 1
        self.table = nn.EmbeddingBag(self.num_features, num_classes, mode="sum", sparse=sparse)
        nn.init.zeros_(self.table.weight)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer("idf", torch.zeros(self.num_features))
        if config.letter_buckets:
            assert letters is not None
            hashes = letters[0] % config.letter_buckets + self.first_letter
            self.register_buffer("letters", hashes, persistent=False)
            self.register_buffer("letter_starts", letters[1], persistent=False)

    @torch.no_grad()
    def features(
        self, ids: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The distinct features of each text.

        Args:
            ids: int64 (batch, time).
            lengths: int64 (batch,).

        Returns:
            The text, the number and the count of each feature, int64 (features,), sorted by text.
        """
        batch, time = ids.shape
        text = torch.arange(batch, device=ids.device)[:, None] * self.num_features  # (batch, 1)
        inside = torch.arange(time, device=ids.device) < lengths.to(ids.device)[:, None]
        words = (text + ids)[inside & (ids > UNKNOWN)]
        keys = [words]
        value = ids
        for order in range(2, min(self.longest, time) + 1):
            value = (value[:, :-1] * FACTOR + ids[:, order - 1 :]) % PRIME
            number = self.vocab_size + value % self.buckets
            keys.append((text + number)[inside[:, order - 1 :]])
        found, counts = torch.cat(keys).unique(return_counts=True)
        if self.num_blocks == 2:
            letters, letter_counts = self._letter_features(words)
            found, order_of_keys = torch.cat([found, letters]).sort()
            counts = torch.cat([counts, letter_counts])[order_of_keys]
        return found // self.num_features, found % self.num_features, counts

    def _letter_features(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and counts of the n-grams of letters of (occurrences,) keys of words."""
        distinct, times = words.unique(return_counts=True)
        text, word = distinct // self.num_features, distinct % self.num_features
        starts = self.letter_starts[word]
        num = self.letter_starts[word + 1] - starts
        owner = torch.repeat_interleave(torch.arange(len(word), device=words.device), num)
        offset = torch.arange(len(owner), device=words.device) - (num.cumsum(0) - num)[owner]
        letters = text[owner] * self.num_features + self.letters[starts[owner] + offset]
        keys, where = letters.unique(return_inverse=True)
        return keys, torch.zeros_like(keys).index_add_(0, where, times[owner])

    @torch.no_grad()
    def count_texts(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """In how many texts each feature occurs, and the number of texts behind them.

        Args:
            batches: ids (batch, time) and lengths (batch,).

        Returns:
            int64 (features + 1,); counts of several ranks can be added.
        """
        seen = torch.zeros(self.num_features + 1, dtype=torch.int64, device=self.idf.device)
        for ids, lengths in batches:
            _, number, _ = self.features(ids, lengths)
            seen[:-1] += torch.bincount(number, minlength=self.num_features)
            seen[-1] += len(ids)
        return seen

    @torch.no_grad()
    def set_idf(self, seen: torch.Tensor) -> None:
        """Take smoothed inverse document frequencies from counts; features not seen weigh nothing.

        Args:
            seen: what `count_texts` gives, of all training rows.

        Source: https://scikit-learn.org/stable/modules/feature_extraction.html#tfidf-term-weighting
        """
        texts = seen[:-1].double()
        idf = ((1 + seen[-1].double()) / (1 + texts)).log() + 1
        self.idf.copy_(torch.where(texts > 0, idf, 0.0))

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits of a batch: (batch, time) ids and (batch,) lengths to float32 (batch, classes)."""
        text, number, count = self.features(ids, lengths)
        weight = (1 + count.float().log()) * self.idf[number]
        block = text * self.num_blocks + (number >= self.first_letter)
        squares = torch.zeros(len(ids) * self.num_blocks, device=ids.device)
        squares = squares.index_add(0, block, weight.square())
        weight = weight / squares.clamp(min=1e-9).sqrt()[block]
        starts = torch.searchsorted(text, torch.arange(len(ids), device=ids.device))
        logits: torch.Tensor = self.table(number, starts, weight) + self.bias
        return logits
