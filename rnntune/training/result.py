"""What a run leaves, whoever trained it."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rnntune import storage
from rnntune.config.load import Config
from rnntune.data.prepared import PreparedDataset
from rnntune.errors import RnntuneError, RunError, StorageError
from rnntune.training.calibration import Calibration
from rnntune.training.evaluation import SplitPredictions
from rnntune.training.recovery import CHECKPOINTS, REFIT, CheckpointStore
from rnntune.training.report_data import keep_report_data
from rnntune.training.run_folder import RunFolder
from rnntune.training.saved_model import read_best_weights, save_model
from rnntune.training.shared_dataset import SharedDataset

__all__ = ["RunResult", "TrainingOutcome", "calibration_scores", "finish_run", "run_result"]
__all__ += ["seconds_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left; `tune` adds to it.

    Args:
        uri: the run folder.
        result: the content of `result.json`.
        report: file or URI of the report page; None: there is none.
    """

    uri: str
    result: dict[str, Any]
    report: str | None = None

    def _repr_html_(self) -> str:
        """The scores as a table and the report page below it, which notebooks show.

        Source: https://ipython.readthedocs.io/en/stable/config/integrating.html
        """
        rows = [("run", self.uri)]
        for name, value in self.result.items():
            if isinstance(value, float):
                rows.append((name, f"{value:.4f}"))
            elif isinstance(value, int) and not isinstance(value, bool):
                rows.append((name, f"{value:,}"))
        cells = (f"<tr><th>{escape(n)}</th><td>{escape(v)}</td></tr>" for n, v in rows)
        return f"<table>{''.join(cells)}</table>{self._page()}"

    def _page(self) -> str:
        """The report page in a frame; its scripts see nothing of the notebook."""
        if self.report is None:
            return ""
        with contextlib.suppress(StorageError):
            page = escape(storage.read_text(self.report))
            return (
                f'<iframe title="Report of {escape(self.uri)}" sandbox="allow-scripts" '
                f'style="width: 100%; height: 40em; border: 0" srcdoc="{page}"></iframe>'
            )
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What the loop gave, whoever ran it.

    Args:
        test_accuracy: share of the test rows that were classified correctly.
        test_macro_f1: mean of the classes' F1 on them.
        test_micro_f1: F1 over all decisions on a class; None: a row has one label.
        test_rows: their number.
        history: metrics of each epoch.
        best_epoch: epoch, from 1, whose weights were kept.
        train_s: seconds of training in this attempt, checkpoints included, without evaluation.
        train_rows_per_s: rows a second while training, over all attempts.
        evaluate_s: seconds of scoring validation and test rows in this attempt.
        padding_fraction: padded cells over all cells; None: not counted.
        num_parameters: of the model.
        world_size: number of ranks.
        first_step_at: when training began, seconds since the epoch of the clock.
        calibration: of the model on the validation rows.
        predictions: of the model on the first test rows.
        refit_rows: training and validation rows of a second training, whose model is kept; 0: there
            was none.
    """

    test_accuracy: float
    test_macro_f1: float
    test_rows: int
    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    train_s: float
    train_rows_per_s: float
    evaluate_s: float
    padding_fraction: float | None
    num_parameters: int
    world_size: int
    first_step_at: float
    calibration: Calibration = dataclasses.field(default_factory=Calibration)
    predictions: SplitPredictions | None = None
    refit_rows: int = 0
    test_micro_f1: float | None = None


def calibration_scores(calibration: Calibration) -> dict[str, Any]:
    """The calibration on the validation rows as `result.json` has it."""
    return {
        "temperature": calibration.temperature,
        "validation_calibration_error": calibration.error,
        "validation_calibration_error_before": calibration.error_before,
    }


def finish_run(
    config: Config,
    folder: RunFolder,
    prepared: PreparedDataset,
    feed: SharedDataset,
    outcome: TrainingOutcome,
) -> dict[str, Any]:
    """Write the model of the best epoch, or of the second training, and give the result.

    Raises:
        RunError: no checkpoint is left.
    """
    kept = folder.inside(CHECKPOINTS, *([REFIT] if outcome.refit_rows else []))
    checkpoint = CheckpointStore(kept).latest()
    if checkpoint is None:
        raise RunError(f"{kept}: no checkpoint is left")
    weights = read_best_weights(checkpoint)
    save_model(config, folder, prepared, feed.vector_dim, weights, outcome.calibration)
    folder.write_metrics(outcome.history)
    with contextlib.suppress(RnntuneError):  # a report may lack it; the run must not fail by it
        keep_report_data(folder, prepared, outcome.predictions)
    return run_result(outcome, prepared.splits["train"].num_rows)


def run_result(outcome: TrainingOutcome, train_rows: int) -> dict[str, Any]:
    """What `result.json` holds of an outcome, for `train` and `tune` alike.

    Args:
        outcome: of the training; validation scores are those of its first one.
        train_rows: training rows of the usual split.
    """
    best_epoch = outcome.history[outcome.best_epoch - 1]
    return {
        "test_accuracy": outcome.test_accuracy,
        **_micro_f1("test", outcome.test_micro_f1),
        "test_macro_f1": outcome.test_macro_f1,
        "test_rows": outcome.test_rows,
        "validation_accuracy": best_epoch.get("validation_accuracy"),
        **_micro_f1("validation", best_epoch.get("validation_micro_f1")),
        **calibration_scores(outcome.calibration),
        "running_train_accuracy": outcome.history[-1]["train_accuracy"],
        "train_rows": outcome.refit_rows or train_rows,
        "refit": outcome.refit_rows > 0,
        "train_rows_per_s": round(outcome.train_rows_per_s, 1),
        "padding_fraction": outcome.padding_fraction,
        "num_parameters": outcome.num_parameters,
        "world_size": outcome.world_size,
        "epochs": len(outcome.history),
        "best_epoch": outcome.best_epoch,
    }


def _micro_f1(split: str, value: float | None) -> dict[str, Any]:
    """The figure where rows have sets of labels; else accuracy is the same."""
    return {} if value is None else {f"{split}_micro_f1": value}


def seconds_of(
    *, prepare_s: float, startup_s: float, train_s: float, evaluate_s: float, total_s: float
) -> dict[str, float]:
    """The `seconds` of `result.json`: parts of a run's wall time that add up to `total`.

    Args:
        prepare_s: preparing the data and putting it where workers reach it.
        startup_s: everything else before the first step, lost attempts of workers included.
        train_s: training, checkpoints included.
        evaluate_s: scoring validation and test rows.
        total_s: the whole run.
    """
    parts = {"prepare": prepare_s, "startup": startup_s, "train": train_s, "evaluate": evaluate_s}
    parts["finish"] = max(0.0, total_s - sum(parts.values()))
    return {name: round(value, 2) for name, value in (*parts.items(), ("total", total_s))}
