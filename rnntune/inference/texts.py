"""Texts as a caller gives them, and labels: of each text, and as one text."""

import abc
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnntune.data.task import decide, label_names
from rnntune.errors import DataError

__all__ = ["LabelsTexts", "checked_texts", "free_delimiter"]
_DELIMITERS = ("|", ";", ",", "\t", "||", "|||")


class LabelsTexts(abc.ABC):
    """What gives texts their labels, by probabilities of the classes."""

    description: Any
    """Of the model: at least `classes` and `thresholds`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        names: tuple[str, ...] = self.description.classes
        return names

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Where texts have sets of labels, the probability from which on one has each class."""
        thresholds: tuple[float, ...] | None = self.description.thresholds
        return thresholds

    @abc.abstractmethod
    def predict_proba(self, texts: Iterable[str]) -> npt.NDArray[np.float32]:
        """Probabilities of the classes, float32 (texts, classes)."""

    def predict(self, texts: Iterable[str]) -> list[Any]:
        """The most probable class of each text; where texts have sets of labels, a list of them.

        Raises:
            DataError: something else than strings.
        """
        return label_names(decide(self.predict_proba(texts), self.thresholds), self.classes)


def checked_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list.

    Raises:
        DataError: one string in place of several, or something else than strings.
    """
    if isinstance(texts, str):
        raise DataError("texts must be a sequence of strings, not one string")
    rows = list(texts)
    for number, text in enumerate(rows):
        if not isinstance(text, str):
            raise DataError(f"texts[{number}] is not a string but {text!r:.40}")
    return rows


def free_delimiter(classes: Sequence[str], preferred: str | None = None) -> str:
    """What separates several labels in one text: '|', or what is in no class's name.

    Args:
        classes: names of the classes.
        preferred: that of the data.
    """
    wanted = (*([preferred] if preferred else []), *_DELIMITERS)
    return next((each for each in wanted if not any(each in name for name in classes)), "\x1f")
