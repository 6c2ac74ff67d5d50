"""What a run folder holds, read for a report. What a run lacks is left out, not an error."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import Required, TypedDict

from rnntune import storage
from rnntune.config.load import Config, flatten, parse_yaml
from rnntune.config.metric import Metric
from rnntune.data.task import label_sets, rows_equal
from rnntune.errors import RnntuneError, RunError
from rnntune.location import Location
from rnntune.report.content import masked
from rnntune.training.result_file import parse_result
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Journal, Trial

__all__ = ["DataFigures", "Predictions", "RunContents", "SplitFigures", "read_run"]
_Content = TypeVar("_Content")
Count = Annotated[int, Field(ge=0, le=2**62)]
Number = float | None


class _Epoch(TypedDict, total=False):
    """What figures rely on of a line of `metrics.jsonl`."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    epoch: Required[Count]
    train_loss: Number
    train_accuracy: Number
    validation_loss: Number
    validation_accuracy: Number
    validation_macro_f1: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """Figures of one split; see `data.prepared.Split`."""

    rows: Count
    tokens: Count
    known: Count
    cut: Count
    class_rows: tuple[Count, ...]
    length_rows: tuple[Count, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFigures:
    """The `data.json` of a run; see `training.report_data`."""

    fingerprint: str
    classes: tuple[str, ...]
    num_words: Count
    splits: Mapping[str, SplitFigures]
    telling_words: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """The `test_predictions.parquet` of a run; see `training.report_data`.

    Labels and predictions are numbers of classes, int32 (rows,); sets of classes are
    bool (rows, classes).
    """

    row: Any
    label: Any
    predicted: Any
    probability: Any
    calibrated: Any
    text: Sequence[str | None]

    @property
    def right(self) -> Any:
        """Which rows have their class, or their set of classes, predicted; bool (rows,)."""
        return rows_equal(self.predicted, self.label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContents:
    """What a run folder holds.

    Args:
        uri: the run folder.
        settings: dotted names to values, as the run resolved them.
        history: metrics of each epoch, of a search those of its best trial.
        result: the content of `result.json`; None: the run is not finished.
        data: figures of its data; None: it kept none.
        predictions: on the test rows; None: it kept none.
        trials: of a search; None: it is no search.
    """

    uri: str
    settings: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None
    data: DataFigures | None
    predictions: Predictions | None
    trials: Sequence[Trial] | None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return Location.parse(self.uri).name

    @property
    def chosen(self) -> Mapping[str, Sequence[Any]]:
        """Settings that were `auto`: name to value and reason."""
        return (self.result or {}).get("auto") or {}

    @property
    def aims(self) -> Aims:
        """What a search searches for."""
        names = self.settings.get("tune.metric", "validation_accuracy")
        listed = names if isinstance(names, list) and names else [names]
        return Aims(tuple(Metric(str(name)) for name in listed))

    @property
    def metric(self) -> Metric:
        """By what its trials are compared; the first of several aims."""
        return self.aims.first

    @property
    def command(self) -> str:
        """A command that makes the run again: its settings that are neither default nor chosen."""
        kind = "train" if self.trials is None else "tune"
        defaults = flatten(Config().to_dict())
        parts = ["rnntune", kind]
        for name, value in self.settings.items():
            unused = kind == "train" and name.startswith("tune.")
            if name == "output" or unused or name in self.chosen or value == defaults.get(name):
                continue
            flag = "--data" if name == "data.source" else f"--{name}"
            parts += [flag, value if isinstance(value, str) else json.dumps(value)]
        return masked(shlex.join([*parts, "--output", self.uri]))


def read_run(uri: str) -> RunContents:
    """Read a run folder, finished or not.

    Raises:
        RunError: it is no run, or a file of it is damaged.
    """
    file = storage.join(uri, "config.yaml")
    if not storage.exists(file):
        raise RunError(f"{uri}: no run here (no config.yaml)")
    settings = flatten(parse_yaml(storage.read_text(file), file))
    if "train.seed" not in settings:
        raise RunError(f"{uri}: a model, not a run; name the run folder")
    journal = storage.join(uri, "trials.jsonl")
    data = _read(uri, "data.json", _data)
    return RunContents(
        uri=str(Location.parse(uri).absolute()),
        settings=settings,
        history=_read(uri, "metrics.jsonl", _history) or [],
        result=_read(uri, "result.json", parse_result),
        data=data,
        predictions=_predictions(uri, len(data.classes) if data else 0),
        trials=Journal(journal).trials if storage.exists(journal) else None,
    )


def _read(uri: str, name: str, parse: Callable[[str, str], _Content]) -> _Content | None:
    """What a file of a run holds; None: the run has no such file.

    Raises:
        RunError: it is damaged.
    """
    file = storage.join(uri, name)
    if not storage.exists(file):
        return None
    try:
        return parse(storage.read_text(file), file)
    except RnntuneError:
        raise
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged ({RnntuneError.reason(error)})") from error


def _history(text: str, _: str) -> list[dict[str, Any]]:
    history = [json.loads(line) for line in text.splitlines() if line.strip()]
    _EPOCHS.validate_python(history)
    return history


def _data(text: str, _: str) -> DataFigures:
    data: DataFigures = _DATA.validate_json(text)
    if len({len(data.classes), *(len(split.class_rows) for split in data.splits.values())}) > 1:
        raise ValueError("its classes and their rows do not agree")
    return data


_EPOCHS: TypeAdapter[list[_Epoch]] = TypeAdapter(list[_Epoch])
_DATA = TypeAdapter(DataFigures)


def _predictions(uri: str, num_classes: int) -> Predictions | None:
    file = storage.join(uri, "test_predictions.parquet")
    if not storage.exists(file):
        return None
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(file)), use_threads=False)
        numbers = {
            name: _numbers(table[name].combine_chunks(), num_classes)
            for name in ("row", "label", "predicted", "probability", "calibrated")
        }
        return Predictions(**numbers, text=table["text"].to_pylist())
    except (pa.ArrowException, KeyError, IndexError) as error:
        raise RunError(f"{file}: damaged ({RnntuneError.reason(error)})") from error


def _numbers(column: pa.Array, num_classes: int) -> Any:
    """A column of numbers; lists of classes as bool (rows, classes)."""
    if not pa.types.is_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    return label_sets(column, num_classes)
