"""The rows of prepared data where workers reach them: in the object store, or in this process."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from rnntune.data.batching import EncodedRows
from rnntune.data.prepared import PreparedDataset, ShardRef, split_refs
from rnntune.errors import DataError

__all__ = ["fits_object_store", "hold_split", "share_split"]
_DRIVER_BYTES = 32 << 20
"""Encoded rows of a split that the driver reads sooner than workers for it would start."""


def share_split(prepared: PreparedDataset, split: str, *, in_store: bool) -> list[ShardRef]:
    """A split for the workers of a connected cluster.

    Tasks read many rows, on all nodes, and leave them in the object stores there.

    Args:
        prepared: where the data is.
        split: its name.
        in_store: put the rows into the object store once, for all.

    Raises:
        DataError: a file is damaged.
    """
    refs, num_classes = split_refs(prepared, split), len(prepared.classes)
    if not in_store:
        return refs
    if prepared.splits[split].encoded_bytes > _DRIVER_BYTES:
        return _read_by_tasks(refs, num_classes)
    import ray

    return [dataclasses.replace(ref, ref=ray.put(_read(ref, num_classes))) for ref in refs]


def hold_split(prepared: PreparedDataset, split: str, *, in_memory: bool) -> list[ShardRef]:
    """A split for this process alone.

    Args:
        prepared: where the data is.
        split: its name.
        in_memory: read the rows now and keep them.
    """
    refs, num_classes = split_refs(prepared, split), len(prepared.classes)
    return [dataclasses.replace(r, ref=_read(r, num_classes)) for r in refs] if in_memory else refs


def fits_object_store(datasets: Iterable[PreparedDataset], object_store_bytes: int) -> bool:
    """Whether the encoded rows of all datasets take no more than a third of the object store."""
    return sum(each.encoded_bytes for each in datasets) <= object_store_bytes / 3


def _read_by_tasks(refs: Sequence[ShardRef], num_classes: int) -> list[ShardRef]:
    import ray

    from rnntune.cluster.session import user_error

    task: Any = ray.remote(_read_and_tell)
    spread = task.options(num_returns=2, scheduling_strategy="SPREAD")
    made = [spread.remote(ref, num_classes) for ref in refs]
    try:
        ray.get([done for _, done in made])  # the rows themselves stay where they are
    except ray.exceptions.RayError as error:
        raise user_error(error) from error
    pairs = zip(refs, made, strict=True)
    return [dataclasses.replace(ref, ref=rows) for ref, (rows, _) in pairs]


def _read_and_tell(ref: ShardRef, num_classes: int) -> tuple[EncodedRows, bool]:
    return _read(ref, num_classes), True


def _read(ref: ShardRef, num_classes: int) -> EncodedRows:
    rows = ref.read()
    labels = rows.labels
    if labels.ndim == 1 and len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(f"{ref.uri}: damaged; delete its folder to prepare the data again")
    return rows
