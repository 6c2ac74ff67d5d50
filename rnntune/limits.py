"""The limits that a search sets for its models, measured before a model is trained."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnntune.config import Config
from rnntune.errors import RnntuneError
from rnntune.worker import Feed, build_model

__all__ = ["OverLimitError", "measured_model"]

_LATENCY_RUNS = 9


class OverLimitError(RnntuneError):
    """A model is larger or slower than the search allows.

    Args:
        reason: which, and by how much.
        size: what was measured.
    """

    def __init__(self, reason: str, size: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.size = dict(size)


def measured_model(
    config: Config, feed: Feed, text_length: int, device: Any
) -> tuple[Any, dict[str, Any]]:
    """The model of a trial, with its size and the latency of one text on one thread.

    Args:
        config: of the trial.
        feed: its rows.
        text_length: tokens of the text.
        device: where the model goes.

    Raises:
        OverLimitError: it is larger or slower than allowed.
    """
    import torch

    from rnntune.model import num_parameters

    limit = config.tune.max_parameters
    if limit is not None and (planned := _planned_parameters(config, feed)) > limit:
        raise OverLimitError(f"{planned:,} parameters, over {limit:,}", {"num_parameters": planned})
    torch.manual_seed(config.train.seed)
    model = build_model(config, feed, torch.device("cpu"))
    size = {"num_parameters": num_parameters(model)}
    latency_ms = _latency_ms(model, feed.num_words, text_length)
    found = {**size, "latency_ms": round(latency_ms, 3)}
    slowest = config.tune.max_latency_ms
    if slowest is not None and latency_ms > slowest:
        raise OverLimitError(f"{latency_ms:.2f} ms for one text, over {slowest:g} ms", found)
    torch.manual_seed(config.train.seed)
    return model.to(device), found


def _planned_parameters(config: Config, feed: Feed) -> int:
    """Parameters of a model that is not made: one over the limit may not fit the memory."""
    import torch

    from rnntune.model import Classifier, num_parameters

    dim = feed.vector_dim if config.model.freeze_word_vectors else 0
    with torch.device("meta"):
        vectors = torch.empty(feed.num_words, dim) if dim else None
        return num_parameters(Classifier(config.model, feed.num_words, len(feed.classes), vectors))


def _latency_ms(model: Any, num_words: int, length: int) -> float:
    """Median time of a forward pass of one text, on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, num_words, (1, length)))
    lengths = torch.tensor([length])
    times = []
    model.eval()
    with torch.inference_mode():
        for _ in range(_LATENCY_RUNS):
            start = time.perf_counter()
            model(ids, lengths, uniform=True)
            times.append(1000 * (time.perf_counter() - start))
    torch.set_num_threads(threads)
    return statistics.median(times[2:])
