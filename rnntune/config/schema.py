"""Groups of settings: frozen dataclasses, checked on construction."""

import codecs
import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from rnntune.config.metric import MetricName, aim_names

__all__ = [
    "AUTO",
    "STRICT",
    "BatchingConfig",
    "DataConfig",
    "FormatName",
    "ModelConfig",
    "Tokenizer",
    "TrackerName",
    "TrainConfig",
    "TuneConfig",
]
FormatName = Literal[
    "ag_news", "csv", "tsv", "jsonl", "json", "parquet", "fasttext", "label_first", "class_folders"
]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AUTO: Any = "auto"
"""A setting that `rnntune.config.auto` chooses from the data."""

if TYPE_CHECKING:  # resolved before anything reads them
    AutoBool = bool
    AutoCount = int
    AutoFraction = float
    AutoNatural = int
    AutoPositive = float
    AutoLength = int | None
else:
    AutoBool = bool | Literal["auto"]
    AutoCount = Count | Literal["auto"]
    AutoFraction = Fraction | Literal["auto"]
    AutoNatural = Natural | Literal["auto"]
    AutoPositive = Positive | Literal["auto"]
    AutoLength = Count | None | Literal["auto"]

Tokenizer = Literal["basic_english", "words", "characters"]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)
_DELIMITERS = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "pipe": "|", "space": " "}
# Codecs for names of hosts and for source code, not for files of text.
_NOT_FOR_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7"}
DEFAULT_SPACE: dict[str, dict[str, Any]] = {
    "model.cell": {"choice": ["lstm", "gru"]},
    "model.embedding_dim": {"choice": [32, 64, 128]},
    "model.hidden_size": {"choice": [32, 64, 128]},
    "model.num_layers": {"choice": [1, 2]},
    "model.bidirectional": {"choice": [False, True]},
    "model.pooling": {"choice": ["last", "mean", "max"]},
    "model.embedding_dropout": {"uniform": [0.0, 0.5]},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "train.learning_rate": {"loguniform": [0.0005, 0.01]},
}


