"""What earlier searches tried, for a new one to begin from: `tune.warm_start`.

Their trials are translated into the new search's space and kept in its folder, in
`warm_start.json`, so that it goes on without the earlier runs:

    {"searches": [{"uri": ..., "trials": [{"values": {...}, "metrics": {...}}, ...]}, ...],
     "num_clipped": 0, "num_outside": 0, "not_searched": []}

`values` holds the settings of the new space that a trial had, searched or not; `metrics` its
values of the new search's aims. What the new search makes of them is in `prior`.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from rnntune import storage
from rnntune.config.load import Config, flatten, parse_yaml
from rnntune.errors import RunError
from rnntune.training.run_folder import RunFolder
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Journal, TrialState
from rnntune.tuning.space import Space

__all__ = ["EarlierSearch", "EarlierTrial", "WarmStart", "open_warm_start", "write_warm_start"]
_FILE = "warm_start.json"
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A trial of an earlier search.

    Args:
        values: dotted names of settings of the new space to values in it; at least one.
        metrics: values of all aims of the new search.
    """

    values: dict[str, Any]
    metrics: dict[str, Finite]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlierSearch:
    """What an earlier search tried.

    Args:
        uri: of its run folder.
        trials: in the order of its journal.
    """

    uri: str
    trials: tuple[EarlierTrial, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What a search begins from.

    Args:
        searches: at least one, each with a trial.
        num_clipped: values that were moved to the nearest one in the new space.
        num_outside: values that the new space has not, which were left out.
        not_searched: settings that differ between earlier trials and are fixed now.
    """

    searches: tuple[EarlierSearch, ...]
    num_clipped: int = 0
    num_outside: int = 0
    not_searched: tuple[str, ...] = ()

    @property
    def num_trials(self) -> int:
        """Trials of all earlier searches."""
        return sum(len(search.trials) for search in self.searches)

    def summary(self) -> dict[str, Any]:
        """What `result.json` says of it."""
        uris = [search.uri for search in self.searches]
        return {"searches": uris, "num_trials": self.num_trials}

    def line(self) -> str:
        """What was taken and what was not, in one line."""
        taken = ", ".join(f"{len(search.trials)} of {search.uri}" for search in self.searches)
        parts = [f"warm start: {self.num_trials} earlier trials ({taken})"]
        if self.num_clipped:
            parts.append(f"{self.num_clipped} values moved to the nearest in the space")
        if self.num_outside:
            parts.append(f"{self.num_outside} values outside the space left out")
        if self.not_searched:
            parts.append(f"not searched now: {', '.join(self.not_searched)}")
        return "; ".join(parts)


def open_warm_start(config: Config, space: Space, folder: RunFolder | None) -> WarmStart | None:
    """What a search begins from: as its folder has it, or read from the earlier runs.

    Args:
        config: of the new search.
        space: of the new search.
        folder: of a search that goes on; None: it has not begun.

    Returns:
        None if the configuration names no earlier search.

    Raises:
        RunError: one of them is no search, or has no finished trial that could serve; or the file
            in the folder is damaged.
    """
    if not config.tune.warm_start:
        return None
    if folder is not None and storage.exists(file := folder.inside(_FILE)):
        try:
            warm: WarmStart = _ADAPTER.validate_json(storage.read_bytes(file))
            _check(warm, config, space)
        except (ValidationError, ValueError) as error:
            raise RunError(f"{file}: damaged; without it the search cannot go on") from error
        return warm
    counts: Counter[str] = Counter()
    names: set[str] = set()
    searches = tuple(
        _read(uri, Aims.of(config.tune), space, counts, names) for uri in config.tune.warm_start
    )
    return WarmStart(
        searches=searches,
        num_clipped=counts["clipped"],
        num_outside=counts["outside"],
        not_searched=tuple(sorted(names - set(space.names))),
    )


def write_warm_start(warm: WarmStart, folder: RunFolder) -> None:
    """Keep what a search begins from in its folder, before its first trial; once is enough."""
    if not storage.exists(file := folder.inside(_FILE)):
        storage.write_text(file, json.dumps(dataclasses.asdict(warm)) + "\n")


_ADAPTER = TypeAdapter(WarmStart)


def _check(warm: WarmStart, config: Config, space: Space) -> None:
    """Raise a ValueError where a file holds what `open_warm_start` would not have written."""
    dimensions = {dimension.name: dimension for dimension in space.dimensions}
    trials = [trial for search in warm.searches for trial in search.trials]
    if not trials or not all(search.trials for search in warm.searches):
        raise ValueError("no trials")
    names = set(Aims.of(config.tune).names)
    for trial in trials:
        if set(trial.metrics) != names:
            raise ValueError("other metrics")
        if not all(n in dimensions and dimensions[n].holds(v) for n, v in trial.values.items()):
            raise ValueError("values outside the space")


def _read(
    uri: str, aims: Aims, space: Space, counts: Counter[str], names: set[str]
) -> EarlierSearch:
    """The trials of a run that ended with a score, in the new space; counts what did not fit."""
    journal = storage.join(uri, "trials.jsonl")
    if not storage.exists(journal):
        raise RunError(f"tune.warm_start: {uri}: no search here (no trials.jsonl)")
    file = storage.join(uri, "config.yaml")
    fixed = flatten(parse_yaml(storage.read_text(file), file))
    # The score of settings that changed in training is not that of the last ones.
    ended = [trial for trial in Journal(journal).trials if trial.is_over and not trial.has_changed]
    if not any(trial.state is TrialState.FINISHED for trial in ended):
        raise RunError(f"tune.warm_start: {uri}: this search has no finished trial")
    trials = []
    for trial in ended:
        metrics = aims.values(trial)
        if metrics is None:
            continue
        values = _translated({**fixed, **trial.values}, space, counts)
        names.update(trial.values)
        if values:
            numbers = {name: float(value) for name, value in metrics.items()}
            trials.append(EarlierTrial(values=values, metrics=numbers))
    if not trials:
        raise RunError(
            f"tune.warm_start: {uri}: none of its trials has {' and '.join(aims.names)} and a "
            "value in tune.space"
        )
    return EarlierSearch(uri=uri, trials=tuple(trials))


def _translated(settings: Mapping[str, Any], space: Space, counts: Counter[str]) -> dict[str, Any]:
    """The values that the settings of an earlier trial have in the new space."""
    values = {}
    for dimension in space.dimensions:
        if dimension.name not in settings:
            continue
        value = settings[dimension.name]
        if dimension.holds(value):
            values[dimension.name] = value
        elif not dimension.is_list and _is_number(value):
            values[dimension.name] = dimension.nearest(value)
            counts["clipped"] += 1
        else:
            counts["outside"] += 1
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and not isinstance(value, bool)
