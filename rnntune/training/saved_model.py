"""A trained model as files of data: weights, vocabulary, metadata.

A folder holds `config.yaml`, `vocab.txt` and the weights: `model.safetensors`, or of an ensemble
`member-0.safetensors` and so on.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch.overrides import TorchFunctionMode

from rnntune import storage
from rnntune.config.load import Config
from rnntune.config.schema import AUTO
from rnntune.data.prepared import PreparedDataset
from rnntune.errors import RunError
from rnntune.model.ensemble import Ensemble, Network
from rnntune.model.network import Classifier
from rnntune.model.ngrams import letter_ngrams
from rnntune.training.calibration import Calibration
from rnntune.training.model_metadata import MemberMetadata, ModelMetadata
from rnntune.training.run_folder import RunFolder

__all__ = ["read_best_weights", "read_model", "save_ensemble", "save_model", "write_model"]
_MAX_METADATA_BYTES = 10_000_000
_MAX_LAYERS = 1_000
_WEIGHTS = re.compile(r"(model|member-\d+)\.safetensors")
_MAX_HEADER_BYTES = 1_000_000
"""Most that a safetensors file holds besides its tensors; ours hold some thousand bytes."""


def write_model(
    uri: str, weights: bytes | Sequence[bytes], vocab_text: str, description: ModelMetadata
) -> None:
    """Write a model folder: `config.yaml` comes last, so an unfinished one is not used.

    Args:
        uri: of the folder; weights of an older model in it are deleted.
        weights: a safetensors file, or one for each network.
        vocab_text: the vocabulary.
        description: the rest.
    """
    files = description.weight_files
    given = [weights] if isinstance(weights, bytes) else weights
    for name, content in zip(files, given, strict=True):
        storage.write_bytes(storage.join(uri, name), content)
    storage.write_text(storage.join(uri, "vocab.txt"), vocab_text)
    tree = TypeAdapter(ModelMetadata).dump_python(description, mode="json")
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    storage.write_text(storage.join(uri, "config.yaml"), text)
    for name in storage.list_folder(uri):
        if _WEIGHTS.fullmatch(name) and name not in files:
            storage.delete(storage.join(uri, name))


def read_model(uri: str) -> tuple[Network, str, ModelMetadata]:
    """Read a model folder, or the `model` in a run folder.

    Returns:
        The network or the ensemble in evaluation mode, the text of its vocabulary, its description.

    Raises:
        RunError: there is no whole model.
    """
    if storage.exists(storage.join(uri, "model", "config.yaml")):
        uri = storage.join(uri, "model")
    file = storage.join(uri, "config.yaml")
    if not storage.exists(file):
        raise RunError(f"{uri}: no model here (no config.yaml)")
    description = _read_metadata(file)
    vocab_text = storage.read_text(storage.join(uri, "vocab.txt"))
    words = vocab_text.split("\n")[:-1]
    try:
        networks = _build_on_meta(description, words)
    except (RuntimeError, OverflowError, TypeError, ValueError, AssertionError) as error:
        raise RunError(f"{file}: describes a network that cannot be built") from error
    for network, name in zip(networks, description.weight_files, strict=True):
        _load_weights(network, storage.join(uri, name))
    if not description.members:
        return networks[0].eval(), vocab_text, description
    weights = [member.weight for member in description.members]
    return Ensemble(networks, weights).eval(), vocab_text, description


def _read_metadata(file: str) -> ModelMetadata:
    if storage.file_version(file)[0] > _MAX_METADATA_BYTES:
        raise RunError(f"{file}: not a model's description (over {_MAX_METADATA_BYTES:,} bytes)")
    try:
        content = yaml.safe_load(storage.read_text(file))
        description: ModelMetadata = TypeAdapter(ModelMetadata).validate_python(content)
    except (ValidationError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise RunError(f"{file}: not a model's description") from error
    lengths = [network.model.recurrent_length for network in description.networks]
    if AUTO in lengths:  # the network refuses the others itself
        raise RunError(f"{file}: not a model's description (a setting is {AUTO!r})")
    num_thresholds = len(description.thresholds or ())
    if num_thresholds != (len(description.classes) if description.task.is_multi_label else 0):
        raise RunError(f"{file}: not a model's description ({num_thresholds} thresholds)")
    return description


class _WithoutInit(TorchFunctionMode):
    """Leaves new weights as they are; drawing them on `meta` alone imports sympy, half a second.

    Source: https://pytorch.org/tutorials/prototype/skip_param_init.html for the purpose,
    https://pytorch.org/docs/stable/torch.overrides.html for the means.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


_DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_)


def _build_on_meta(description: ModelMetadata, words: Sequence[str]) -> list[Classifier]:
    """The networks without memory for weights, whatever size the description claims."""
    trained, networks = description.num_trained_words, description.networks
    if (most := max(network.model.num_layers for network in networks)) > _MAX_LAYERS:
        raise ValueError(f"{most} layers")
    has_letters = any(network.model.letter_buckets for network in networks)
    letters = letter_ngrams(words[:trained]) if has_letters else None
    with torch.device("meta"), _WithoutInit():  # type: ignore[no-untyped-call]
        return [
            Classifier(
                network.model,
                len(words),
                len(description.classes),
                torch.empty(len(words), dim) if (dim := network.vector_dim) else None,
                letters if network.model.letter_buckets else None,
                num_trained_words=trained,
                task=description.task,
            )
            for network in networks
        ]


def _load_weights(model: Classifier, uri: str) -> None:
    """Give a network on `meta` its weights, once the file is known to hold just them."""
    expected = model.state_dict()
    num_bytes = sum(value.numel() * value.element_size() for value in expected.values())
    size, _ = storage.file_version(uri)
    mismatch = f"{uri}: weights, vocabulary and description do not match"
    if size > num_bytes + _MAX_HEADER_BYTES:
        raise RunError(f"{mismatch}: {size:,} bytes, the network has {num_bytes:,}")
    try:
        tensors = load_bytes(storage.read_bytes(uri))
    except SafetensorError as error:
        raise RunError(f"{uri} is truncated or damaged ({error})") from error
    if {k: (v.shape, v.dtype) for k, v in tensors.items()} != {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }:
        raise RunError(mismatch)
    model.load_state_dict(tensors, assign=True)


def read_best_weights(checkpoint: str) -> bytes:
    """The weights of the best epoch up to a checkpoint, as a safetensors file."""
    best = storage.join(checkpoint, "best.safetensors")
    last = storage.join(checkpoint, "model.safetensors")
    return storage.read_bytes(best if storage.exists(best) else last)


def save_model(
    config: Config,
    folder: RunFolder,
    prepared: PreparedDataset,
    vector_dim: int,
    weights: bytes,
    calibration: Calibration | None = None,
) -> None:
    """Write the run's model folder: all that prediction needs."""
    description = _describe(config, prepared, calibration or Calibration())
    description = dataclasses.replace(description, vector_dim=_frozen_dim(config, vector_dim))
    write_model(folder.inside("model"), weights, prepared.vocab_text(), description)


def save_ensemble(
    uri: str,
    members: Sequence[tuple[Config, int, int]],
    prepared: PreparedDataset,
    weights: Sequence[bytes],
    calibration: Calibration,
) -> None:
    """Write a model folder that holds several networks.

    Args:
        uri: of the folder.
        members: of each network its configuration, its weight in the mean and the size of its
            word vectors.
        prepared: the data that all were trained on.
        weights: a safetensors file for each.
        calibration: of the mean of their probabilities.
    """
    described = tuple(
        MemberMetadata(model=config.model, weight=weight, vector_dim=_frozen_dim(config, dim))
        for config, weight, dim in members
    )
    description = _describe(members[0][0], prepared, calibration)
    description = dataclasses.replace(description, members=described)
    write_model(uri, weights, prepared.vocab_text(), description)


def _frozen_dim(config: Config, vector_dim: int) -> int:
    return vector_dim if config.model.freeze_word_vectors else 0


def _describe(config: Config, prepared: PreparedDataset, calibration: Calibration) -> ModelMetadata:
    return ModelMetadata(
        model=config.model,
        classes=prepared.classes,
        clean=prepared.clean,
        tokenizer=prepared.tokenizer,
        max_length=config.data.max_length,
        text_columns=prepared.text_columns,
        label_column=prepared.label_column,
        temperature=calibration.temperature,
        label_delimiter=prepared.label_delimiter,
        task=prepared.task,
        thresholds=calibration.thresholds,
        num_trained_words=prepared.num_trained_words,
    )
