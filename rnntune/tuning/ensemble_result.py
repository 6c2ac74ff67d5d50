"""The end of a search with `tune.ensemble`: the ensemble, the model that learns from it, scores."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rnntune import storage
from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.console import Terminal
from rnntune.data.loader import scoring_batches
from rnntune.data.prepared import PreparedDataset
from rnntune.data.sharing import share_split
from rnntune.errors import RnntuneError
from rnntune.model.network import num_parameters
from rnntune.training.calibration import calibrate
from rnntune.training.evaluation import evaluate_split
from rnntune.training.ray_trainer import fit_workers
from rnntune.training.recovery import check_checkpoints
from rnntune.training.report_data import keep_report_data
from rnntune.training.result import TrainingOutcome, finish_run, run_result
from rnntune.training.run_folder import RunFolder
from rnntune.training.shared_dataset import SharedDataset
from rnntune.tuning.distillation import SOFT_LABELS, teach
from rnntune.tuning.ensemble import SearchEnsemble, build_ensemble, read_trial_model, score_model
from rnntune.tuning.journal import Trial, best_epoch
from rnntune.tuning.trial_loop import dataset_key

__all__ = ["EnsembleFinish"]
_SCORES = ("accuracy", "micro_f1", "macro_f1", "loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleFinish:
    """What the end of a search with an ensemble needs.

    Args:
        config: of the search.
        folder: of the run.
        feeds: training and validation rows by `dataset_key`.
        prepared: the data, the same for all trials.
        trials: of the search.
        best: the best of them.
        metric: that trials are compared by.
        terminal: where to say what is done.
        first_step_at: when the search began to train, seconds since the epoch of the clock.
    """

    config: Config
    folder: RunFolder
    feeds: Mapping[str, SharedDataset]
    prepared: PreparedDataset
    trials: Sequence[Trial]
    best: Trial
    metric: Metric
    terminal: Terminal
    first_step_at: float | None

    def run(self) -> dict[str, Any]:
        """Choose, keep and score the ensemble; train a model on what it says if that is asked for.

        Returns:
            The result of the run's `model`, and of each the scores: `best_single`, `ensemble`,
            and `distilled` if there is one.

        Raises:
            RnntuneError: a checkpoint is gone, or training failed.
        """
        start = time.perf_counter()
        ensemble = build_ensemble(
            self.config, self.folder.inside("search"), self.feeds, self.trials, self.metric
        )
        names = ", ".join(f"{m.trial.number} ({m.weight})" for m in ensemble.members)
        self.terminal.line(f"ensemble of the trials (weights): {names}")
        name = "ensemble" if self.config.tune.distill else "model"
        ensemble.save(self.folder.inside(name), self.prepared)
        parts = share_split(self.prepared, "test", in_store=False)
        test, predictions = score_model(
            ensemble.network, parts, ensemble.calibration, packed=ensemble.packed
        )
        scores = {
            "best_single": self._single(),
            "ensemble": {**_scores(ensemble.validation, test), **ensemble.facts(self.metric)},
        }
        if self.config.tune.distill:
            result, epoch = self._distill(ensemble)
            scores["distilled"] = _scores(epoch, result)
            return {**result, **scores}
        self.folder.write_metrics(self.best.history)
        with contextlib.suppress(RnntuneError):  # a report may lack it; the run must not fail by it
            keep_report_data(self.folder, self.prepared, predictions)
        last = self.best.history[-1]
        outcome = TrainingOutcome(
            test_accuracy=test["test_accuracy"],
            test_macro_f1=test["test_macro_f1"],
            test_micro_f1=test.get("test_micro_f1"),
            test_rows=test["test_rows"],
            history=self.best.history,
            best_epoch=best_epoch(self.best, self.metric)["epoch"],
            train_s=last["train_s"],
            train_rows_per_s=last["train_rows_per_s"],
            evaluate_s=time.perf_counter() - start,
            calibration=ensemble.calibration,
            predictions=predictions,
            padding_fraction=last.get("padding_fraction"),
            num_parameters=num_parameters(ensemble.network),
            world_size=self.config.tune.workers_per_trial,
            first_step_at=self.first_step_at or time.time(),
        )
        result = run_result(outcome, self.prepared.splits["train"].num_rows)
        names_of_scores = ("validation_accuracy", "validation_micro_f1")
        result |= {n: ensemble.validation[n] for n in names_of_scores if n in ensemble.validation}
        return {**result, "running_train_accuracy": None, **scores}

    def _single(self) -> dict[str, Any]:
        """Scores of the best trial's model."""
        member = read_trial_model(self.config, self.folder.inside("search"), self.feeds, self.best)
        packed, device = member.config.model.packed, torch.device("cpu")
        rows = [p.part() for p in self.feeds[dataset_key(self.best.values)].parts["validation"]]
        validation = evaluate_split(
            member.network, scoring_batches(rows, padding=packed), device, "validation"
        )
        calibration = calibrate(member.network, scoring_batches(rows, padding=packed), device)
        parts = share_split(self.prepared, "test", in_store=False)
        test, _ = score_model(member.network, parts, calibration, packed=packed)
        size = num_parameters(member.network)
        return {"trial": self.best.number, **_scores(validation, test), "num_parameters": size}

    def _distill(self, ensemble: SearchEnsemble) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Train the best configuration on what the ensemble says, as `train` would.

        Returns:
            Its result, and the metrics of the epoch that was kept.
        """
        chosen = self.config.override(self.best.values)
        folder = self.folder.inside("search", SOFT_LABELS)
        self.terminal.line("training one model on what the ensemble says of the training rows")
        feed = self.feeds[dataset_key(self.best.values)]
        taught = teach(ensemble, feed, folder)
        test = share_split(self.prepared, "test", in_store=feed.in_store)
        taught = dataclasses.replace(taught, parts={**taught.parts, "test": test})
        check_checkpoints(self.folder.uri, self.terminal.line)
        outcome = fit_workers(chosen, self.folder, taught, self.terminal)
        result = finish_run(chosen, self.folder, self.prepared, taught, outcome)
        storage.delete(folder)
        return result, outcome.history[outcome.best_epoch - 1]


def _scores(validation: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    """The scores on validation and test rows among other figures."""
    found: dict[str, Any] = {}
    for split, figures in (("validation", validation), ("test", test)):
        names = (f"{split}_{name}" for name in _SCORES)
        found |= {name: figures[name] for name in names if figures.get(name) is not None}
    return found
