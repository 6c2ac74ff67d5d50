"""An exported model in this process: onnxruntime and tokenizers, without PyTorch.

An export is a folder with `model.onnx`, `tokenizer.json`, `classes.txt`, `README.md` and
`metadata.json`, which is written last.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from rnntune import storage
from rnntune.data.formats.lines import is_text, replace_surrogates
from rnntune.data.task import Task
from rnntune.errors import ConfigError, RunError
from rnntune.inference.texts import LabelsTexts, checked_texts

if TYPE_CHECKING:
    from rnntune.data.batching import EncodedRows

__all__ = ["METADATA", "ExportMetadata", "ExportedClassifier", "is_export", "load_export"]
METADATA = "metadata.json"
_KIND = "rnntune export"
_BATCH_ROWS, _BATCH_CELLS = 64, 64 * 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportMetadata:
    """The content of `metadata.json`.

    Args:
        classes: names of the classes, in the order of the outputs.
        max_length: tokens of a text that are read.
        text_columns: columns that made the text of a row.
        label_column: column of its label, or several of 0 and 1.
        tokenizer: how texts are split.
        clean: whether texts are cleaned first.
        temperature: what the logits are divided by, inside the graph.
        table_bits: of the stored numbers of embeddings.
        matrix_bits: of those of layers.
        num_words: size of the vocabulary.
        checks: what was measured at the export.
        version: of the package that wrote it.
        label_delimiter: what separates labels in their column; None: nothing does.
        task: whether a row has one label, or a set of them.
        thresholds: of a set of labels, the probability from which on a row has each class.
        kind: what this file is.
    """

    classes: tuple[str, ...]
    max_length: int
    text_columns: tuple[str, ...]
    label_column: str | tuple[str, ...]
    tokenizer: str
    clean: bool
    temperature: float
    table_bits: int
    matrix_bits: int
    num_words: int
    checks: dict[str, Any]
    version: str
    label_delimiter: str | None = None
    task: Task = Task.SINGLE_LABEL
    thresholds: tuple[float, ...] | None = None
    kind: str = _KIND

    def to_json(self) -> str:
        """The content of the file."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ExportMetadata":
        """Read the content of the file.

        Raises:
            ValueError: it is another one.
        """
        found: ExportMetadata = TypeAdapter(ExportMetadata).validate_json(text)
        if found.kind != _KIND or not found.classes:
            raise ValueError("not an export's")
        if len(found.thresholds or ()) != len(found.classes) * found.task.is_multi_label:
            raise ValueError("not a threshold a class")
        return found


class ExportedClassifier(LabelsTexts):
    """An exported classifier of texts.

    Threads and processes may share it.

    Args:
        graph: the bytes of `model.onnx`.
        tokenizer: the text of `tokenizer.json`.
        description: its classes and how rows become texts.

    Raises:
        ConfigError: onnxruntime or tokenizers is not installed.
        RunError: one of the files is damaged.
    """

    description: ExportMetadata

    def __init__(self, graph: bytes, tokenizer: str, description: ExportMetadata) -> None:
        self.description = description
        self.files = graph, tokenizer
        self._session, self._tokenizer = _load(graph, tokenizer)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies in other processes load the files again."""
        return ExportedClassifier, (*self.files, self.description)

    def to(self, _: object) -> "ExportedClassifier":
        """Stay on the CPU."""
        return self

    def predict_proba(self, texts: Iterable[str]) -> npt.NDArray[np.float32]:
        """Probabilities of the classes.

        Args:
            texts: of any number and length; the first `max_length` tokens of each are read.

        Returns:
            float32 (rows, classes), in the order of the texts.

        Raises:
            DataError: something else than strings.
        """
        rows = checked_texts(texts)
        ids = self.encode([text if is_text(text) else replace_surrogates(text) for text in rows])
        return self._score(ids, np.fromiter(map(len, ids), np.int64, len(ids)))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, at most `max_length` of each; none of a text without a token."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def predict_encoded(self, rows: "EncodedRows") -> npt.NDArray[np.float32]:
        """Probabilities, float32 (rows, classes), of rows encoded with the model's vocabulary."""
        ids = np.split(rows.ids, np.cumsum(rows.lengths)[:-1])
        return self._score(ids, rows.lengths.astype(np.int64))

    def _score(self, ids: Sequence[Any], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        probabilities = np.empty((len(ids), len(self.classes)), dtype=np.float32)
        for batch in _batches(lengths):
            padded = np.zeros((len(batch), int(lengths[batch].max())), dtype=np.int64)
            for line, row in zip(padded, batch, strict=True):
                line[: lengths[row]] = ids[row]
            probabilities[batch] = self.run(padded, lengths[batch])
        return probabilities

    def run(
        self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Probabilities of padded ids.

        Args:
            ids: int64 (batch, time).
            lengths: int64 (batch,).

        Returns:
            float32 (batch, classes).
        """
        found: npt.NDArray[np.float32]
        found = self._session.run(["probabilities"], {"ids": ids, "lengths": lengths})[0]
        return found


def is_export(uri: str) -> bool:
    """Whether a folder holds an export, whole or not."""
    return storage.exists(storage.join(uri, "model.onnx"))


def load_export(uri: str) -> ExportedClassifier:
    """Read an export.

    Args:
        uri: its folder, a local path or a URI.

    Raises:
        ConfigError: onnxruntime or tokenizers is not installed.
        RunError: there is no whole export.
    """
    file = storage.join(uri, METADATA)
    if not storage.exists(file):
        raise RunError(f"{uri}: an export that was not finished (no {METADATA})")
    try:
        description = ExportMetadata.from_json(storage.read_text(file))
        tokenizer = storage.read_text(storage.join(uri, "tokenizer.json"))
    except (ValidationError, ValueError) as error:
        raise RunError(f"{uri}: {METADATA} or tokenizer.json is not an export's") from error
    graph = storage.read_bytes(storage.join(uri, "model.onnx"))
    try:
        return ExportedClassifier(graph, tokenizer, description)
    except RunError as error:
        raise RunError(f"{uri}: {error}") from error


def _load(graph: bytes, tokenizer: str) -> tuple[Any, Any]:
    try:
        import onnxruntime
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            f'{error.name} is not installed: pip install "rnntune[export]"'
        ) from error
    options = onnxruntime.SessionOptions()
    # The matrices are small; threads that wait by spinning take the cores from their neighbours.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        found = tokenizers.Tokenizer.from_str(tokenizer)
    except Exception as error:  # both libraries raise what has no common class
        raise RunError(f"damaged: {RunError.reason(error)}") from error
    names = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
    if names != ["ids", "lengths", "probabilities"]:
        raise RunError(f"model.onnx has {', '.join(names)}, not ids, lengths, probabilities")
    found.no_padding()
    return session, found


def _batches(lengths: npt.NDArray[np.int64]) -> Iterable[npt.NDArray[np.int64]]:
    """Rows of like length, 64 at most."""
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(1, min(_BATCH_ROWS, _BATCH_CELLS // longest))
        yield order[start : start + size]
        start += size
