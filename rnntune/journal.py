"""The trials of a search, and the journal that keeps them: `trials.jsonl`, one line an event.

The journal is all that a search needs to go on after it was killed: trials, their metrics in
the order in which they came, and how they ended. Searcher and scheduler are functions of it.
"""

import contextlib
import dataclasses
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rnntune import storage

__all__ = ["Journal", "Trial", "best_epoch", "best_of", "importance"]
__all__ += ["quiet_optuna", "score", "table"]

_OVER = ("finished", "stopped", "failed", "diverged", "over limit")


@dataclasses.dataclass(kw_only=True)
class Trial:
    """One configuration in a search.

    Args:
        number: of the trial, from 0.
        values: dotted names of the searched settings to values.
        state: 'running', 'finished', 'stopped' (early), 'failed', 'diverged' or 'over limit'.
        reason: why it ended before its last epoch.
        history: metrics of its epochs.
        num_parameters: of its model.
        latency_ms: of its model, for one text on one thread.
        attempts: times it was started.
        seconds: wall time of the attempt in which it ended.
        epochs: epochs it was to run.
    """

    number: int
    values: dict[str, Any]
    state: str = "running"
    reason: str = ""
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    num_parameters: int | None = None
    latency_ms: float | None = None
    attempts: int = 0
    seconds: float = 0.0
    epochs: int = 0

    @property
    def name(self) -> str:
        """The trial's name and folder."""
        return f"trial-{self.number:04d}"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in _OVER

    @property
    def own_s(self) -> float:
        """Seconds of its own steps and evaluations."""
        if not self.history:
            return 0.0
        return float(self.history[-1]["train_s"] + sum(h["validation_s"] for h in self.history))

    @property
    def overhead_s(self) -> float | None:
        """Seconds beyond its own steps and evaluations; None: it was not trained in one go."""
        if self.state not in ("finished", "stopped") or self.attempts != 1:
            return None
        return round(max(0.0, self.seconds - self.own_s), 3)


def score(trial: Trial, metric: str, mode: str) -> float | None:
    """The metric of the trial's best epoch; None: it has none, or must not be chosen."""
    values = [float(h[metric]) for h in trial.history if math.isfinite(h[metric])]
    if not values or trial.state in ("failed", "diverged", "over limit"):
        return None
    return max(values) if mode == "max" else min(values)


def best_epoch(trial: Trial, metric: str, mode: str) -> dict[str, Any]:
    """The metrics of a trial's best epoch, the first among equals: the one whose model is kept."""
    known = [epoch for epoch in trial.history if math.isfinite(epoch[metric])]
    choose = max if mode == "max" else min
    return choose(known, key=lambda epoch: float(epoch[metric]))


def best_of(trials: Iterable[Trial], metric: str, mode: str) -> Trial | None:
    """The trial with the best score; among equals the one with the lower loss, then the first."""
    scored = [trial for trial in trials if score(trial, metric, mode) is not None]

    def rank(trial: Trial) -> tuple[float, float]:
        epoch = best_epoch(trial, metric, mode)
        return -epoch[metric] if mode == "max" else epoch[metric], epoch["validation_loss"]

    return min(scored, key=rank, default=None)


