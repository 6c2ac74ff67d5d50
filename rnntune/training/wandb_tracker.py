"""Weights & Biases: settings, epochs, scores, model and report; trials as runs of its group."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
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

__all__ = ["WandbTracker"]
_NAME = "wandb"
_PROJECT = "rnntune"


class WandbTracker:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it on this machine.

    Args:
        config: its settings.
        folder: the run folder, whose earlier run goes on.

    Source: https://docs.wandb.ai/ref/python/init
    """

    def __init__(self, config: Config, folder: RunFolder) -> None:
        self._folder, self._config = folder, settings(config)
        self._name = Location.parse(folder.uri).name
        self._run: Any = None
        self._trials: dict[str, Any] = {}

    def _open(self) -> Any:
        if self._run is None:
            known = read_run_id(self._folder, _NAME)
            self._run = self._begin(self._name, self._config, known, "run")
            if known is None:
                write_run_id(self._folder, _NAME, self._run.id)
        return self._run

    def _begin(self, name: str, config: Mapping[str, Any], run_id: str | None, kind: str) -> Any:
        import os

        import wandb

        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            dir=os.environ.get("WANDB_DIR", tempfile.gettempdir()),
            name=name,
            id=run_id,
            resume="allow" if run_id else None,
            group=self._name,
            job_type=kind,
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Keep the figures of an epoch."""
        self._open().log(epoch_metrics(metrics), step=int(metrics["epoch"]))

    def add_trial(self, trial: TrialRecord) -> None:
        """Keep what is new of a trial in a run of the same group, and its end if it has ended."""
        known = read_trial(self._folder, _NAME, trial.name)
        if known.is_over:
            return
        run = self._trials.get(trial.name)
        if run is None:
            run = self._begin(trial.name, trial.values, known.run_id, "trial")
            self._trials[trial.name] = run
        for metrics in trial.history[known.num_epochs :]:
            run.log(epoch_metrics(metrics), step=int(metrics["epoch"]))
        if trial.state is not None:
            run.summary.update({"state": trial.state, **trial.scores})
            self._trials.pop(trial.name).finish()
        tracked = TrackedTrial(
            run_id=run.id, num_epochs=len(trial.history), is_over=trial.state is not None
        )
        write_trial(self._folder, _NAME, trial.name, tracked)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Keep the scores and the model folder."""
        self._open().summary.update(scores(result))
        with local_model(self._folder) as model:
            self._keep(model, "model")

    def add_report(self) -> None:
        """Keep the report page."""
        with local_report(self._folder) as page:
            self._keep(page, "report")

    def _keep(self, path: str, kind: str) -> None:
        """Keep the files of a folder as an artifact; the run reads them until it is closed."""
        import wandb

        artifact = wandb.Artifact(f"{self._name}-{kind}", type=kind)
        for file in sorted(Path(path).iterdir()):
            artifact.add_file(str(file), name=file.name)
        self._open().log_artifact(artifact)
        self.close()

    def close(self) -> None:
        """End the runs for now; later ones of the same ids go on with them."""
        for run in self._trials.values():
            run.finish()
        self._trials.clear()
        if self._run is not None:
            self._run.finish()
            self._run = None
