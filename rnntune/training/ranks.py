"""The processes of a training: which one this is, and what all of them have together."""

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import distributed

__all__ = ["gather_lists", "rank", "sum_over_ranks", "world_size"]
_Item = TypeVar("_Item")


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def sum_over_ranks(values: Sequence[Any]) -> tuple[Any, ...]:
    """Numbers and arrays, each summed over all ranks, the same in every rank; all call it."""
    if world_size() == 1:
        return tuple(values)
    gathered = gather_lists([tuple(values)])
    return tuple(sum(of_rank[1:], of_rank[0]) for of_rank in zip(*gathered, strict=True))


def gather_lists(items: list[_Item]) -> list[_Item]:
    """The items of all ranks, those of rank 0 first, the same in every rank; all call it."""
    if world_size() == 1:
        return items
    gathered: list[Any] = [None] * world_size()
    distributed.all_gather_object(gathered, items)
    return [item for of_rank in gathered for item in of_rank]
