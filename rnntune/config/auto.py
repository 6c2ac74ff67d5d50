"""What depends on the data: settings that are `auto`, chosen in one place by pure functions.

A value that the user gives stays. Each choice comes with its reason, for the run to show and to
record. The rules were derived with `tests/benchmarks/sets.py` from validation rows of data sets of
600 to 66,000 rows; where a figure stands here, that is where it comes from.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from rnntune.config.load import Config, flatten
from rnntune.config.schema import AUTO, DataConfig

__all__ = ["SMALL_ROWS", "Choice", "DataFacts", "resolve", "resolve_data", "validation_share"]

_GLOVE = "glove.6B.50d"
_COVERED = 0.9  # part of the frequent words; English texts reach 0.95, German ones 0.7
_EXTRA_WORDS = 50_000
SMALL_ROWS = 2_500
"""Training and validation rows from which on data is not small."""
_LARGE_ROWS = 20_000
_SHARE, _LARGEST_SHARE = 0.05, 0.15
_LONG_TEXT = 80  # tokens in the mean
_STEPS = 2_500
_TOKENS = (
    1_600_000  # read by the recurrent layers in training, so that long texts do not take minutes
)
_REFIT_TOKENS = 1_000_000  # the same where there is a second training
_NGRAM_TOKENS = 16_000_000  # read by the branch of n-grams, which reads the whole of long texts
_MOST_TOKENS = 2_400_000  # the same where the fewest epochs are already too many
_LONGEST, _SHORTEST = 128, 48  # tokens of a long text that the recurrent layers read
_MANY_CLASSES = 10
_LONGEST_TEXT = 10_000  # tokens
_MANY_TOKENS = 2_000_000  # of small data: the branch of n-grams takes a minute for four epochs
_MIN_EPOCHS, _MAX_EPOCHS = 4, 20
_TABLE_WEIGHTS = 1 << 23  # of each half of the linear branch: 32 MiB
_MIN_BUCKETS = 1 << 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What preparation found in the training rows.

    Args:
        num_rows: rows.
        class_rows: rows of each class.
        length_rows: rows of each length in tokens, from 0.
        num_words: distinct words, all of them or those of the vocabulary.
        vector_coverage: part of the 2,000 most frequent words that the installed word vectors
            have.
        mean_letters: mean number of letters of the words of the texts, without punctuation.
        multi_label: whether a row may have several labels, or none.
    """

    num_rows: int
    class_rows: tuple[int, ...]
    length_rows: tuple[int, ...]
    num_words: int
    vector_coverage: float = 0.0
    mean_letters: float = 5.0
    multi_label: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(length * rows for length, rows in enumerate(self.length_rows))

    def quantile(self, fraction: float) -> int:
        """The length that this part of the rows does not exceed, in tokens."""
        left = fraction * sum(self.length_rows)
        for length, rows in enumerate(self.length_rows):
            left -= rows
            if left <= 0:
                return length
        return len(self.length_rows) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting that was `auto`.

    Args:
        name: of the setting, with dots.
        value: that was chosen.
        reason: in a few words.
    """

    name: str
    value: Any
    reason: str


def validation_share(num_rows: int) -> Choice:
    """Choose the part of the training rows that validates.

    Measured with logistic regression on parts of TREC, SST-2 and AG News of 600 to 2,500 rows:
    15% fewer training rows cost about a point of accuracy, 5% fewer 0.1. So most data gives 5%.
    Of 600 rows these are 30, whose accuracy has a standard error of 7 points, so small data gives
    up to 15%, and gets it back: `train.refit`. Against 5% and one training, on held-out rows of
    five sets of 600 to 1,200 rows (TREC, as it is and misspelt, SST-2, AG News, banking77), mean
    accuracy was 0.821 against 0.815 and macro F1 0.809 against 0.803, one seed, better on four, in
    twice the time of training. How the branches are weighed hardly depends on the share: 240
    validation rows instead of 30 gave 0.6 points with 20 classes, at most 0.1 with 2 to 6.

    Args:
        num_rows: rows that are for training and validation; those from `SMALL_ROWS` on count alike.
    """
    if num_rows >= SMALL_ROWS:
        return _validation_share(_SHARE, f"{SMALL_ROWS:,} rows or more")
    share = min(_LARGEST_SHARE, _SHARE * SMALL_ROWS / max(num_rows, 1))
    return _validation_share(round(share, 4), f"{num_rows:,} rows")


def _validation_share(share: float, reason: str) -> Choice:
    return Choice(name="data.validation_fraction", value=share, reason=reason)


def resolve_data(
    data: DataConfig, num_rows: int, num_tokens: int, coverage: float
) -> tuple[Choice, ...]:
    """Choose what preparation needs between its two passes.

    Args:
        data: its settings.
        num_rows: rows that can be used.
        num_tokens: tokens of their whole texts.
        coverage: part of the frequent words that the installed word vectors have.

    Returns:
        What was chosen for the fields that are `auto`.
    """
    large = num_rows >= _LARGE_ROWS
    longest = _LONGEST_TEXT
    if num_tokens > _MANY_TOKENS:
        longest = min(max(2 * _MANY_TOKENS // num_rows, 500), _LONGEST_TEXT)
    covered = coverage >= _COVERED and not large
    rows = f"{num_rows:,} rows"
    values = {
        # The branch of n-grams reads more of a long text than the recurrent layers do.
        "max_length": (256 if large else longest, f"{rows}, {num_tokens:,} tokens"),
        "min_frequency": (2 if large else 1, rows),
        "extra_words": (_EXTRA_WORDS if covered else 0, _covered_reason(coverage)),
    }
    return tuple(
        Choice(name=f"data.{name}", value=value, reason=reason)
        for name, (value, reason) in values.items()
        if getattr(data, name) == AUTO
    )


def _covered_reason(coverage: float) -> str:
    return f"word vectors for {coverage:.0%} of the frequent words"


def resolve(config: Config, facts: DataFacts) -> tuple[Config, tuple[Choice, ...]]:
    """Choose every setting of a configuration that is still `auto`.

    Args:
        config: all settings; those of preparation are resolved already.
        facts: of the prepared training rows.

    Returns:
        The configuration without `auto`, and what was chosen.
    """
    flat = flatten(config.to_dict())
    rules = _Rules(flat, facts)
    choices = []
    for name in (name for name, value in flat.items() if value == AUTO):
        rule = getattr(rules, name.replace(".", "_"), None)
        if rule is None:  # `use_gpu` and `precision` depend on the machine, not on the data
            continue
        value, reason = rule()
        flat[name] = value
        choices.append(Choice(name=name, value=value, reason=reason))
    return config.override({choice.name: choice.value for choice in choices}), tuple(choices)


class _Rules:
    """One method a setting; a rule sees the settings that stand before it resolved."""

    def __init__(self, settings: Mapping[str, Any], facts: DataFacts) -> None:
        self._settings, self._facts = settings, facts
        self._rows = f"{facts.num_rows:,} rows"
        self._is_large = facts.num_rows >= _LARGE_ROWS

    def batching_batch_rows(self) -> tuple[int, str]:
        rows = self._facts.num_rows
        return (16 if rows < SMALL_ROWS else 64 if self._is_large else 32), self._rows

    def model_word_vectors(self) -> tuple[str | None, str]:
        coverage = self._facts.vector_coverage
        return (_GLOVE if coverage >= _COVERED else None), _covered_reason(coverage)

    def _has_vectors(self) -> bool:
        value = self._settings["model.word_vectors"]
        return bool(self.model_word_vectors()[0] if value == AUTO else value)

    def model_embedding_dim(self) -> tuple[int, str]:
        frozen = self._has_vectors() and self._settings["model.freeze_word_vectors"]
        if frozen and self._facts.num_rows < SMALL_ROWS:
            return 16, f"{self._rows} and word vectors"
        return 64, self._rows

    def model_embedding_std(self) -> tuple[float, str]:
        # Large data without vectors were measured with 0.01, with vectors with 0.1.
        return (0.01 if self._is_large and not self._has_vectors() else 0.1), self._rows

    def model_embedding_dropout(self) -> tuple[float, str]:
        return (0.3 if self._is_large else 0.2), self._rows

    def model_dropout(self) -> tuple[float, str]:
        return (0.4 if self._is_large else 0.5), self._rows

    def model_word_dropout(self) -> tuple[float, str]:
        return (0.1 if self._is_large else 0.05), self._rows

    def model_row_dropout(self) -> tuple[float, str]:
        if not self._has_vectors() or self._is_large:
            return 0.0, "no word vectors" if not self._has_vectors() else self._rows
        return (0.3 if self._facts.num_rows < SMALL_ROWS else 0.1), self._rows

    def model_recurrent_length(self) -> tuple[int | None, str]:
        longest = self._facts.quantile(0.99)
        reason = f"{longest} tokens hold 99% of the texts"
        if self._is_large:
            return None, reason
        length = min(max(longest, 16), _LONGEST)
        if self._tokens(length) * _MIN_EPOCHS <= _MOST_TOKENS:
            return length, reason
        # The linear branch reads the rest; of long texts it knows more than the recurrent one.
        while length > _SHORTEST and self._tokens(length) * _MIN_EPOCHS > _MOST_TOKENS:
            length -= 16
        return max(length, _SHORTEST), f"{self._facts.num_tokens:,} tokens"

    def _tokens(self, longest: float) -> float:
        """Tokens of an epoch if so many of each text are read."""
        lengths = enumerate(self._facts.length_rows)
        return sum(min(length, longest) * rows for length, rows in lengths)

    def model_ngrams(self) -> tuple[int, str]:
        # AG News, validation, LSTM 96, one seed: 0.9178 without the branch, 0.9229 with pairs.
        if self._is_of_letters():
            return 3, "words of single letters"
        return 2, self._rows

    def model_ngram_buckets(self) -> tuple[int, str]:
        return self._buckets(4 * self._facts.num_tokens)

    def model_letter_buckets(self) -> tuple[int, str]:
        if not self._settings["model.ngrams"]:
            return 0, "no branch of n-grams"
        if self._is_of_letters():
            return 0, "words of single letters"
        if self._is_large:
            return 0, f"{self._rows}: letters would take a fifth of the time"
        return self._buckets(40 * self._facts.num_words)

    def _is_of_letters(self) -> bool:
        return self._facts.mean_letters < 2.0

    def _buckets(self, wanted: float) -> tuple[int, str]:
        """A power of two, so large that few n-grams share a bucket, within the table's size."""
        classes = len(self._facts.class_rows)
        most = 1 << min(18, int(math.log2(_TABLE_WEIGHTS / classes)))
        power = 1 << math.ceil(math.log2(max(wanted, 1)))
        return min(max(power, _MIN_BUCKETS), most), f"{classes} classes"

    def model_recurrent_weight(self) -> tuple[float, str]:
        facts = self._facts
        if self._is_large:
            return 1.0, self._rows
        if self._has_vectors():
            if facts.num_tokens > _LONG_TEXT * facts.num_rows:
                return 0.3, "long texts"
            # banking77, accuracy with 1.0 and 0.5: 20 classes 0.946, 0.953; all 0.843, 0.845.
            many = len(facts.class_rows) >= _MANY_CLASSES
            return (0.5, "many classes") if many else (1.0, "word vectors")
        return (0.1 if facts.num_rows < SMALL_ROWS else 0.3), "no word vectors"

    def train_epochs(self) -> tuple[int, str]:
        if self._is_large:
            return 3, self._rows
        rows, batch = self._facts.num_rows, self._settings["batching.batch_rows"]
        longest = self._settings["model.recurrent_length"] or math.inf
        tokens = self._tokens(longest)
        most, most_whole = _TOKENS, _NGRAM_TOKENS
        if self._is_refit():
            most, most_whole = _REFIT_TOKENS, most_whole // 2
        whole = self._facts.num_tokens if self._settings["model.ngrams"] else 0
        epochs = round(
            min(_STEPS * batch / rows, most / max(tokens, 1), most_whole / max(whole, 1))
        )
        return min(max(epochs, _MIN_EPOCHS), _MAX_EPOCHS), f"{tokens:,.0f} tokens an epoch"

    def train_learning_rate(self) -> tuple[float, str]:
        # AG News, validation, one seed: 0.9178 without vectors and 0.002, 0.9230 with both changed.
        return (0.002 if self._is_large and not self._has_vectors() else 0.003), self._rows

    def train_ngram_learning_rate(self) -> tuple[float, str]:
        # A row moves its logits as much, whatever the batch and the number of epochs.
        batch, epochs = self._settings["batching.batch_rows"], self._settings["train.epochs"]
        # Alone on AG News, batches of 64, validation: 0.906 with 20, 0.913 with 80, 0.916 with 256.
        most = 256.0 if self._is_large else 80.0
        return min(max(12.0 * batch / epochs, 10.0), most), f"{epochs} epochs of batches of {batch}"

    def train_warmup_fraction(self) -> tuple[float, str]:
        return (0.0 if self._is_large else 0.05), self._rows

    def train_label_smoothing(self) -> tuple[float, str]:
        return (0.05 if self._is_large else 0.0), self._rows

    def train_metric(self) -> tuple[str, str]:
        if self._facts.multi_label:
            return "validation_micro_f1", "several labels a row"
        return "validation_accuracy", "one label a row"

    def tune_metric(self) -> tuple[str, str]:
        return self.train_metric()

    def train_patience(self) -> tuple[int, str]:
        return 0, "few epochs"

    def train_average_weights(self) -> tuple[bool, str]:
        return not self._is_large, self._rows

    def train_refit(self) -> tuple[bool, str]:
        if self._settings["data.validation_source"]:
            return False, "validation rows of their own"
        return self._is_refit(), f"{self._rows} without those for validation"

    def _is_refit(self) -> bool:
        share = self._settings["data.validation_fraction"]
        rows = self._facts.num_rows / (1 - (0.0 if share == AUTO else share))
        return bool(rows < SMALL_ROWS)
