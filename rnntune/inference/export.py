"""`export`: a trained model as files that onnxruntime and tokenizers read, without PyTorch."""

import dataclasses
from typing import Any, Literal

from rnntune import storage
from rnntune.console import Terminal
from rnntune.data.task import Task
from rnntune.errors import ConfigError, RunError
from rnntune.inference.exported import METADATA, ExportedClassifier, ExportMetadata

__all__ = ["ExportSummary", "export_model"]
_LEAST_EQUAL, _MOST_LOST = 0.995, 0.001
_README = """# A text classifier

Exported by rnntune {version}: {num_words:,} words, {num_classes} classes. It needs three packages:
`pip install onnxruntime tokenizers numpy`, 199 MB on disk with what comes along unused, or

    pip install --no-deps --no-compile onnxruntime tokenizers numpy

142 MB; up to Python 3.12 `onnxruntime==1.17.3 tokenizers numpy==1.26.4` are 96 MB. In this folder:

```python
import numpy as np, onnxruntime, tokenizers
classes = open("classes.txt", encoding="utf-8").read().split("\\n")[:-1]
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("model.onnx")
texts = ["Stocks fall as oil hits a record", "The cup final ends in a draw"]
rows = tokenizer.encode_batch(texts)
ids = np.array([row.ids for row in rows], dtype=np.int64)
lengths = np.array([sum(row.attention_mask) for row in rows], dtype=np.int64)
probabilities = session.run(None, {{"ids": ids, "lengths": lengths}})[0]
{decision}
```

`model.onnx`: `ids` int64 (batch, time), what lies behind a row's length is not read; `lengths`
int64 (batch,); `probabilities` float32 (batch, classes){independent}.
The tokenizer cuts a text after {max_length:,} tokens. `metadata.json` says what was measured at the
export.
"""

