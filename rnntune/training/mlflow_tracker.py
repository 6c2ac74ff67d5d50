"""MLflow: settings, epochs, scores, the model folder and the report; trials as child runs."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from rnntune.config.load import Config
from rnntune.location import Location
from rnntune.training.run_folder import RunFolder
from rnntune.training.tracked_run import (
    TrackedTrial,
    TrialRecord,
    epoch_metrics,
    local_model,
    local_report,
    read_run_id,
    read_trial,
    scores,
    settings,
    write_run_id,
    write_trial,
)

__all__ = ["MLflowTracker"]
_NAME = "mlflow"
_EXPERIMENT = "rnntune"
_BATCH = 100  # parameters that one request may have


class MLflowTracker:
    """A run of MLflow, on the server or in the store that MLFLOW_TRACKING_URI names.

    Args:
        config: its settings.
        folder: the run folder, whose earlier run of MLflow goes on.

    Source: https://mlflow.org/docs/latest/python_api/mlflow.client.html
    """

    def __init__(self, config: Config, folder: RunFolder) -> None:
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # of tables that it creates
        self._client, self._folder = MlflowClient(), folder
        run_id = read_run_id(folder, _NAME)
        self._experiment = self._experiment_id()
        if run_id is None:
            run_id = self._create(Location.parse(folder.uri).name, {})
            self._log_settings(run_id, settings(config))
            write_run_id(folder, _NAME, run_id)
        self._run_id = run_id

    def _experiment_id(self) -> str:
        import os

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        made = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        return str(made.info.run_id)

    def _log_settings(self, run_id: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in values.items()]
        for start in range(0, len(params), _BATCH):
            self._client.log_batch(run_id, params=params[start : start + _BATCH])

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        kept = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(run_id, metrics=kept)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Keep the figures of an epoch."""
        self._log_metrics(self._run_id, epoch_metrics(metrics), int(metrics["epoch"]))

    def add_trial(self, trial: TrialRecord) -> None:
        """Keep what is new of a trial in a child run, and its end if it has ended."""
        known = read_trial(self._folder, _NAME, trial.name)
        child = known.run_id
        if known.is_over:
            return
        if child is None:
            child = self._create(trial.name, {"mlflow.parentRunId": self._run_id})
            self._log_settings(child, trial.values)
        for metrics in trial.history[known.num_epochs :]:
            self._log_metrics(child, epoch_metrics(metrics), int(metrics["epoch"]))
        if trial.state is not None:
            self._client.set_tag(child, "state", trial.state)
            self._client.set_terminated(child, "FINISHED" if trial.scores else "FAILED")
        tracked = TrackedTrial(
            run_id=child, num_epochs=len(trial.history), is_over=trial.state is not None
        )
        write_trial(self._folder, _NAME, trial.name, tracked)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Keep the scores and the model folder."""
        self._log_metrics(self._run_id, scores(result), int(result.get("best_epoch") or 0))
        with local_model(self._folder) as model:
            self._client.log_artifacts(self._run_id, model, "model")
        self._client.set_terminated(self._run_id)

    def add_report(self) -> None:
        """Keep the report page."""
        with local_report(self._folder) as page:
            self._client.log_artifacts(self._run_id, page)

    def close(self) -> None:
        """Nothing: each figure is sent as it comes."""
