"""Population based training: members that are behind go on as changed copies of those ahead.

All members of a population train some epochs and wait. Then those of the last quarter take the
weights, the optimizer state and the settings of one of the first quarter, and change what may
change in training. Who copies whom is a function of the journal, and nobody trains on before all
copies are made and the journal holds them: a search that is killed anywhere does the same again
from the same checkpoints.

Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks",
    https://arxiv.org/abs/1711.09846; synchronous, with its truncation selection (a quarter here).
"""

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import yaml

from rnntune import storage
from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.config.schema import TuneConfig
from rnntune.errors import RunError, StorageError
from rnntune.tuning.journal import PATIENCE_S, Journal, Trial
from rnntune.tuning.journal_events import Copy
from rnntune.tuning.perturbation import changed_settings
from rnntune.tuning.space import Space
from rnntune.tuning.trial_loop import trial_store

__all__ = ["Population", "choose_copies", "schedule_of", "write_schedule"]
T = TypeVar("T")
_QUARTER = 4
_RETRY_S = 0.5
_STREAM = 1711_09846  # of the generator: not that of the first settings


class Population:
    """The members of a search by population based training, over its journal.

    Args:
        config: all settings.
        space: what is searched.
        journal: of the search.
        uri: folder of the trials.
        size: number of members.
    """

    def __init__(self, config: Config, space: Space, journal: Journal, uri: str, size: int) -> None:
        self._tune, self._epochs = config.tune, config.train.epochs
        self._space, self._journal, self._uri, self._size = space, journal, uri, size

    @property
    def most_starts(self) -> int:
        """Times that members are started in one attempt, at most."""
        return self._size * math.ceil(self._epochs / self._tune.grace_epochs)

    @property
    def next_exchange(self) -> int | None:
        """The epoch after which all members wait; None: they train to their end."""
        epoch = self._journal.exchanged_epoch + self._tune.grace_epochs
        return epoch if epoch < self._epochs else None

    def waits(self, trial: Trial) -> bool:
        """Whether a member that is not over has to wait for others."""
        epoch = self.next_exchange
        return epoch is not None and len(trial.history) >= epoch

    def exchange(self, should_stop: Callable[[], bool]) -> bool:
        """Make the copies that are due, once all members wait; whether they were.

        Args:
            should_stop: whether to give up where storage fails.

        Raises:
            StorageError: storage fails for long.
        """
        trials, epoch = self._journal.trials, self.next_exchange
        living = [trial for trial in trials if not trial.is_over]
        if epoch is None or len(trials) < self._size or not living:
            return False
        if not all(self.waits(trial) for trial in living):
            return False
        # Members are overwritten from here on: what they reported must be in the file.
        _patiently(self._journal.flush, should_stop)
        chosen = choose_copies(self._tune, self._space, trials, epoch)
        made = [c for c in chosen if _patiently(functools.partial(self._make, c), should_stop)]
        self._journal.exchange(epoch, made)
        # Sources lose this checkpoint as they go on: the copies must be in the file.
        _patiently(self._journal.flush, should_stop)
        return True

    def _make(self, copy: Copy) -> bool:
        """Copy a checkpoint; False: it is damaged, and the member goes on with its own."""
        names = [self._journal.trials[number].name for number in (copy.source, copy.trial)]
        source, target = (trial_store(self._uri, name) for name in names)
        try:
            if (checkpoint := source.latest()) is None:
                return False
            target.adopt(checkpoint, {"values": json.loads(json.dumps(copy.values))})
        except RunError as error:
            if isinstance(error.__cause__, OSError):  # it may pass
                raise StorageError(str(error)) from error
            return False
        return True


def choose_copies(
    tune: TuneConfig, space: Space, trials: Sequence[Trial], epoch: int
) -> list[Copy]:
    """Which members go on as copies of which, and with which settings.

    Args:
        tune: metric and seed.
        space: what is searched.
        trials: all members; those that are over neither copy nor are copied.
        epoch: that all of them have finished.
    """
    metric = Metric(tune.metrics[0])

    def rank(trial: Trial) -> tuple[float, int]:
        value = float(trial.history[epoch - 1][metric.name])
        return -metric.score(value) if math.isfinite(value) else math.inf, trial.number

    ranked = sorted((trial for trial in trials if not trial.is_over), key=rank)
    num = len(ranked) // _QUARTER
    sources = [trial for trial in ranked[:num] if math.isfinite(rank(trial)[0])]
    copies = []
    for trial in sorted(ranked[len(ranked) - num :], key=lambda trial: trial.number):
        random = np.random.default_rng([_STREAM, tune.seed, epoch, trial.number])
        if sources:
            source = sources[int(random.integers(len(sources)))]
            values = changed_settings(space, source.values, random)
            copies.append(Copy(trial=trial.number, source=source.number, values=values))
    return copies


def schedule_of(trial: Trial) -> list[dict[str, Any]]:
    """The settings of a member by epoch, those of the members that it descends from included.

    Returns:
        For each change `from_epoch`, the `trial` that trained from there and its `values`.
    """
    return [
        {"from_epoch": stage.from_epoch, "trial": stage.trial, "values": dict(stage.values)}
        for stage in trial.stages
    ]


def write_schedule(uri: str, trial: Trial) -> None:
    """Write the settings of the best member by epoch, as YAML, which `best.yaml` cannot tell."""
    storage.write_text(uri, yaml.safe_dump(schedule_of(trial), sort_keys=False))


def _patiently(act: Callable[[], T], should_stop: Callable[[], bool]) -> T:
    """Do something with storage, again and again where that fails for a while."""
    deadline = time.monotonic() + PATIENCE_S
    while not should_stop() and time.monotonic() < deadline:
        with contextlib.suppress(StorageError):
            return act()
        time.sleep(_RETRY_S)
    return act()
