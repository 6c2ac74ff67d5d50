"""The trials of a search, and the journal that keeps them: `trials.jsonl`, one line an event.

The journal is all that a search needs to go on after it was killed: trials, their metrics in
the order in which they came, and how they ended. Searcher and scheduler are functions of it.
"""

import dataclasses
import enum
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rnntune import storage
from rnntune.config.metric import Metric
from rnntune.errors import RunError, StorageError
from rnntune.location import Location
from rnntune.tuning.journal_events import Copy, Stage, check_event

__all__ = ["PATIENCE_S", "Journal", "Trial", "TrialState", "best_epoch", "best_score", "best_trial"]
__all__ += ["ranked_trials"]
_RULES = 2
PATIENCE_S = 120.0
"""Seconds for which storage may fail before a search ends."""


class TrialState(str, enum.Enum):
    """How far a trial is, as the journal and `trials.csv` write it."""

    RUNNING = "running"
    PAUSED = "paused"
    """Its first epochs are done; it waits for those of the others."""
    FINISHED = "finished"
    STOPPED = "stopped"
    """Early: behind the best, out of time, or by the user."""
    FAILED = "failed"
    DIVERGED = "diverged"
    OVER_LIMIT = "over limit"

    @property
    def is_over(self) -> bool:
        """Whether the trial has ended."""
        return self not in (TrialState.RUNNING, TrialState.PAUSED)

    @property
    def may_win(self) -> bool:
        """Whether the trial's model may be chosen."""
        return not self.is_over or self in (TrialState.FINISHED, TrialState.STOPPED)

    __str__ = str.__str__


@dataclasses.dataclass(kw_only=True)
class Trial:
    """One configuration in a search.

    Args:
        number: of the trial, from 0.
        values: dotted names of the searched settings to values; of a population's member the
            last ones.
        state: how far it is.
        reason: why it ended before its last epoch.
        history: metrics of its epochs.
        num_parameters: of its model.
        latency_ms: of its model, for one text on one thread.
        attempts: times it was started.
        seconds: wall time of the attempt in which it ended.
        epochs: epochs it was to run.
        stages: the settings by epoch; more than one where a population changed them. Those and
            the history before are of the members that its model descends from.
    """

    number: int
    values: dict[str, Any]
    state: TrialState = TrialState.RUNNING
    reason: str = ""
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    num_parameters: int | None = None
    latency_ms: float | None = None
    attempts: int = 0
    seconds: float = 0.0
    epochs: int = 0
    stages: list[Stage] = dataclasses.field(default_factory=list)

    @property
    def has_changed(self) -> bool:
        """Whether its settings changed in training, so that they alone do not give its score."""
        return len(self.stages) > 1

    @property
    def name(self) -> str:
        """The trial's name and folder."""
        return f"trial-{self.number:04d}"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state.is_over

    @property
    def own_s(self) -> float:
        """Seconds of its own steps and evaluations."""
        if not self.history:
            return 0.0
        validation_s = sum(epoch.get("validation_s", 0.0) for epoch in self.history)
        return float(self.history[-1].get("train_s", 0.0) + validation_s)

    @property
    def overhead_s(self) -> float | None:
        """Seconds beyond its own steps and evaluations; None: it was not trained in one go."""
        trained = self.state in (TrialState.FINISHED, TrialState.STOPPED)
        if not trained or self.attempts != 1:
            return None
        return round(max(0.0, self.seconds - self.own_s), 3)


def _score(epoch: Mapping[str, Any], metric: Metric) -> float:
    """NaN where the metric is missing or no number: such an epoch is never the best."""
    value = epoch.get(metric.name)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _kept_epochs(trial: Trial) -> list[dict[str, Any]]:
    """The epochs one of which gave the model that is kept: where weights are averaged, the last."""
    if trial.history and trial.history[-1].get("averaged"):
        return trial.history[-1:]
    return trial.history


