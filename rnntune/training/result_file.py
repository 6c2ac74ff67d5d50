"""`result.json`: what it may hold, and reading one that somebody else wrote or that is damaged."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import Required, TypedDict

from rnntune.errors import RunError

__all__ = ["parse_result"]
_MAX_BYTES = 50_000_000
Count = Annotated[int, Field(ge=0, le=2**62, strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]


def _with_total(seconds: dict[str, float]) -> dict[str, float]:
    if "total" not in seconds:
        raise ValueError("total is missing")
    return seconds


class _Scores(TypedDict, total=False):
    """Of one of the models that a search with an ensemble compares."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    validation_accuracy: Share
    validation_micro_f1: Share
    validation_macro_f1: Share
    validation_loss: Number
    test_loss: Number
    test_accuracy: Required[Share]
    test_micro_f1: Share
    test_macro_f1: Share
    num_parameters: Count


class _Member(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    trial: Count
    weight: Count


class _EnsembleScores(_Scores):
    members: Annotated[list[_Member], Field(min_length=1, max_length=100)]


class _Stage(TypedDict):
    from_epoch: Count
    trial: Count
    values: dict[str, Any]


class _Result(TypedDict, total=False):
    """What readers of a result rely on; it may hold more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    test_accuracy: Required[Share]
    test_macro_f1: Required[Share]
    test_rows: Required[Count]
    num_parameters: Required[Count]
    validation_accuracy: Share | None
    running_train_accuracy: Share | None
    padding_fraction: Share | None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    validation_calibration_error: Share | None
    validation_calibration_error_before: Share | None
    train_rows: Count
    train_rows_per_s: Seconds
    world_size: Count
    epochs: Count
    best_epoch: Count
    num_trials: Count
    num_finished: Count
    num_stopped: Count
    num_over_limit: Count
    num_errors: Count
    best_trial: Count
    trained_epochs: Count
    trial_overhead_s: Seconds | None
    importance: dict[str, Share]
    importance_interval: dict[str, tuple[Share, Share]]
    best_single: _Scores
    ensemble: _EnsembleScores
    distilled: _Scores
    metrics: list[str]
    warm_start: dict[str, Any]
    front: list[dict[str, Number]]
    schedule: list[_Stage]
    seconds: Annotated[dict[str, Seconds], AfterValidator(_with_total)]
    auto: dict[str, tuple[Any, str]]
    warnings: list[str]


def parse_result(text: str, uri: str) -> dict[str, Any]:
    """The content of a `result.json`.

    Args:
        text: of the file.
        uri: where it was read, for messages.

    Raises:
        RunError: it is cut off or damaged, or a value of it cannot be.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        _ADAPTER.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise RunError(f"{uri}: damaged, {where}: {first['msg'].lower()}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{uri}: damaged, not JSON") from error
    return content


_ADAPTER = TypeAdapter(_Result)