class Journal:
    """What happened in a search, kept in a file as it happens.

    Args:
        place: of the file; what it holds already is read.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._lines: list[str] = []
        self.trials: list[Trial] = []
        self.order: list[tuple[int, dict[str, Any]]] = []
        self.elapsed_s = 0.0
        self._is_cut = False
        if storage.exists(place):
            self._read(storage.read_text(place))

    def _read(self, text: str) -> None:
        whole = text[: text.rfind("\n") + 1]  # a line that a kill cut short never happened
        for line in whole.splitlines():
            self._apply(json.loads(line))
        self._lines = whole.splitlines(keepends=True)
        self._is_cut = whole != text

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

    def end(self, number: int, state: str, reason: str, seconds: float) -> None:
        """Note how a trial ended."""
        assert state in _OVER
        self._note(event="end", trial=number, state=state, reason=reason, seconds=seconds)

    def elapsed(self, seconds: float) -> None:
        """Note the seconds that the search has taken so far."""
        self._note(event="elapsed", seconds=round(seconds, 2))

    def _note(self, **event: Any) -> None:
        line = json.dumps(event) + "\n"
        self._lines.append(line)
        if storage.is_remote(self._place) or self._is_cut:  # objects cannot grow
            storage.write_text(self._place, "".join(self._lines))
            self._is_cut = False
        else:
            with Path(self._place).open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        self._apply(event)

    def _apply(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "elapsed":
            self.elapsed_s = event["seconds"]
            return
        number = event["trial"]
        if kind == "start":
            if number == len(self.trials):
                self.trials.append(Trial(number=number, values=dict(event["values"])))
            self.trials[number].attempts += 1
            self.trials[number].epochs = event["epochs"]
            return
        trial = self.trials[number]
        if kind == "epoch":
            trial.history.append(dict(event["metrics"]))
            self.order.append((number, trial.history[-1]))
        elif kind == "model":
            trial.num_parameters = event["num_parameters"]
            trial.latency_ms = event["latency_ms"]
        else:
            trial.state, trial.reason = event["state"], event["reason"]
            trial.seconds += event["seconds"]


def table(trials: Sequence[Trial], names: Sequence[str], metric: str, mode: str) -> pd.DataFrame:
    """The trials as a table, the best first; those without a score last.

    Returns:
        Columns: trial, state, the metric's values at the best epoch, the searched settings,
        epochs, seconds, parameters, latency, reason.
    """
    rows = []
    for trial in trials:
        best: Mapping[str, Any] = {}
        if score(trial, metric, mode) is not None:
            best = best_epoch(trial, metric, mode)
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state,
                **{
                    name: best.get(name)
                    for name in ("validation_accuracy", "validation_macro_f1", "validation_loss")
                },
                **{name: trial.values.get(name) for name in names},
                "epochs": len(trial.history),
                "best_epoch": best.get("epoch"),
                "seconds": round(trial.seconds, 2),
                "overhead_s": trial.overhead_s,
                "train_rows_per_s": best.get("train_rows_per_s"),
                "num_parameters": trial.num_parameters,
                "latency_ms": trial.latency_ms,
                "reason": trial.reason,
            }
        )
    frame: pd.DataFrame = pd.DataFrame(rows)
    if not len(frame):
        return frame
    whole = {name: "Int64" for name in ("best_epoch", "num_parameters")}
    ordered: pd.DataFrame = frame.astype(whole).sort_values(
        [metric, "validation_loss", "trial"],
        ascending=[mode == "min", True, True],
        na_position="last",
        kind="stable",
    )
    ordered.index = pd.RangeIndex(len(ordered))
    return ordered


def importance(
    trials: Sequence[Trial], names: Sequence[str], metric: str, mode: str, seed: int
) -> dict[str, float]:
    """How much of the spread of scores each setting explains; the most important first.

    Returns:
        Setting to a share of 1; empty if there are fewer than four scores or all are equal.

    Source: Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html (fANOVA), with
    each value given to the regression forest by its rank or its number.
    """
    scored = [(t, score(t, metric, mode)) for t in trials]
    known = [(t, s) for t, s in scored if s is not None]
    if len(known) < 4 or len({s for _, s in known}) < 2:
        return {}
    import optuna

    codes = {name: _codes([t.values[name] for t, _ in known]) for name in names}
    varied = [name for name in names if len(set(codes[name])) > 1]
    if not varied:
        return {}
    with quiet_optuna():
        study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        for row, (_, value) in enumerate(known):
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: codes[name][row] for name in varied},
                    distributions={
                        name: optuna.distributions.IntDistribution(0, max(codes[name]))
                        for name in varied
                    },
                    value=value,
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    shares = {name: round(float(found.get(name, 0.0)), 4) for name in names}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's logs and warnings from the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _codes(values: Sequence[Any]) -> list[int]:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    keys = [v if numbers else json.dumps(v, default=str) for v in values]
    place = {key: number for number, key in enumerate(sorted(set(keys)))}
    return [place[key] for key in keys]