_DECISIONS = {
    Task.SINGLE_LABEL: "print([classes[number] for number in probabilities.argmax(axis=1)])",
    Task.MULTI_LABEL: """import json
metadata = json.load(open("metadata.json", encoding="utf-8"))
sets = probabilities >= np.array(metadata["thresholds"], dtype=np.float32)
print([[classes[number] for number in np.flatnonzero(row)] for row in sets])""",
}
_INDEPENDENT = ", each by itself: a text has every class whose threshold it reaches"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What `export_model` left.

    Args:
        output: the folder.
        files: bytes of each file.
        num_words: words of the vocabulary.
        table_bits: bits of the numbers of embeddings.
        matrix_bits: of those of layers.
        checks: what was measured; see `rnntune.inference.export_checks.Cost`.
    """

    output: str
    files: dict[str, int]
    num_words: int
    table_bits: int
    matrix_bits: int
    checks: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {**dataclasses.asdict(self), "num_bytes": self.num_bytes}

    def to_text(self) -> str:
        """The summary in a few lines."""
        checks = self.checks
        kind = "validation rows" if checks["are_validation"] else "made-up rows"
        lines = [
            f"{self.output}: {self.num_bytes:,} bytes, {self.num_words:,} words, tables of "
            f"{self.table_bits} bits, layers of {self.matrix_bits}",
            f"on {checks['rows']:,} {kind}: {checks['equal_labels']:.2%} of the labels equal, "
            f"largest difference {checks['largest_difference']:.1e}",
        ]
        if checks["accuracy"] is not None:
            before = checks["model_accuracy"]
            lines.append(f"accuracy {checks['accuracy']:.4f}, of the model {before:.4f}")
        return "\n".join(lines)


def export_model(
    uri: str,
    output: str,
    *,
    quantize: Literal["int8"] | None = None,
    max_bytes: int | None = None,
    overwrite: bool = False,
    terminal: Terminal | None = None,
) -> ExportSummary:
    """Export a trained model, after a check that the export gives what the model gives.

    Args:
        uri: a run folder, or a model folder.
        output: folder or URI to be made.
        quantize: store numbers in 8 bits.
        max_bytes: of all files together; words and bits are left out until they fit.
        overwrite: replace an export that is there.
        terminal: where to say what is done.

    Raises:
        RunError: there is no whole model, or its export differs from it.
        ConfigError: the folder is taken, too few bytes, or a package is not installed.
    """
    _check_packages()
    _check_output(output, overwrite=overwrite)
    from rnntune.inference.export_checks import ExportChecks
    from rnntune.inference.export_size import describe, fit_size
    from rnntune.inference.export_source import Form, read_source
    from rnntune.inference.onnx_builder import Precision

    terminal = terminal or Terminal(silent=True)
    source = read_source(uri)
    checks = ExportChecks(source)
    if max_bytes is not None and source.members:
        raise ConfigError(
            f"--max-size: {uri} holds {len(source.members)} networks, and words are left out of "
            "one alone; take --quantize, or a search with tune.distill"
        )
    exported = source.build(Form())
    num_texts = checks.check_tokens(exported)
    cost = checks.check_parity(exported)
    parity = cost.largest_difference
    if max_bytes is not None:
        fitted = fit_size(
            source, checks, max_bytes, _size, quantize=quantize is not None, tell=terminal.line
        )
        terminal.line(f"chosen: {describe(fitted.form, source)}")
        exported, cost = fitted.exported, fitted.cost
    elif quantize is not None:
        form = Form(precision=Precision(tables=8, matrices=8))
        exported = source.build(form)
        cost = checks.measure(exported, form)
        _check_cost(cost)
    measured = {**cost.to_dict(), "parity": parity, "texts_with_equal_tokens": num_texts}
    description = dataclasses.replace(exported.description, checks=measured)
    files = _files(exported, description)
    _write(output, files)
    return ExportSummary(
        output=output,
        files={name: len(content) for name, content in files.items()},
        num_words=description.num_words,
        table_bits=description.table_bits,
        matrix_bits=description.matrix_bits,
        checks=measured,
    )


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'{error.name} is not installed: pip install "rnntune[export]"'
        ) from error


def _check_output(output: str, *, overwrite: bool) -> None:
    names = storage.list_folder(output)
    if names and METADATA not in names:
        raise RunError(f"{output}: this folder is not empty and holds no export")
    if names:
        try:
            ExportMetadata.from_json(storage.read_text(storage.join(output, METADATA)))
        except ValueError as error:
            raise RunError(f"{output}: this folder holds something else than an export") from error
    if names and not overwrite:
        raise RunError(f"{output}: an export is there already; use --overwrite")


def _check_cost(cost: Any) -> None:
    """Refuse an export of few bits that gives other classes than its model.

    A single row is always allowed: of few rows one is more than the limit.
    """
    if not cost.are_validation:
        return
    one = 1 / cost.rows
    lost = cost.model_accuracy - cost.accuracy
    if cost.equal_labels < 1 - max(1 - _LEAST_EQUAL, one) or lost > max(_MOST_LOST, one):
        raise RunError(
            f"not exported: with 8 bits {cost.equal_labels:.2%} of the labels of {cost.rows:,} "
            f"validation rows are equal (at least {_LEAST_EQUAL:.1%}) and accuracy is "
            f"{cost.accuracy:.4f}, not {cost.model_accuracy:.4f}; export without --quantize"
        )


def _size(exported: ExportedClassifier) -> int:
    """Bytes of all files, with room for what is measured."""
    files = _files(exported, exported.description)
    return sum(map(len, files.values())) + 500


def _files(exported: ExportedClassifier, description: ExportMetadata) -> dict[str, bytes]:
    """Content of each file; the one that marks a whole export comes last."""
    graph, tokenizer = exported.files
    readme = _README.format(
        version=description.version,
        num_words=description.num_words,
        num_classes=len(description.classes),
        max_length=description.max_length,
        decision=_DECISIONS[description.task],
        independent=_INDEPENDENT if description.task.is_multi_label else "",
    )
    classes = "".join(f"{' '.join(name.splitlines())}\n" for name in description.classes)
    texts = {
        "tokenizer.json": tokenizer,
        "classes.txt": classes,
        "README.md": readme,
        METADATA: description.to_json(),
    }
    return {"model.onnx": graph, **{name: text.encode() for name, text in texts.items()}}


def _write(output: str, files: dict[str, bytes]) -> None:
    storage.delete(storage.join(output, METADATA))
    for name, content in files.items():
        storage.write_bytes(storage.join(output, name), content)