def best_score(trial: Trial, metric: Metric) -> float | None:
    """The metric of the trial's best epoch; None: it has none, or must not be chosen."""
    if not trial.state.may_win:
        return None
    return metric.best(_score(epoch, metric) for epoch in _kept_epochs(trial))


def best_epoch(trial: Trial, metric: Metric) -> dict[str, Any]:
    """The metrics of a trial's best epoch, the first among equals: the one whose model is kept."""
    scored = [epoch for epoch in _kept_epochs(trial) if math.isfinite(_score(epoch, metric))]
    return max(scored, key=lambda epoch: metric.score(float(epoch[metric.name])))


def best_trial(trials: Iterable[Trial], metric: Metric) -> Trial | None:
    """The trial with the best score; among equals the one with the lower loss, then the first."""
    return next(iter(ranked_trials(trials, metric)), None)


def ranked_trials(trials: Iterable[Trial], metric: Metric) -> list[Trial]:
    """The trials that have a score, the best first, in the order of `best_trial`."""
    scored = [trial for trial in trials if best_score(trial, metric) is not None]

    def rank(trial: Trial) -> tuple[float, float]:
        epoch = best_epoch(trial, metric)
        return -metric.score(epoch[metric.name]), epoch.get("validation_loss", math.inf)

    return sorted(scored, key=rank)


