"""A trained model in this process: texts in, classes and probabilities out. No Ray."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rnntune import storage
from rnntune.data.batching import EncodedRows, collate, plan_scoring
from rnntune.data.formats.lines import is_text, replace_surrogates
from rnntune.data.tokenize import clean_texts
from rnntune.data.vocabulary import Lookup, load_vocab
from rnntune.inference.texts import LabelsTexts, checked_texts
from rnntune.model.ensemble import Network
from rnntune.training.evaluation import score_batches
from rnntune.training.model_metadata import ModelMetadata
from rnntune.training.saved_model import read_model

__all__ = ["TextClassifier", "load"]
_CHUNK_ROWS = 8_192


class TextClassifier(LabelsTexts):
    """A trained classifier of texts.

    Threads may share it: nothing in it changes.

    Args:
        model: the network.
        lookup: its vocabulary.
        description: its classes and how texts are prepared for it.
    """

    description: ModelMetadata

    def __init__(self, model: Network, lookup: Lookup, description: ModelMetadata) -> None:
        self.description = description
        self._model = model.eval()
        self._lookup = lookup
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> "TextClassifier":
        """Move the network to a device."""
        self._model.to(device)
        self._device = device
        return self

    def predict_proba(self, texts: Iterable[str]) -> npt.NDArray[np.float32]:
        """Probabilities of the classes, of sets of labels each by itself.

        Args:
            texts: of any number and length; the first `max_length` tokens of each are read. A
                text without a token is read as one unknown word.

        Returns:
            float32 (rows, classes), in the order of the texts.

        Raises:
            DataError: something else than strings.
        """
        rows = checked_texts(texts)
        probabilities = np.empty((len(rows), len(self.classes)), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            probabilities[start : start + len(chunk)] = self._score(self.encode(chunk))
        return probabilities

    def predict_encoded(self, rows: EncodedRows) -> npt.NDArray[np.float32]:
        """Probabilities, float32 (rows, classes), of rows encoded with the model's vocabulary."""
        return self._score(rows)

    def encode(self, texts: Sequence[str]) -> EncodedRows:
        """Clean, split and look up texts; their labels are 0."""
        texts = [text if is_text(text) else replace_surrogates(text) for text in texts]
        if self.description.clean:
            texts = clean_texts(pa.array(texts, pa.string())).to_pylist()
        ids, lengths = self._lookup.encode(
            texts, self.description.max_length, self.description.tokenizer
        )
        return EncodedRows(ids=ids, lengths=lengths, labels=np.zeros(len(lengths), dtype=np.int64))

    def _score(self, encoded: EncodedRows) -> npt.NDArray[np.float32]:
        # Padding would change what a network that is not packed gives for a text.
        plan = plan_scoring(encoded.lengths, padding=self.description.packed)
        probabilities = np.empty((len(encoded), len(self.classes)), dtype=np.float32)
        batches = (collate(encoded, plan.rows(number)) for number in range(len(plan)))
        temperature = self.description.temperature
        for scores in score_batches(self._model, batches, self._device, temperature=temperature):
            probabilities[scores.rows.numpy()] = scores.probabilities.numpy()
        return probabilities


def load(uri: str) -> TextClassifier:
    """Read a trained model.

    Args:
        uri: a model folder, or a run folder with one; a local path or a URI.

    Raises:
        RnntuneError: there is no whole model.
    """
    model, vocab_text, description = read_model(uri)
    words = load_vocab(vocab_text, storage.join(uri, "vocab.txt"))
    return TextClassifier(model, Lookup(words), description)
