"""What is shown and written while a run goes on: the terminal, `metrics.jsonl`, trackers."""

import contextlib
from collections.abc import Mapping
from typing import Any

from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.errors import StorageError
from rnntune.training.run_folder import RunFolder
from rnntune.training.trackers import RunTrackers
from rnntune.training.worker import EPOCHS, PROGRESS, EpochHistory, Progress

__all__ = ["ProgressFollower"]


class ProgressFollower:
    """Shows what the workers report, and keeps `metrics.jsonl` and the trackers.

    Args:
        config: names the trackers.
        folder: the run folder.
        terminal: where to show progress.
    """

    def __init__(self, config: Config, folder: RunFolder, terminal: Terminal) -> None:
        self._folder, self._terminal = folder, terminal
        self._num_epochs: int | None = None
        self._last_report = 0
        self._trackers = RunTrackers(config, folder, terminal)

    def look(self, values: Mapping[str, Any]) -> None:
        """Show and write what is new, while the run is this process's.

        Raises:
            RunError: another process took the run over.
        """
        self._folder.check_owner()
        self.show(values)

    def show(self, values: Mapping[str, Any]) -> None:
        """Show and write what is new.

        Args:
            values: the latest values of the workers' channel, by key.
        """
        epochs: EpochHistory | None = values.get(EPOCHS)
        if epochs is not None and len(epochs.history) != self._num_epochs:
            first = epochs.num_resumed if self._num_epochs is None else self._num_epochs
            self._terminal.done()
            for metrics in epochs.history[first:]:
                self._terminal.epoch(metrics)
                self._trackers.add(metrics)
            self._num_epochs = len(epochs.history)
            with contextlib.suppress(StorageError):  # what matters fails in the workers
                self._folder.write_metrics(epochs.history)
        progress: Progress | None = values.get(PROGRESS)
        if progress is not None and progress.number != self._last_report:
            self._last_report = progress.number
            self._terminal.training(progress.metrics)

    def close(self) -> None:
        """Take the progress from the terminal and finish what is written."""
        self._terminal.done()
        self._trackers.close()
