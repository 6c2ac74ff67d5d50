"""What a search leaves: the table of trials, the best model."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from rnntune.config.load import Config
from rnntune.training.result import RunResult
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Trial, best_epoch, best_score

if TYPE_CHECKING:
    from rnntune.inference.classifier import TextClassifier

__all__ = ["TuneResult", "journal_table", "trials_table"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneResult(RunResult):
    """What a search left.

    Args:
        trials: every trial, the best first; the content of `trials.csv`.
        best: the best configuration, ready for `train`.
    """

    trials: pd.DataFrame
    best: Config

    @property
    def model(self) -> "TextClassifier":
        """The best model, loaded."""
        from rnntune.inference.classifier import load

        return load(self.uri)


def journal_table(config: Config, trials: list[Trial]) -> pd.DataFrame:
    """The trials of a search as `trials_table` gives them, by the configured aims."""
    return trials_table(trials, list(config.tune.space), Aims.of(config.tune))


def trials_table(trials: Sequence[Trial], names: Sequence[str], aims: Aims) -> pd.DataFrame:
    """The trials as a table, the best by the first aim first; those without a score last.

    Returns:
        Columns: trial, with several aims its number on the Pareto front (and whether it is the
        knee), state, the metric's values at the best epoch (with folds its standard
        error, too), the searched settings, epochs, seconds, parameters, latency, reason. With a
        population the settings are the last ones, and `copied` says what a member descends from:
        "3 after 2, 1 after 4" goes on from trial 1 after epoch 4, which copied trial 3 after 2.
    """
    rows = []
    metric = aims.first
    front = aims.front(trials) if aims.are_several else []
    numbers = {trial.number: number for number, trial in enumerate(front, 1)}
    knee = aims.knee(front)
    is_population = any(trial.has_changed for trial in trials)
    for trial in trials:
        best: Mapping[str, Any] = {}
        if best_score(trial, metric) is not None:
            best = best_epoch(trial, metric)
        rows.append(
            {
                "trial": trial.number,
                **({"front": numbers.get(trial.number)} if aims.are_several else {}),
                **({"is_knee": trial is knee} if aims.are_several else {}),
                "state": trial.state.value,
                **{
                    name: best.get(name)
                    for name in ("validation_accuracy", "validation_macro_f1", "validation_loss")
                },
                **{name: best[name] for name in ("validation_micro_f1",) if name in best},
                **({"standard_error": best["standard_error"]} if "standard_error" in best else {}),
                **{name: trial.values.get(name) for name in names},
                **({"copied": _copied(trial)} if is_population else {}),
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
    whole = {name: "Int64" for name in ("front", "best_epoch", "num_parameters") if name in frame}
    # A trial of the front stands before others of the same score.
    by = [metric.name, *(["front"] if aims.are_several else []), "validation_loss", "trial"]
    ordered: pd.DataFrame = frame.astype(whole).sort_values(
        by,
        ascending=[metric.mode == "min", *[True] * (len(by) - 1)],
        na_position="last",
        kind="stable",
    )
    ordered.index = pd.RangeIndex(len(ordered))
    return ordered


def _copied(trial: Trial) -> str:
    """Which trials the model of a population's member descends from, and after which epochs."""
    pairs = itertools.pairwise(trial.stages)
    return ", ".join(f"{source.trial} after {stage.from_epoch - 1}" for source, stage in pairs)
