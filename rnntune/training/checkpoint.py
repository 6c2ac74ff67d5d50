"""What a run needs to go on, and a trained model, as files of data.

A checkpoint is a folder: `model.safetensors`, `optimizer.safetensors`, `best.safetensors` (the
weights of the best epoch, if it is not the last), `average.safetensors` (the mean of the weights
so far, while it is made) and `state.json`, which is written last and
holds the size and digest of the others. Nothing is ever unpickled.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from typing_extensions import TypedDict

from rnntune.errors import RunError

__all__ = ["Snapshot", "State", "load_snapshot", "load_tensors", "save_snapshot", "verify"]
_VERSION = 2
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
        bucket_width: of the batches where the settings leave it to the device; 0: not known.
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
    bucket_width: int = 0
    best_epoch: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """State and tensors of a run."""

    state: State
    model: Tensors
    optimizer: Tensors
    best: Tensors | None
    average: Tensors | None = None
    identity: Mapping[str, Any]


class _FileEntry(TypedDict):
    bytes: int
    blake2b: str


class _StateFile(TypedDict):
    """The content of `state.json`."""

    version: int
    identity: dict[str, Any]
    state: dict[str, Any]
    files: dict[str, _FileEntry]


def save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint; `state.json` comes last, so an unfinished one is not taken for whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"model": snapshot.model, "optimizer": snapshot.optimizer}
    if snapshot.best is not None:
        tensors["best"] = snapshot.best
    if snapshot.average is not None:
        tensors["average"] = snapshot.average
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
    try:
        TypeAdapter(_StateFile).validate_python(content)
        State(**content["state"])
    except (ValidationError, TypeError) as error:
        raise RunError(f"{folder}: not a checkpoint, its state.json is of another form") from error
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
    optional = {
        name: load_tensors(folder / f"{name}.safetensors")
        for name in ("best", "average")
        if f"{name}.safetensors" in content["files"]
    }
    return Snapshot(
        state=State(**content["state"]),
        model=load_tensors(folder / "model.safetensors"),
        optimizer=load_tensors(folder / "optimizer.safetensors"),
        best=optional.get("best"),
        average=optional.get("average"),
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
