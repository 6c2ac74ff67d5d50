"""The whole configuration: one tree of frozen dataclasses, checked on construction.

A key is written with dots (`model.hidden_size`). A YAML file holds the difference from the
defaults; `Config.load` merges it with overrides, and `Config.to_yaml` writes every value.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from typing_extensions import Self

from rnntune import storage
from rnntune.errors import ConfigError

__all__ = ["BatchingConfig", "Config", "DataConfig", "ModelConfig", "TrainConfig", "TuneConfig"]
__all__ += ["Field_", "field_docs", "flatten", "parse_yaml"]

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)

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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Where the text comes from and how it becomes token ids."""

    source: str = "sample"
    """'sample', 'ag_news', or files: a folder in AG News form, a file, a glob or a URI."""
    test_source: str | None = None
    """Files of the test split, where the source has none of its own."""
    test_fraction: Fraction = 0.1
    """Part of the rows that becomes the test split where there is no other."""
    format: Literal["auto", "ag_news", "csv", "jsonl", "parquet"] = "auto"
    """Form of the files; 'auto' goes by their names and first line."""
    text_columns: tuple[str, ...] = ("text",)
    """Columns that are joined by a space to make the text."""
    label_column: str = "label"
    """Column of the label, strings or integers."""
    validation_fraction: Fraction = 0.05
    """Part of the training rows kept for validation, chosen by a hash of the row."""
    max_length: Count = 256
    """Tokens of a row that are kept."""
    max_size: Count | None = None
    """Most words in the vocabulary; null for no limit."""
    min_frequency: Count = 2
    """Times a word must occur in the training rows to enter the vocabulary."""
    clean: bool | None = None
    """Repair broken entities and line breaks; null: for data in AG News form."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be used; 'skip' counts and reports them."""
    cache_dir: str = "~/.cache/rnntune"
    """Folder or URI of downloads and prepared data."""
    seed: Natural = 0
    """Seed of the splits."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.source:
            raise ValueError("source must not be empty")
        if not self.text_columns:
            raise ValueError("text_columns must name a column")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BatchingConfig:
    """How rows are grouped into batches."""

    batch_rows: Count = 64
    """Rows in a batch of one worker."""
    max_tokens: Count | None = None
    """Cells (rows x longest row) in a batch; null for no limit."""
    bucket_width: Count | None = None
    """Lengths that share a bucket; null: 1 on a CPU, 8 on a GPU."""
    bucketing: bool = True
    """Group rows of like length; off draws batches at random, to compare."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """The network: embedding, recurrent layers, pooling, classifier."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Recurrent cell."""
    embedding_dim: Count = 64
    """Size of the trained word embedding."""
    embedding_std: Positive = 0.01
    """Standard deviation of the embedding's first values."""
    hidden_size: Count = 64
    """Size of the hidden state of one direction."""
    num_layers: Count = 1
    """Recurrent layers."""
    bidirectional: bool = True
    """Read the text in both directions."""
    pooling: Literal["last", "mean", "max"] = "max"
    """How the outputs become one vector: final state, mean or maximum over time."""
    embedding_dropout: Fraction = 0.3
    """Dropout of the embedding; what is dropped is dropped for all words of a text."""
    dropout: Fraction = 0.4
    """Dropout between layers and before the classifier."""
    word_dropout: Fraction = 0.1
    """Chance in training that a word is replaced by the unknown word."""
    word_vectors: str | None = None
    """'glove.6B.50d' (installed), another of torchtext's names (downloaded), or a file."""
    freeze_word_vectors: bool = True
    """Keep the vectors as they are, beside the trained embedding; false: start from them."""
    packed: bool = True
    """Ignore padding; false runs over it, as in the lesson's padded LSTM."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """The training loop and where it runs."""

    epochs: Count = 3
    """Passes over the training rows."""
    learning_rate: Positive = 0.002
    """Peak learning rate of Adam."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Decay of the learning rate after the warm-up, to zero at the end."""
    warmup_fraction: Fraction = 0.0
    """Part of the steps in which the learning rate rises from zero."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of all but the embedding."""
    label_smoothing: Fraction = 0.05
    """Part of the target spread over all classes."""
    gradient_clip: NonNegative = 1.0
    """Largest norm of the gradient without the embedding; 0: off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; 'auto': bf16 for large LSTMs on CPUs made for it."""
    patience: Natural = 0
    """Epochs without a better validation accuracy before training stops; 0: off."""
    seed: Natural = 0
    """Seed of weights, dropout and the order of batches."""
    num_workers: Count | tuple[Count, Count] = 1
    """Workers, or [min, max] for elastic training."""
    use_gpu: bool | Literal["auto"] = "auto"
    """Train on GPUs; 'auto' if the cluster has any."""
    resources_per_worker: dict[str, NonNegative] = dataclasses.field(default_factory=dict)
    """Ray resources of a worker, such as {CPU: 2}; empty: the machine's CPUs shared out."""
    placement: Literal["pack", "spread"] = "pack"
    """Workers on as few nodes as possible, or on as many."""
    checkpoint_every_steps: Natural = 0
    """Steps between checkpoints within an epoch; 0: at epochs alone."""
    keep_checkpoints: Count = 2
    """Checkpoints that are kept."""
    max_failures: Natural = 3
    """Times that training restarts after a crash of a worker."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            raise ValueError(f"num_workers: the minimum of {list(self.num_workers)} is the larger")
        return self

    @property
    def max_workers(self) -> int:
        """The largest number of workers."""
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TuneConfig:
    """The search over configurations."""

    space: dict[str, dict[str, Any]] = dataclasses.field(
        default_factory=lambda: {name: dict(spec) for name, spec in DEFAULT_SPACE.items()}
    )
    """Dotted names to distributions: choice, grid, uniform, loguniform, randint, quniform, ..."""
    num_trials: Count = 16
    """Configurations to try; a grid has its own number."""
    time_budget_s: Positive | None = None
    """Seconds after which no trial goes on."""
    searcher: Literal["random", "grid", "tpe"] = "tpe"
    """How configurations are proposed: 'random', 'grid' or 'tpe' (Optuna's)."""
    scheduler: Literal["asha", "none"] = "asha"
    """How weak trials are stopped early: 'asha' or 'none'."""
    grace_epochs: Count = 1
    """Epochs every trial may run."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many trials goes on at each rung."""
    metric: Literal["validation_accuracy", "validation_macro_f1", "validation_loss"] = (
        "validation_accuracy"
    )
    """What is searched for: 'validation_accuracy', 'validation_macro_f1' or 'validation_loss'."""
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
    refit: bool = False
    """Train the best configuration again on training plus validation rows."""
    seed: Natural = 0
    """Seed of the search."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Config:
    """All settings of a run.

    Raises:
        ConfigError: from `load` and `override`; the constructors raise pydantic's
            ValidationError, which is a ValueError too.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """Where the text comes from and how it becomes token ids."""
    batching: BatchingConfig = dataclasses.field(default_factory=BatchingConfig)
    """How rows are grouped into batches."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    """The training loop and where it runs."""
    tune: TuneConfig = dataclasses.field(default_factory=TuneConfig)
    """The search over configurations."""
    output: str | None = None
    """Run folder or URI; null: runs/ and the time."""

    @classmethod
    def load(cls, file: str | None = None, overrides: Mapping[str, Any] | None = None) -> "Config":
        """Read a YAML file (a difference from the defaults) and apply dotted overrides.

        Raises:
            ConfigError: the file is not readable YAML, or a key or value is not valid; the
                message names the key, what would be right and the file.
        """
        tree = parse_yaml(storage.read_text(file), file) if file else {}
        return _validated(_merged(tree, overrides or {}), file)

    def override(self, overrides: Mapping[str, Any]) -> "Config":
        """A copy with dotted names set to other values.

        Raises:
            ConfigError: a name or value is not valid.
        """
        return _validated(_merged(self.to_dict(), overrides), None)

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain dictionaries, lists and scalars."""
        tree: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return tree

    def to_yaml(self) -> str:
        """The tree as YAML, in the order of the fields."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


_ADAPTER = TypeAdapter(Config)


@dataclasses.dataclass(frozen=True)
class Field_:  # noqa: N801
    """One setting: dotted name, default and what it is."""

    name: str
    default: Any
    doc: str


def field_docs() -> list[Field_]:
    """Every setting in the order of the tree."""
    found = []
    defaults = flatten(Config().to_dict())
    for group, info in _fields(Config).items():
        inner = _fields(info.annotation)
        if not inner:
            found.append(Field_(group, defaults.get(group), info.description or ""))
            continue
        for name, inner_info in inner.items():
            dotted = f"{group}.{name}"
            found.append(Field_(dotted, defaults.get(dotted), inner_info.description or ""))
    return found


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested groups as dotted names; a setting's own mapping (`tune.space`) stays whole."""
    flat = {}
    for group, values in tree.items():
        if isinstance(values, Mapping) and group in _groups():
            flat.update({f"{group}.{name}": value for name, value in values.items()})
        else:
            flat[group] = values
    return flat


def parse_yaml(text: str, file: str) -> dict[str, Any]:
    """Parse a YAML mapping.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{file}{line}: {problem}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: must be a mapping of settings, not {type(tree).__name__}")
    return tree


def _groups() -> dict[str, list[str]]:
    inner = {name: list(_fields(info.annotation)) for name, info in _fields(Config).items()}
    return {name: names for name, names in inner.items() if names}


def _fields(kind: Any) -> dict[str, FieldInfo]:
    """The fields of a group of settings; none of anything else."""
    return getattr(kind, "__pydantic_fields__", {})


def _merged(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()
    }
    for dotted, value in overrides.items():
        group, _, name = dotted.partition(".")
        if not name:
            merged[group] = value
            continue
        inner = merged.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{group} must be a mapping of settings, not {inner!r}")
        inner[name] = value
    return merged


def _validated(tree: Mapping[str, Any], file: str | None) -> Config:
    where = f"{file}: " if file else ""
    groups = _groups()
    _check_names("", tree, _fields(Config), where)
    for group, names in groups.items():
        inner = tree.get(group)
        if inner is None and group in tree:
            raise ConfigError(f"{where}{group} is empty; leave it out or give it settings")
        if isinstance(inner, Mapping):
            _check_names(f"{group}.", inner, names, where)
        elif group in tree:
            raise ConfigError(f"{where}{group} must be a mapping of settings, not {inner!r}")
    try:
        config: Config = _ADAPTER.validate_python(dict(tree))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        value = "" if isinstance(first["input"], Mapping) else f", not {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}{key}: {_lower_first(message)}{value}") from error
    return config


def _check_names(prefix: str, tree: Iterable[Any], valid: Iterable[str], where: str) -> None:
    valid = list(valid)
    for key in tree:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, 1)
            hint = f" (did you mean {prefix}{close[0]}?)" if close else ""
            of = f" of {prefix[:-1]}" if prefix else ""
            names = ", ".join(valid)
            raise ConfigError(f"{where}unknown key {prefix}{key}{hint}; valid keys{of}: {names}")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
