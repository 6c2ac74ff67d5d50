"""Whether a model is right as often as it is sure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnntune.data.reliability import (
    NUM_BINS,
    expected_calibration_error,
    reliability_bins,
)
from rnntune.report.content import Column, Figure, Section, Table
from rnntune.report.run_contents import Predictions, RunContents

__all__ = ["calibration_section"]


def calibration_section(run: RunContents, predictions: Predictions) -> Section:
    """Reliability diagram and calibration error, before and after temperature scaling."""
    right = predictions.right
    scaled = not np.allclose(predictions.probability, predictions.calibrated)
    temperature = (run.result or {}).get("temperature")
    # Of sets of labels all probabilities are those with the temperature.
    is_plain = scaled or temperature in (None, 1)
    first = "as trained" if is_plain else "with temperature"
    kinds = {first: predictions.probability.astype(np.float64)}
    if scaled:
        kinds["with temperature"] = predictions.calibrated.astype(np.float64)
    errors = {name: expected_calibration_error(values, right) for name, values in kinds.items()}
    words = ", ".join(f"{error:.4f} {name}" for name, error in errors.items())
    text = f"Expected calibration error on the test rows (15 bins): {words}."
    if "with temperature" in kinds and temperature is not None:
        text += f" The temperature, {temperature:.3g}, was chosen on validation rows."
    return Section(
        key="calibration",
        title="Calibration",
        text=(text, "Rows on the diagonal are right as often as the model is sure of them."),
        figures=(_reliability(kinds, right, words), _confidence(kinds)),
    )


def _reliability(
    kinds: Mapping[str, npt.NDArray[np.float64]], right: npt.NDArray[Any], words: str
) -> Figure:
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "name": "perfect",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"dash": "dot", "width": 1, "color": "var(--muted)"},
        "hoverinfo": "skip",
    }
    data: list[Mapping[str, Any]] = [diagonal]
    rows: list[list[Any]] = []
    for (name, confidence), symbol in zip(kinds.items(), ("circle", "diamond"), strict=False):
        bins = reliability_bins(confidence)
        count = np.bincount(bins, minlength=NUM_BINS)
        some = count > 0
        mean = (np.bincount(bins, confidence, NUM_BINS)[some] / count[some]).round(4).tolist()
        accuracy = (np.bincount(bins, right, NUM_BINS)[some] / count[some]).round(4).tolist()
        sizes = (6 + 14 * np.sqrt(count[some] / count.max())).round(1).tolist()
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": mean,
                "y": accuracy,
                "customdata": count[some].tolist(),
                "marker": {"size": sizes, "symbol": symbol},
                "hovertemplate": "sure %{x:.3f}, right %{y:.3f}<br>%{customdata:,} rows"
                f"<extra>{name}</extra>",
            }
        )
        columns = zip(mean, accuracy, count[some].tolist(), strict=True)
        rows.extend([name, *figures] for figures in columns)
    return Figure(
        key="reliability",
        title="Reliability",
        summary=f"Accuracy by the probability of the predicted class. Calibration error: {words}.",
        data=data,
        layout={
            "xaxis": {"title": {"text": "probability of the predicted class"}, "range": [0, 1.02]},
            "yaxis": {"title": {"text": "accuracy"}, "range": [0, 1.02]},
        },
        values=Table(
            key="reliability-values",
            caption="Accuracy by probability",
            columns=(
                Column(name="model"),
                Column(name="mean probability", form=".4f"),
                Column(name="accuracy", form=".4f"),
                Column(name="rows", form=",d"),
            ),
            rows=rows,
        ),
        height=380,
    )


def _shares(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the rows in each bin."""
    shares: npt.NDArray[np.float64] = np.bincount(
        reliability_bins(confidence), minlength=NUM_BINS
    ) / len(confidence)
    return shares


def _confidence(kinds: Mapping[str, npt.NDArray[np.float64]]) -> Figure:
    edges = [f"{n / NUM_BINS:.2f} to {(n + 1) / NUM_BINS:.2f}" for n in range(NUM_BINS)]
    shares = {name: _shares(values).round(5).tolist() for name, values in kinds.items()}
    surest = ", ".join(f"{values[-1]:.0%} {name}" for name, values in shares.items())
    centers = [(n + 0.5) / NUM_BINS for n in range(NUM_BINS)]
    return Figure(
        key="confidence",
        title="How sure the model is",
        summary=f"Share of the rows by the probability of the predicted class; above "
        f"{(NUM_BINS - 1) / NUM_BINS:.2f}: {surest}.",
        data=[
            {
                "type": "bar",
                "name": name,
                "x": centers,
                "y": values,
                "customdata": edges,
                "hovertemplate": f"%{{customdata}}: %{{y:.1%}}<extra>{name}</extra>",
            }
            for name, values in shares.items()
        ],
        layout={
            "xaxis": {"title": {"text": "probability of the predicted class"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "share of the rows"}, "tickformat": ".0%"},
            "bargap": 0.1,
        },
        values=Table(
            key="confidence-values",
            caption="Share of the rows by probability",
            columns=(Column(name="probability"), *(Column(name=n, form=".2%") for n in shares)),
            rows=[[edge, *(v[n] for v in shares.values())] for n, edge in enumerate(edges)],
        ),
        height=380,
    )
