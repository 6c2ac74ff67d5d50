"""What a line of the journal may hold: a damaged one, or an enemy's, is refused when it is read."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter

__all__ = ["Copy", "Stage", "check_event"]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Number = Annotated[int, Field(ge=0, lt=1_000_000)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copy:
    """A member of a population that goes on as a copy of another one.

    Args:
        trial: number of the member.
        source: number of the one whose weights and optimizer state it takes.
        values: its settings from here on, dotted names to values.
    """

    trial: int
    source: int
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Epochs that were trained with the same settings.

    Args:
        from_epoch: the first of them, from 1.
        trial: number of the trial that trained them.
        values: dotted names of the searched settings to values.
    """

    from_epoch: int
    trial: int
    values: dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Begin(_Strict):
    event: Literal["begin"]
    rules: Annotated[int, Field(ge=0, le=2)]


class _Start(_Strict):
    event: Literal["start"]
    trial: _Number
    values: dict[str, Any]
    epochs: NonNegativeInt


class _Metrics(_Strict):
    """Of an epoch; the losses and scores beside these are numbers, too."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)

    epoch: PositiveInt
    validation_loss: float = 0.0
    train_s: _Seconds = 0.0
    validation_s: _Seconds = 0.0


class _Epoch(_Strict):
    event: Literal["epoch"]
    trial: _Number
    metrics: _Metrics


class _Model(_Strict):
    event: Literal["model"]
    trial: _Number
    num_parameters: NonNegativeInt | None
    latency_ms: _Seconds | None


class _End(_Strict):
    event: Literal["end"]
    trial: _Number
    state: str
    reason: str
    seconds: _Seconds


class _Pause(_Strict):
    event: Literal["pause"]
    trial: _Number
    seconds: _Seconds


class _Copy(_Strict):
    trial: _Number
    source: _Number
    values: dict[str, Any]


class _Exchange(_Strict):
    event: Literal["exchange"]
    epoch: PositiveInt
    copies: list[_Copy]


class _Elapsed(_Strict):
    event: Literal["elapsed", "extend"]
    seconds: _Seconds


_EVENT: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        _Begin | _Start | _Epoch | _Model | _Pause | _End | _Exchange | _Elapsed,
        Field(discriminator="event"),
    ]
)


def check_event(event: object) -> None:
    """Check one line of a journal.

    Args:
        event: as JSON gives it.

    Raises:
        ValueError: it is no event of a search.
    """
    _EVENT.validate_python(event)
