"""Searches without Ray and without training: trials get their scores from a function."""

from collections.abc import Callable, Mapping
from typing import Any

from rnntune.tuning.reports import EpochReport
from rnntune.tuning.search import Search

Objective = Callable[[Mapping[str, Any]], tuple[float, float, int]]
"""From settings to accuracy, latency in ms and number of parameters."""


def drive(search: Search, objective: Objective, epochs: int = 1) -> None:
    """Run the trials that are left, one after the other; each epoch halves what is missing."""
    search.begin()
    while (spec := search.next()) is not None:
        accuracy, latency_ms, num_parameters = objective(spec.values)
        for epoch in range(1, epochs + 1):
            score = accuracy - 0.1 * (0.5**epoch - 0.5**epochs)
            metrics = {
                "epoch": epoch, "validation_accuracy": score, "validation_macro_f1": score,
                "validation_loss": 1 - score, "train_s": 1.0, "validation_s": 0.1,
            }  # fmt: skip
            report = EpochReport(
                metrics=metrics,
                is_complete=epoch == epochs,
                num_parameters=num_parameters,
                latency_ms=latency_ms,
            )
            if search.on_result(spec.number, report):
                break
        search.on_complete(spec.number)
    search.finish()
