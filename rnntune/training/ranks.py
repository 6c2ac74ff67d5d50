"""The processes of a training: which one this is, and sums over all of them."""

from collections.abc import Sequence
from typing import Any

from torch import distributed

__all__ = ["rank", "sum_over_ranks", "world_size"]


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
    gathered: list[Any] = [None] * world_size()
    distributed.all_gather_object(gathered, tuple(values))
    return tuple(sum(of_rank[1:], of_rank[0]) for of_rank in zip(*gathered, strict=True))
