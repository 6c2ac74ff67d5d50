"""What trackers with a server share: which of their runs is a folder's, and what they keep."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rnntune import storage
from rnntune.config.load import Config, flatten
from rnntune.training.run_folder import RunFolder

__all__ = [
    "SETTING",
    "TrackedTrial",
    "TrialRecord",
    "epoch_metrics",
    "local_model",
    "local_report",
    "read_run_id",
    "read_trial",
    "scores",
    "settings",
    "write_run_id",
    "write_trial",
]
_FILE = "trackers.json"
_TRIALS = "trials"
SETTING = "settings/"
"""What begins the names of settings among the figures of an epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What trackers keep of a trial.

    Args:
        name: of the trial.
        values: dotted names of the searched settings to values.
        history: metrics of its epochs so far.
        state: how it ended; None: it runs.
        scores: its best metrics.
    """

    name: str
    values: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    state: str | None
    scores: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackedTrial:
    """What a tracker has of a trial, by the run folder, so that a resumed search goes on with it.

    Args:
        run_id: of the tracker's run; None: it has none yet.
        num_epochs: epochs that it was given.
        is_over: whether it was told the end.
    """

    run_id: str | None = None
    num_epochs: int = 0
    is_over: bool = False


def read_run_id(folder: RunFolder, tracker: str) -> str | None:
    """The tracker's run that an earlier attempt began; None: there is none."""
    found: str | None = _content(folder).get(tracker)
    return found


def write_run_id(folder: RunFolder, tracker: str, run_id: str) -> None:
    """Remember the tracker's run, so that a resumed run goes on with it."""
    _write(folder, {**_content(folder), tracker: run_id})


def read_trial(folder: RunFolder, tracker: str, trial: str) -> TrackedTrial:
    """What a tracker has of a trial."""
    found = _content(folder).get(_TRIALS, {}).get(tracker, {}).get(trial)
    return TrackedTrial(**found) if found else TrackedTrial()


def write_trial(folder: RunFolder, tracker: str, trial: str, tracked: TrackedTrial) -> None:
    """Remember what a tracker has of a trial."""
    content = _content(folder)
    content.setdefault(_TRIALS, {}).setdefault(tracker, {})[trial] = dataclasses.asdict(tracked)
    _write(folder, content)


def _content(folder: RunFolder) -> dict[str, Any]:
    """What trackers have of a run and its trials."""
    uri = folder.inside(_FILE)
    content: dict[str, Any] = json.loads(storage.read_text(uri)) if storage.exists(uri) else {}
    return content


def _write(folder: RunFolder, content: Mapping[str, Any]) -> None:
    storage.write_text(folder.inside(_FILE), json.dumps(content, indent=1) + "\n")


def settings(config: Config) -> dict[str, Any]:
    """All settings by their dotted names."""
    return flatten(config.to_dict())


def epoch_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an epoch that are scores, losses, or settings that change in training."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if name.startswith(("train_", "validation_", SETTING)) and _is_number(value)
    }


def scores(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result."""
    return {name: float(value) for name, value in result.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def local_model(folder: RunFolder) -> Iterator[str]:
    """The model folder as a local one."""
    with tempfile.TemporaryDirectory() as aside:
        yield storage.local_copy(folder.inside("model"), aside)


@contextmanager
def local_report(folder: RunFolder) -> Iterator[str]:
    """A folder with the report page alone."""
    with tempfile.TemporaryDirectory() as aside:
        page = storage.read_bytes(folder.inside("report.html"))
        (Path(aside) / "report.html").write_bytes(page)
        yield aside
