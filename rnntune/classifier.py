"""A trained model in this process: texts in, classes and probabilities out. No Ray."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rnntune import storage
from rnntune.batching import EncodedRows, collate, plan_scoring
from rnntune.checkpoint import Description, read_model
from rnntune.errors import DataError, RunError
from rnntune.lines import is_text, repaired
from rnntune.model import Classifier
from rnntune.text import Lookup, clean, load_vocab

__all__ = ["TextClassifier", "load"]

_CHUNK_ROWS = 8_192


class TextClassifier:
    """A trained classifier of texts.

    Threads may share it: nothing in it changes.

    Args:
        model: the network.
        lookup: its vocabulary.
        description: its classes and how texts are prepared for it.
    """

    def __init__(self, model: Classifier, lookup: Lookup, description: Description) -> None:
        self.description = description
        self._model = model.eval()
        self._lookup = lookup
        self._device = torch.device("cpu")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.description.classes

    def to(self, device: torch.device) -> "TextClassifier":
        """Move the network to a device."""
        self._model.to(device)
        self._device = device
        return self

    def predict(self, texts: Iterable[str]) -> list[str]:
        """The most probable class of each text.

        Raises:
            DataError: something else than strings.
        """
        return [self.classes[i] for i in self.predict_proba(texts).argmax(axis=1)]

    def predict_proba(self, texts: Iterable[str]) -> npt.NDArray[np.float32]:
        """Probabilities of the classes.

        Args:
            texts: of any number and length; the first `max_length` tokens of each are read. A
                text without a token is read as one unknown word.

        Returns:
            float32 (rows, classes), in the order of the texts.

        Raises:
            DataError: something else than strings.
        """
        if isinstance(texts, str):
            raise DataError("texts must be a sequence of strings, not one string")
        rows = list(texts)
        for number, text in enumerate(rows):
            if not isinstance(text, str):
                raise DataError(f"texts[{number}] is not a string but {text!r:.40}")
        probabilities = np.empty((len(rows), len(self.classes)), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            probabilities[start : start + len(chunk)] = self._score(self._encode(chunk))
        return probabilities

    def _encode(self, texts: list[str]) -> EncodedRows:
        texts = [text if is_text(text) else repaired(text) for text in texts]
        if self.description.clean:
            texts = clean(pa.array(texts, pa.string())).to_pylist()
        ids, lengths = self._lookup.encode(texts, self.description.max_length)
        return EncodedRows(ids=ids, lengths=lengths, labels=np.zeros(len(lengths), dtype=np.int64))

    def _score(self, encoded: EncodedRows) -> npt.NDArray[np.float32]:
        # Padding would change what a network that is not packed gives for a text.
        plan = plan_scoring(encoded.lengths, padding=self.description.model.packed)
        probabilities = np.empty((len(encoded), len(self.classes)), dtype=np.float32)
        with torch.inference_mode():
            for number in range(len(plan)):
                batch = collate(encoded, plan.rows(number)).to(self._device)
                logits = self._model(batch.ids, batch.lengths, uniform=batch.uniform)
                probabilities[batch.rows.numpy()] = logits.softmax(dim=1).cpu().numpy()
        return probabilities


def load(place: str) -> TextClassifier:
    """Read a trained model.

    Args:
        place: a model folder, or a run folder with one; a local path or a URI.

    Raises:
        RnntuneError: there is no whole model.
    """
    try:
        model, vocab_text, description = read_model(place)
    except UnicodeDecodeError as error:
        raise RunError(f"{place}: vocab.txt or config.yaml is not UTF-8") from error
    words = load_vocab(vocab_text, storage.join(place, "vocab.txt"))
    return TextClassifier(model, Lookup(words), description)