class Journal:
    """What happened in a search, kept in a file as it happens.

    Args:
        uri: of the file; what it holds already is read.

    Raises:
        RunError: it holds something else.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lines: list[str] = []
        self.trials: list[Trial] = []
        self.order: list[tuple[int, dict[str, Any]]] = []
        self.elapsed_s = 0.0
        self.extended_s = 0.0
        """Seconds that the search had taken when it was given more last; 0: never."""
        self.exchanged_epoch = 0
        """The epoch after which a population exchanged members last; 0: none."""
        self.rules = 0
        self._is_cut = False
        self._num_written = 0
        self._written_at = time.monotonic()
        if storage.exists(uri):
            self._read(storage.read_text(uri))

    def _read(self, text: str) -> None:
        whole = text[: text.rfind("\n") + 1]  # a line that a kill cut short never happened
        self._lines = whole.splitlines(keepends=True)
        applied = 0
        try:
            for line in self._lines:
                event = json.loads(line)
                check_event(event)
                self._apply(event)
                applied += 1
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            uri = f"{self._uri}:{applied + 1}"
            raise RunError(f"{uri}: damaged, not a search's event") from error
        self._num_written = len(self._lines)
        self._is_cut = whole != text

    def begin(self) -> None:
        """Note the rules by which a new search decides; one that goes on keeps its own.

        0 (a journal without a note): no default at first, and first epochs are compared by the
        metric; 1: the default comes first, and they are compared by the loss; 2: one epoch for all
        is followed by a semifinal.
        """
        if not self._lines:
            self._note(event="begin", rules=_RULES)

    def extend(self) -> None:
        """Note that the search is given more trials or more time from here on."""
        if self._lines:
            self._note(event="extend", seconds=round(self.elapsed_s, 2))

    def start(self, number: int, values: Mapping[str, Any], epochs: int) -> Trial:
        """Note that a trial starts, or starts again."""
        self._note(event="start", trial=number, values=dict(values), epochs=epochs)
        return self.trials[number]

    def epoch(self, number: int, metrics: Mapping[str, Any]) -> bool:
        """Note an epoch's metrics; False: they were noted before."""
        if metrics["epoch"] <= len(self.trials[number].history):
            return False
        self._note(event="epoch", trial=number, metrics=dict(metrics))
        return True

    def model(self, number: int, num_parameters: int, latency_ms: float | None) -> None:
        """Note the size and the latency of a trial's model."""
        self._note(
            event="model", trial=number, num_parameters=num_parameters, latency_ms=latency_ms
        )

    def end(self, number: int, state: TrialState, reason: str, seconds: float) -> None:
        """Note how a trial ended."""
        assert state.is_over
        self._note(event="end", trial=number, state=state.value, reason=reason, seconds=seconds)

    def pause(self, number: int, seconds: float) -> None:
        """Note that a trial waits for others, after some seconds."""
        self._note(event="pause", trial=number, seconds=seconds)

    def exchange(self, epoch: int, copies: Sequence[Copy]) -> None:
        """Note which members of a population go on as copies of which, after an epoch of all."""
        self._note(event="exchange", epoch=epoch, copies=[dataclasses.asdict(c) for c in copies])

    def elapsed(self, seconds: float) -> None:
        """Note the seconds that the search has taken so far."""
        self._note(event="elapsed", seconds=round(seconds, 2))

    def _note(self, **event: Any) -> None:
        self._lines.append(json.dumps(event) + "\n")
        self._apply(event)
        try:
            self.flush()
        except StorageError:
            if time.monotonic() - self._written_at > PATIENCE_S:
                raise

    def flush(self) -> None:
        """Write what is not written yet.

        Storage that fails for a while ends no search: what happens meanwhile is written later, in
        order, so that a killed search goes on from an earlier moment at worst.

        Raises:
            StorageError: it cannot be written.
        """
        if self._num_written < len(self._lines):
            try:
                self._write()
            except OSError as error:
                raise StorageError(f"{self._uri}: {StorageError.reason(error)}") from error
            self._num_written, self._is_cut = len(self._lines), False
        self._written_at = time.monotonic()

    def _write(self) -> None:
        if Location.parse(self._uri).is_remote or self._is_cut:  # objects cannot grow
            storage.write_text(self._uri, "".join(self._lines))
            return
        self._is_cut = True  # until the last byte is written
        with Path(self._uri).open("a", encoding="utf-8") as file:
            file.write("".join(self._lines[self._num_written :]))
            file.flush()
            os.fsync(file.fileno())

    def _apply(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "elapsed":
            self.elapsed_s = event["seconds"]
            return
        if kind == "extend":
            self.extended_s = event["seconds"]
            return
        if kind == "exchange":
            self._exchange(event["epoch"], [Copy(**copy) for copy in event["copies"]])
            return
        if kind == "begin":
            self.rules = event["rules"]
            return
        number = event["trial"]
        if kind == "start":
            if number == len(self.trials):
                values = dict(event["values"])
                stage = Stage(from_epoch=1, trial=number, values=values)
                self.trials.append(Trial(number=number, values=values, stages=[stage]))
            self.trials[number].attempts += 1
            self.trials[number].state = TrialState.RUNNING
            self.trials[number].epochs = event["epochs"]
            return
        trial = self.trials[number]
        if kind == "epoch":
            trial.history.append(dict(event["metrics"]))
            self.order.append((number, trial.history[-1]))
        elif kind == "model":
            trial.num_parameters = event["num_parameters"]
            trial.latency_ms = event["latency_ms"]
        elif kind == "pause":
            trial.state = TrialState.PAUSED
            trial.seconds += event["seconds"]
        else:
            trial.state, trial.reason = TrialState(event["state"]), event["reason"]
            trial.seconds += event["seconds"]

    def _exchange(self, epoch: int, copies: Sequence[Copy]) -> None:
        """Let members descend from others: their epochs so far are those of the others."""
        if epoch <= self.exchanged_epoch or {c.trial for c in copies} & {c.source for c in copies}:
            raise ValueError("not an exchange")
        for copy in copies:
            trial, source = self.trials[copy.trial], self.trials[copy.source]
            if len(trial.history) != epoch or len(source.history) != epoch:
                raise ValueError(f"a member that is not at epoch {epoch}")
            stage = Stage(from_epoch=epoch + 1, trial=copy.trial, values=dict(copy.values))
            trial.values, trial.stages = dict(copy.values), [*source.stages, stage]
            trial.history = [dict(metrics) for metrics in source.history]
            trial.num_parameters, trial.latency_ms = source.num_parameters, source.latency_ms
        self.exchanged_epoch = epoch