def _column_name(value: Any) -> Any:
    """YAML reads a column number as an integer."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_text_codec(encoding: str) -> bool:
    """Whether Python can read files of text in an encoding."""
    try:
        if codecs.lookup(encoding).name in _NOT_FOR_FILES:
            return False
        b"ab".decode(encoding)  # a LookupError for codecs that are not of text
    except UnicodeDecodeError:
        return True
    except (LookupError, ValueError):
        return False
    return True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Where the text comes from and how it becomes token ids."""

    source: str = "sample"
    """'sample', 'ag_news', or files: a folder, a file, a glob, a URI or a list with commas."""
    test_source: str | None = None
    """Files of the test split, where the source has none of its own."""
    validation_source: str | None = None
    """Files of the validation split, where the source has none of its own."""
    test_fraction: Fraction = 0.1
    """Part of the rows that becomes the test split where there is no other."""
    format: Literal["auto"] | FormatName = "auto"
    """Form of the files; 'auto' goes by their names and first lines."""
    encoding: str = "auto"
    """Encoding of text files: 'auto' (UTF-8, or UTF-16 with a mark), 'latin-1', 'cp1252', ..."""
    delimiter: str = "auto"
    """What separates columns: 'auto', ',', 'tab', ';', '|' or another one."""
    header: bool | Literal["auto"] = "auto"
    """Whether the first record of CSV files names the columns."""
    text_columns: tuple[str, ...] = ("text",)
    """Columns that are joined by a space to make the text; numbers count columns from 0."""
    label_column: str | tuple[str, ...] = "label"
    """Column of the label, or of lists; or several columns of 0 and 1."""
    label_delimiter: str | None = None
    """What separates several labels in one column; null: nothing."""
    multi_label: bool | Literal["auto"] = "auto"
    """Whether a row may have several labels; 'auto': by the files."""
    validation_fraction: AutoFraction = AUTO
    """Part of the training rows kept for validation, chosen by a hash of the row; 'auto': 0.05,
    of small data more."""
    tokenizer: Literal["auto"] | Tokenizer = "auto"
    """'basic_english' (torchtext's), 'words' (any script) or 'characters'; 'auto': the first
    for AG News and the sample, else 'words'."""
    max_length: AutoCount = AUTO
    """Tokens of a row that are kept; 'auto': 256, of small data up to 10000."""
    extra_words: AutoNatural = AUTO
    """Frequent words of glove.6B.50d that training rows lack and word vectors can tell apart."""
    max_size: Count | None = None
    """Most words in the vocabulary; null for no limit."""
    min_frequency: AutoCount = AUTO
    """Times a word must occur in the training rows to enter the vocabulary; 'auto': by size."""
    clean: bool | None = None
    """Repair broken entities and line breaks; null: for data in AG News form."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be used; 'skip' counts them."""
    cache_dir: str = "~/.cache/rnntune"
    """Folder or URI of downloads and prepared data."""
    cache_max_bytes: Count | None = None
    """Size to which the cache is cleaned after each preparation, what was used last stays; null:
    it grows."""
    seed: Natural = 0
    """Seed of the splits."""

    @field_validator("text_columns", mode="before")
    @classmethod
    def _column_names(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(map(_column_name, value))
        return (value,) if isinstance(value, str) else value

    @field_validator("label_column", mode="before")
    @classmethod
    def _label_column_names(cls, value: Any) -> Any:
        if isinstance(value, str) and "," in value:
            value = value.split(",")
        if isinstance(value, list | tuple):
            names = tuple(map(_column_name, value))
            # A name with a comma stays a list of one, so that it is read again as it was written.
            return names[0] if len(names) == 1 and "," not in str(names[0]) else names
        return _column_name(value)

    @field_validator("label_delimiter")
    @classmethod
    def _label_delimiter_text(cls, value: str | None) -> str | None:
        value = _DELIMITERS.get(value, value) if value else value
        if value is not None and (not value or value in '"\r\n'):
            raise ValueError(f"must be some characters or {', '.join(_DELIMITERS)}")
        return value

    @field_validator("delimiter")
    @classmethod
    def _delimiter_character(cls, value: str) -> str:
        value = _DELIMITERS.get(value, value)
        if value != "auto" and (len(value) != 1 or value in '"\r\n'):
            raise ValueError(f"must be one character or {', '.join(_DELIMITERS)}")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding_name(cls, value: str) -> str:
        if value != "auto" and not _is_text_codec(value):
            raise ValueError("must be auto, utf-8, utf-16, latin-1, cp1252 or another encoding")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.source:
            raise ValueError("source must not be empty")
        if not self.text_columns:
            raise ValueError("text_columns must name a column")
        self._check_labels()
        return self

    def _check_labels(self) -> None:
        columns = self.label_columns
        if not columns or not all(columns) or len(set(columns)) < len(columns):
            raise ValueError("label_column must name one column, or several different ones")
        if len(columns) > 1 and self.label_delimiter is not None:
            raise ValueError("label_delimiter: several label_column hold 0 and 1, nothing to split")
        if self.multi_label is False and (len(columns) > 1 or self.label_delimiter is not None):
            raise ValueError("multi_label false: label_column or label_delimiter asks for several")

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The label's column, or several columns of 0 and 1."""
        return (self.label_column,) if isinstance(self.label_column, str) else self.label_column


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BatchingConfig:
    """How rows are grouped into batches."""

    batch_rows: AutoCount = AUTO
    """Rows in a batch of one worker; 'auto': 16 to 64 by the number of rows."""
    max_tokens: Count | None = None
    """Cells (rows x longest row) in a batch; null for no limit."""
    bucket_width: Count | None = None
    """Lengths that share a bucket; null: 1 on a CPU, 8 on a GPU."""
    bucketing: bool = True
    """Group rows of like length; off draws batches at random, to compare."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The network: embedding, recurrent layers, pooling, classifier."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Recurrent cell."""
    embedding_dim: AutoCount = AUTO
    """Size of the trained word embedding; 'auto': 64, 16 beside word vectors."""
    embedding_std: AutoPositive = AUTO
    """Standard deviation of the embedding's first values."""
    hidden_size: Count = 64
    """Size of the hidden state of one direction."""
    num_layers: Count = 1
    """Recurrent layers."""
    bidirectional: bool = True
    """Read the text in both directions."""
    window: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Words that each output has read, such as 15 (slow); null: all of the text before it."""
    pooling: Literal["last", "mean", "max"] = "max"
    """How the outputs become one vector: final state, mean or maximum over time."""
    embedding_dropout: AutoFraction = AUTO
    """Dropout of the embedding, the same for all words of a text."""
    dropout: AutoFraction = AUTO
    """Dropout between layers and before the classifier."""
    word_dropout: AutoFraction = AUTO
    """Chance in training that a word is replaced by the unknown word."""
    row_dropout: AutoFraction = AUTO
    """Chance in training that of a word only its frozen vector is read."""
    word_vectors: str | None = AUTO
    """'glove.6B.50d' (installed), another such name (downloaded), a file, or null for none."""
    freeze_word_vectors: bool = True
    """Keep the vectors, beside the trained embedding; false: start from them."""
    recurrent_length: AutoLength = AUTO
    """Tokens of a text that the recurrent layers read; null: all."""
    ngrams: AutoNatural = AUTO
    """Longest n-gram of words in the linear branch beside the recurrent one; 0: no such branch."""
    ngram_buckets: AutoCount = AUTO
    """Hashed n-grams of two and more words."""
    letter_buckets: AutoNatural = AUTO
    """Hashed n-grams of 3 to 5 letters of words in that branch; 0: none."""
    recurrent_weight: AutoPositive = AUTO
    """Expected weight of the recurrent branch against the linear one."""
    packed: bool = True
    """Ignore padding; false runs over it, as in the lesson's padded LSTM."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """The training loop and where it runs."""

    epochs: AutoCount = AUTO
    """Passes over the training rows; 'auto': by the number of rows and tokens."""
    learning_rate: AutoPositive = AUTO
    """Peak learning rate of Adam."""
    ngram_learning_rate: AutoPositive = AUTO
    """Peak learning rate of the linear branch (plain gradient descent)."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Decay of the learning rate after the warm-up, to zero at the end."""
    warmup_fraction: AutoFraction = AUTO
    """Part of the steps in which the learning rate rises from zero."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of all but the embedding."""
    label_smoothing: AutoFraction = AUTO
    """Part of the target spread over all classes."""
    class_weights: Literal["balanced"] | dict[str, Positive] | None = None
    """Weights of classes in the loss: 'balanced', a mapping from class to weight, or null."""
    metric: Literal["auto"] | MetricName = "auto"
    """What the best epoch is kept by; 'auto': accuracy, or micro F1 of label sets."""
    gradient_clip: NonNegative = 1.0
    """Largest norm of the gradient without the embedding; 0: off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; 'auto': bf16 for large LSTMs on CPUs made for it."""
    patience: AutoNatural = AUTO
    """Epochs without a better validation metric before training stops; 0: off."""
    average_weights: AutoBool = AUTO
    """At the end take the mean of the weights of the second half of the epochs."""
    refit: AutoBool = AUTO
    """Train the model that is kept anew on training plus validation rows; 'auto': small data."""
    seed: Natural = 0
    """Seed of weights, dropout and the order of batches."""
    num_workers: Count | tuple[Count, Count] = 1
    """Workers, or [min, max] for elastic training."""
    use_gpu: bool | Literal["auto"] = "auto"
    """Train on GPUs; 'auto' if the cluster has any."""
    resources_per_worker: dict[str, NonNegative] = dataclasses.field(default_factory=dict)
    """Ray resources of a worker, such as {CPU: 2}; empty: the machine's CPUs shared out."""
    num_threads: Count | None = None
    """Threads of a worker's matrix products; null: measured at the start and on the way."""
    placement: Literal["pack", "spread"] = "pack"
    """Workers on as few nodes as possible, or on as many."""
    checkpoint_every_steps: Natural = 0
    """Steps between checkpoints within an epoch; 0: by the clock and at epochs alone."""
    checkpoint_every_s: NonNegative = 600.0
    """Seconds between checkpoints within an epoch; 0: at epochs alone."""
    keep_checkpoints: Count = 2
    """Checkpoints that are kept."""
    max_failures: Natural = 3
    """Times that training restarts after a crash of a worker."""
    hang_timeout_s: NonNegative = 600.0
    """Seconds without a batch after which training counts as hanging and is ended; 0: never."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """'tensorboard', 'mlflow', 'wandb'."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            raise ValueError(f"num_workers: the minimum of {list(self.num_workers)} is the larger")
        return self

    @property
    def max_workers(self) -> int:
        """The largest number of workers."""
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TuneConfig:
    """The search over configurations."""

    space: dict[str, dict[str, Any]] = dataclasses.field(
        default_factory=lambda: {name: dict(spec) for name, spec in DEFAULT_SPACE.items()}
    )
    """Dotted names to distributions: choice, grid, uniform, loguniform, randint, quniform, ..."""
    num_trials: Count = 32
    """Configurations to try; a grid has its own number."""
    time_budget_s: Positive | None = None
    """Seconds after which no trial goes on."""
    searcher: Literal["random", "grid", "tpe", "gp"] = "tpe"
    """How configurations are proposed: 'random', 'grid', 'tpe' or 'gp' (Optuna's)."""
    scheduler: Literal["one_epoch", "asha", "pbt", "none"] = "one_epoch"
    """Who is trained to the end: 'one_epoch' (the best few after an epoch of all), 'asha', 'none';
    'pbt': settings change in training, for long ones."""
    grace_epochs: Count = 1
    """Epochs every trial may run; those between exchanges ('pbt')."""
    finalists: Count | None = None
    """Trials trained to their end ('one_epoch'); null: one of 16; of few in limited time 3."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many trials goes on at each rung ('asha')."""
    metric: str | tuple[str, ...] = "auto"
    """'validation_accuracy', '..._micro_f1', '..._macro_f1', '..._loss'; 'auto' as in `train`;
    several such as [validation_accuracy, latency_ms, num_parameters]: the Pareto front of them."""
    mode: Literal["max", "min"] | None = None
    """Direction; null: 'min' for a loss, 'max' for the rest."""
    workers_per_trial: Count = 1
    """Data-parallel workers of a trial."""
    max_concurrent_trials: Count | None = None
    """Trials at once; null: as many as the cluster holds."""
    max_parameters: Count | None = None
    """Most parameters of a model; larger ones are not trained."""
    max_latency_ms: Positive | None = None
    """Longest time for one text on one CPU thread; slower ones are not trained."""
    points_to_evaluate: tuple[dict[str, Any], ...] = ()
    """Configurations to try first, as dotted names to values."""
    warm_start: tuple[str, ...] = ()
    """Earlier searches, also over other data, to begin from; what they say soon fades."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Folds of training plus validation rows: a trial's score is the mean over them; null: none."""
    refit: bool = False
    """Train the best configuration again on training plus validation rows."""
    ensemble: Annotated[int, Field(ge=1, le=50)] = 1
    """Most models of the best trials whose mean predicts; 1: the best model alone."""
    distill: bool = False
    """Train one model on what the ensemble says of the training rows; it becomes `model`."""
    seed: Natural = 0
    """Seed of the search."""

    @field_validator("warm_start", mode="before")
    @classmethod
    def _warm_start_uris(cls, value: Any) -> Any:
        uris = value.split(",") if isinstance(value, str) else value
        if isinstance(uris, list | tuple) and not all(uris):
            raise ValueError("warm_start names no run")
        return uris

    @field_validator("metric", mode="before")
    @classmethod
    def _aim_names(cls, value: Any) -> Any:
        return aim_names(value)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the search aims at; epochs and trials in training are compared by the first."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.folds is not None and self.workers_per_trial > 1:
            raise ValueError(
                f"folds: a trial of {self.workers_per_trial} workers trains on one split; "
                "set workers_per_trial to 1, or folds to null"
            )
        self._check_ensemble()
        return self

    def _check_ensemble(self) -> None:
        if self.ensemble == 1:
            if self.distill:
                raise ValueError("distill: there is no ensemble to learn from; set ensemble to 5")
            return
        if len(self.metrics) > 1:
            raise ValueError(
                f"ensemble: it is chosen by one metric, and metric names {len(self.metrics)}; "
                "name one, or set ensemble to 1"
            )
        if self.folds is not None:
            raise ValueError(
                f"ensemble: trials on folds keep no models, and folds is {self.folds}; "
                "set folds to null, or ensemble to 1"
            )
        if self.refit:
            raise ValueError(
                "ensemble: its models are those of the trials, and refit trains another one; "
                "set refit to false, or ensemble to 1"
            )
