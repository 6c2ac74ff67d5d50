"""Which split each file of a folder belongs to: by its name, or that of its folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rnntune.errors import DataError
from rnntune.location import Location

__all__ = ["SplitFiles", "SplitName", "check_parts", "merge_splits", "split_of"]


class SplitName(Enum):
    """A split that a name can mean, with the words that mean it."""

    TRAIN = ("train", "training")
    VALIDATION = ("validation", "valid", "val", "dev", "development")
    TEST = ("test", "testing")


@dataclass(frozen=True, kw_only=True)
class SplitFiles:
    """Files by split.

    Args:
        train: of the training split.
        validation: of the validation split.
        test: of the test split.
        notes: what the user should know, a line each.
    """

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def merge_splits(parts: Sequence[SplitFiles]) -> SplitFiles:
    """The files of several sources, in order, each once."""

    def every(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file for part in parts for file in getattr(part, name)))

    return SplitFiles(
        train=every("train"),
        validation=every("validation"),
        test=every("test"),
        notes=every("notes"),
    )


def split_of(name: str) -> SplitName | None:
    """The split that the name of a file or folder means; None: none, or several."""
    words = set(re.split(r"[-_. ]+", Location.parse(name).name.lower()))
    meant = [split for split in SplitName if words & set(split.value)]
    return meant[0] if len(meant) == 1 else None


def check_parts(folder: str, split: SplitName, files: Sequence[str]) -> None:
    """Refuse several files of a split that are no parts of one set.

    Parts are numbered: `train-00000-of-00002.parquet`, or `train-1.csv` and `train-2.csv`.

    Raises:
        DataError: a part is missing, or it is not clear which file is meant.
    """
    names = [Location.parse(file).name for file in files]
    shards = [re.match(r"(.*)-(\d{5})-of-(\d{5})(\..*)?$", name) for name in names]
    sets = {(shard[1], shard[3], shard[4]) for shard in shards if shard}
    if all(shards) and len(sets) == 1:
        total = int(next(iter(sets))[1])
        if len(names) != total:
            raise DataError(
                f"{folder}: {len(names)} of {total} parts of its {split.value[0]} split: "
                f"{_shown(names)}"
            )
        return
    if len(names) < 2:
        return
    numbered = [re.match(r"(.*?)\d+(\.[^\d]*)?$", name) for name in names]
    if all(numbered) and len({(part[1], part[2]) for part in numbered if part}) == 1:
        return
    raise DataError(
        f"{folder} has several files of its {split.value[0]} split: {_shown(names)}; "
        "give those that are meant, with commas between them"
    )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
