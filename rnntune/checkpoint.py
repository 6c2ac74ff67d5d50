"""What a run needs to go on, and a trained model, as files of data.

A checkpoint is a folder: `model.safetensors`, `optimizer.safetensors`, `best.safetensors` (the
weights of the best epoch, if it is not the last) and `state.json`, which is written last and
holds the size and digest of the others. Nothing is ever unpickled.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file

from rnntune import __version__, storage
from rnntune.config import ModelConfig
from rnntune.errors import RunError
from rnntune.model import Classifier

__all__ = ["Description", "Snapshot", "State", "load_snapshot", "load_tensors", "read_model"]
__all__ += ["save_snapshot", "verify", "write_model"]

_VERSION = 1
Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(kw_only=True)
class State:
    """Where a run stands.

    Args:
        epoch: epochs that are finished.
        position: batches of the current epoch that all ranks took.
        rows: rows of the current epoch that all ranks took.
        step: updates of the weights since the start.
        loss_sum: sum of the training loss over those rows.
        correct: rows among them that were classified correctly.
        train_s: seconds of training since the start, without evaluation.
        trained_rows: rows since the start.
        best_epoch: epoch (from 1) with the best validation metric; 0: none yet.
        history: metrics of the finished epochs.
    """

    epoch: int = 0
    position: int = 0
    rows: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    train_s: float = 0.0
    trained_rows: int = 0
    best_epoch: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """State and tensors of a run."""

    state: State
    model: Tensors
    optimizer: Tensors
    best: Tensors | None
    identity: Mapping[str, Any]


def save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint; `state.json` comes last, so an unfinished one is not taken for whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"model": snapshot.model, "optimizer": snapshot.optimizer}
    if snapshot.best is not None:
        tensors["best"] = snapshot.best
    files = {}
    for name, values in tensors.items():
        path = folder / f"{name}.safetensors"
        save_file({key: value.detach().cpu().contiguous() for key, value in values.items()}, path)
        files[path.name] = {"bytes": path.stat().st_size, "blake2b": _digest(path)}
    content = {
        "version": _VERSION,
        "identity": dict(snapshot.identity),
        "state": dataclasses.asdict(snapshot.state),
        "files": files,
    }
    aside = folder / "state.json.part"
    aside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    aside.replace(folder / "state.json")


def verify(folder: Path) -> dict[str, Any]:
    """The content of `state.json`, after a check that all files are whole.

    Raises:
        RunError: not a checkpoint, of another version, or truncated.
    """
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: not a checkpoint (no readable state.json)") from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise RunError(f"{folder}: not a checkpoint of this version ({_VERSION})")
    for name, expected in content["files"].items():
        path = folder / name
        if not path.exists():
            raise RunError(f"{folder}: checkpoint without {name}")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise RunError(f"{path}: truncated checkpoint, {size} of {expected['bytes']} bytes")
        if _digest(path) != expected["blake2b"]:
            raise RunError(f"{path}: damaged checkpoint, its digest is not that of state.json")
    return content


def load_snapshot(folder: Path, identity: Mapping[str, Any]) -> Snapshot:
    """Read a checkpoint.

    Args:
        folder: where it is.
        identity: what makes a run this run (data and settings); it must be the checkpoint's.

    Raises:
        RunError: it is truncated, damaged or of another run.
    """
    content = verify(folder)
    for key, value in identity.items():
        if content["identity"].get(key) != value:
            there = content["identity"].get(key)
            raise RunError(
                f"{folder}: checkpoint of another run: {key} is {there!r}, not {value!r}"
            )
    best = folder / "best.safetensors"
    return Snapshot(
        state=State(**content["state"]),
        model=load_tensors(folder / "model.safetensors"),
        optimizer=load_tensors(folder / "optimizer.safetensors"),
        best=load_tensors(best) if best.name in content["files"] else None,
        identity=content["identity"],
    )


def load_tensors(path: Path) -> Tensors:
    """Tensors of a safetensors file, copied into memory.

    Raises:
        RunError: it cannot be read as one.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: not a whole safetensors file ({error})") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.blake2b(digest_size=16)
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What is needed to use a model's weights; `config.yaml` of a model folder.

    Args:
        model: the architecture.
        classes: names of the classes, in the order of the outputs.
        clean: whether texts are cleaned first.
        max_length: tokens of a text that are read.
        text_columns: columns that make the text of a row.
        label_column: column of its label.
        vector_dim: size of the frozen word vectors; 0: none.
        version: of the package that wrote it.
    """

    model: ModelConfig
    classes: tuple[str, ...]
    clean: bool
    max_length: int
    text_columns: tuple[str, ...]
    label_column: str
    vector_dim: int = 0
    version: str = __version__


def write_model(place: str, weights: bytes, vocab_text: str, description: Description) -> None:
    """Write a model folder: `config.yaml` comes last, so an unfinished one is not used."""
    storage.write_bytes(storage.join(place, "model.safetensors"), weights)
    storage.write_text(storage.join(place, "vocab.txt"), vocab_text)
    content = TypeAdapter(Description).dump_python(description, mode="json")
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    storage.write_text(storage.join(place, "config.yaml"), text)


def read_model(place: str) -> tuple[Classifier, str, Description]:
    """Read a model folder, or the `model` in a run folder.

    Returns:
        The classifier in evaluation mode, the text of its vocabulary, its description.

    Raises:
        RunError: there is no whole model.
    """
    if storage.exists(storage.join(place, "model", "config.yaml")):
        place = storage.join(place, "model")
    file = storage.join(place, "config.yaml")
    if not storage.exists(file):
        raise RunError(f"{place}: no model here (no config.yaml)")
    try:
        content = yaml.safe_load(storage.read_text(file))
        description: Description = TypeAdapter(Description).validate_python(content)
        tensors = load_bytes(storage.read_bytes(storage.join(place, "model.safetensors")))
    except (ValidationError, yaml.YAMLError) as error:
        raise RunError(f"{file}: not a model's description") from error
    except SafetensorError as error:
        raise RunError(f"{place}: model.safetensors is truncated or damaged ({error})") from error
    vocab_text = storage.read_text(storage.join(place, "vocab.txt"))
    vectors = None
    if description.vector_dim:
        vectors = torch.zeros(vocab_text.count("\n"), description.vector_dim)
    model = Classifier(description.model, vocab_text.count("\n"), len(description.classes), vectors)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{place}: weights, vocabulary and description do not match") from error
    return model.eval(), vocab_text, description
