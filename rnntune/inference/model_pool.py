"""Steps over rows that need a model: each process loads it once, whatever the number of batches.

Small data goes through this process, the rest through Ray Data. There, on CPUs, these are tasks:
their processes are reused, start on demand and are replaced when they die. On GPUs they are
actors, because Ray ends a process after each task that had a GPU.

Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.remote.html (max_calls)
"""

import contextlib
import functools
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rnntune.cluster.resources import cluster_resources
from rnntune.cluster.session import is_connected, silence_ray_logging, user_error
from rnntune.data.local_dataset import LocalDataset, fits_process, text_bytes
from rnntune.errors import ConfigError

if TYPE_CHECKING:
    import ray.data

    from rnntune.inference.loading import AnyClassifier

__all__ = ["check_workers", "iterate_blocks", "map_with_model", "scores_locally"]
__all__ += ["single_threaded"]
_SMALL_BYTES = 16 << 20
"""Text that one process scores while a second one would still be starting."""
# Other than the one CPU of tasks that read: Ray Data would make one step of the two.
_MOST_CPUS = 0.99
_held: dict[Any, "AnyClassifier"] = {}


def check_workers(num_workers: int | None) -> None:
    """Refuse a number of workers that cannot be.

    Raises:
        ConfigError: fewer than one.
    """
    if num_workers is not None and num_workers < 1:
        raise ConfigError(f"num_workers must be at least 1, not {num_workers}")


def scores_locally(files: Sequence[str], num_workers: int | None) -> bool:
    """Whether this process scores files: they are small, and no cluster or worker is asked for."""
    return num_workers in (None, 1) and not is_connected() and fits_process(files, _SMALL_BYTES)


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch on one thread: others would wait for each other if anything else runs here."""
    torch = sys.modules.get("torch")
    if torch is None:  # an exported model needs none
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def map_with_model(
    dataset: "ray.data.Dataset | LocalDataset",
    function: Callable[..., pa.Table],
    classifier: "AnyClassifier",
    settings: Mapping[str, Any],
    *,
    batch_size: int | None,
    files: Sequence[str],
    num_workers: int | None,
) -> "ray.data.Dataset | LocalDataset":
    """Map batches of rows with a function that needs a model.

    One CPU is left to the tasks that read; without it those that score could wait for ever.
    A local dataset stays in this process.

    Args:
        dataset: the rows.
        function: called with the model, a table and `settings` by name; gives a table.
        classifier: the model.
        settings: other arguments of the function.
        batch_size: rows of a table; None: those of a block.
        files: where the rows come from; little data gets one worker.
        num_workers: None: one a GPU if there are any, one for little data, else one a CPU.
    """
    if isinstance(dataset, LocalDataset):
        return dataset.map_batches(functools.partial(function, classifier), fn_kwargs=settings)
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    there = cluster_resources()
    if num_workers is None:
        small = sum(map(text_bytes, files)) < _SMALL_BYTES
        num_workers = int(there.total("GPU")) or (1 if small else max(1, int(there.total("CPU"))))
    step = {"function": function, "classifier": ray.put(classifier), "settings": dict(settings)}
    cpus = min(_MOST_CPUS, _share(there.total("CPU") - 1, num_workers))
    if there.total("GPU") < 1:
        call: Any = _call
        return dataset.map_batches(
            call,
            batch_size=batch_size,
            batch_format="pyarrow",
            fn_kwargs=step,
            compute=TaskPoolStrategy(size=num_workers),
            num_cpus=cpus,
        )
    return dataset.map_batches(
        _Holder,
        batch_size=batch_size,
        batch_format="pyarrow",
        fn_constructor_kwargs=step,
        compute=ActorPoolStrategy(min_size=1, initial_size=num_workers, max_size=num_workers),
        num_cpus=cpus,
        num_gpus=min(1.0, _share(there.total("GPU"), num_workers)),
    )


def iterate_blocks(
    dataset: "ray.data.Dataset | LocalDataset", *, verbose: bool
) -> Iterator[pa.Table]:
    """Run a dataset and give its blocks as they come.

    Args:
        dataset: what to run.
        verbose: let Ray log.

    Raises:
        DataError: a user's mistake that a task met.
    """
    if isinstance(dataset, LocalDataset):
        with single_threaded():
            yield from dataset.iter_batches()
        return
    from ray.exceptions import RayError

    silence_ray_logging(verbose)
    with warnings.catch_warnings():
        # Fewer blocks than workers: nothing that the user should mend.
        warnings.filterwarnings("ignore", "The (max|min)imum number of concurrent", UserWarning)
        try:
            yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        except RayError as error:
            raise user_error(error) from error


def _call(
    table: pa.Table,
    *,
    function: Callable[..., pa.Table],
    classifier: Any,
    settings: Mapping[str, Any],
) -> Iterator[pa.Table]:
    # A generator, because Ray Data hides what kind of error another function raised.
    yield function(_model(classifier), table, **settings)


class _Holder:
    def __init__(
        self, function: Callable[..., pa.Table], classifier: Any, settings: Mapping[str, Any]
    ) -> None:
        self._step = {"function": function, "classifier": classifier, "settings": settings}

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        yield from _call(table, **self._step)


def _model(reference: Any) -> "AnyClassifier":
    """The model of this process."""
    import ray
    import torch

    if reference not in _held:
        torch.set_num_threads(1)
        _held.clear()
        found: AnyClassifier = ray.get(reference)
        gpu = bool(ray.get_gpu_ids()) and torch.cuda.is_available()
        _held[reference] = found.to(torch.device("cuda")) if gpu else found
    return _held[reference]


def _share(total: float, num_workers: int) -> float:
    """What each gets, rounded down to what Ray counts in."""
    return math.floor(max(total, 0.0) / num_workers * 1e4) / 1e4
