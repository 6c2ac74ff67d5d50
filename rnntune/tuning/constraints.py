"""The limits that a search sets for its models, measured before a model is trained."""

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnntune.config.load import Config
from rnntune.errors import OverLimitError
from rnntune.training.shared_dataset import SharedDataset
from rnntune.training.worker import build_model

__all__ = ["ModelSize", "architecture", "build_within_limits"]
_MOST_PASSES, _MOST_S = 60, 0.3
_OF_TRAINING = ("dropout", "embedding_dropout", "word_dropout", "row_dropout", "embedding_std")
"""Settings of a model that do not change what a forward pass costs once it is trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What limits are set for.

    Args:
        num_parameters: of the model.
        latency_ms: of the model, for one text on one thread.
    """

    num_parameters: int
    latency_ms: float


def architecture(config: Config, values: Mapping[str, Any]) -> str:
    """What the latency of a trial's model depends on: equal for models that cost the same.

    Args:
        config: of the search.
        values: dotted names of the trial's settings to values.
    """
    model = config.override(values).to_dict()["model"]
    shape = {name: value for name, value in model.items() if name not in _OF_TRAINING}
    data = {name: value for name, value in values.items() if name.startswith("data.")}
    return json.dumps([shape, data], sort_keys=True, default=str)


def build_within_limits(
    config: Config,
    feed: SharedDataset,
    text_length: int,
    device: Any,
    latency_ms: float | None = None,
) -> tuple[Any, ModelSize]:
    """The model of a trial, with its size and the latency of one text on one thread.

    Args:
        config: of the trial.
        feed: its rows.
        text_length: tokens of the text.
        device: where the model goes.
        latency_ms: of this architecture, if it was measured before.

    Raises:
        OverLimitError: it is larger or slower than allowed.
    """
    import torch

    from rnntune.model.network import num_parameters

    limit = config.tune.max_parameters
    if limit is not None and (planned := _planned_parameters(config, feed)) > limit:
        raise OverLimitError(f"{planned:,} parameters, over {limit:,}", num_parameters=planned)
    torch.manual_seed(config.train.seed)
    model = build_model(config, feed, torch.device("cpu"))
    if latency_ms is None:
        latency_ms = round(_latency_ms(model, feed.num_words, text_length), 3)
    size = ModelSize(num_parameters=num_parameters(model), latency_ms=latency_ms)
    slowest = config.tune.max_latency_ms
    if slowest is not None and latency_ms > slowest:
        raise OverLimitError(
            f"{latency_ms:.2f} ms for one text, over {slowest:g} ms", **dataclasses.asdict(size)
        )
    torch.manual_seed(config.train.seed)
    return model.to(device), size


def _planned_parameters(config: Config, feed: SharedDataset) -> int:
    """Parameters of a model that is not made: one over the limit may not fit the memory."""
    import torch

    from rnntune.model.network import Classifier, num_parameters

    dim = feed.vector_dim if config.model.freeze_word_vectors else 0
    with torch.device("meta"):
        vectors = torch.empty(feed.num_words, dim) if dim else None
        nothing = torch.empty(0, dtype=torch.int64)
        model = Classifier(
            config.model,
            feed.num_words,
            len(feed.classes),
            vectors,
            (nothing, nothing),
            num_trained_words=feed.num_trained_words,
        )
        return num_parameters(model)


def _latency_ms(model: Any, num_words: int, length: int) -> float:
    """Time of a forward pass of one text, on one thread: the best of several.

    Other trials share the machine meanwhile. What they take is not the model's: the median of a
    few passes was 0.82 to 3.49 ms for one model, by what else ran.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, num_words, (1, length)))
    lengths = torch.tensor([length])
    best_s, begin = float("inf"), time.perf_counter()
    model.eval()
    with torch.inference_mode():
        for _ in range(_MOST_PASSES):
            start = time.perf_counter()
            model(ids, lengths, same_length=True)
            end = time.perf_counter()
            best_s = min(best_s, end - start)
            if end - begin > _MOST_S:
                break
    torch.set_num_threads(threads)
    return 1000 * best_s
