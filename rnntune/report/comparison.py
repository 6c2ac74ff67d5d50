"""Several runs side by side: settings that differ, curves, scores and paired tests."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnntune.report.content import (
    Column,
    Fact,
    Figure,
    Section,
    Table,
    counted_axis,
    finite,
    label,
    masked,
)
from rnntune.report.run_contents import RunContents
from rnntune.report.tables import interval

__all__ = ["comparison_sections", "paired_test", "same_rows"]
_ROWS_OF = ("data.source", "data.test_source", "data.test_fraction", "data.seed")
_CURVES = ("validation_accuracy", "validation_micro_f1", "validation_loss", "train_loss")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def comparison_sections(runs: Sequence[RunContents]) -> list[Section]:
    """What there is to see of several runs."""
    names = _names(runs)
    return [
        Section(
            key="runs",
            title="Scores",
            facts=tuple(
                Fact(name=name, value=run.uri, code=True)
                for name, run in zip(names, runs, strict=True)
            ),
            tables=(_scores(names, runs),),
        ),
        _tests(names, runs),
        Section(
            key="curves",
            title="Epochs",
            figures=tuple(
                _curves(names, runs, metric)
                for metric in _CURVES
                if any(metric in epoch for run in runs for epoch in run.history)
            ),
        ),
        _differences(names, runs),
    ]


def _names(runs: Sequence[RunContents]) -> list[str]:
    """Short names of runs that tell them apart."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [f"{number}: {name}" for number, name in enumerate(names, start=1)]


def _scores(names: Sequence[str], runs: Sequence[RunContents]) -> Table:
    rows: list[list[Any]] = []
    for name, run in zip(names, runs, strict=True):
        result = run.result or {}
        accuracy, num_rows = finite(result.get("test_accuracy")), result.get("test_rows")
        low, high = interval(accuracy, num_rows) if accuracy and num_rows else (None, None)
        rows.append(
            [
                name,
                accuracy,
                low,
                high,
                num_rows,
                finite(result.get("test_macro_f1")),
                finite(result.get("validation_accuracy")),
                result.get("num_parameters"),
                result.get("epochs"),
                finite((result.get("seconds") or {}).get("total")),
            ]
        )
    return Table(
        key="scores",
        caption="Scores on the test rows, with the 95% interval of the accuracy",
        columns=(
            Column(name="run"),
            Column(name="test accuracy", form=".4f"),
            Column(name="from", form=".4f"),
            Column(name="to", form=".4f"),
            Column(name="test rows", form=",d"),
            Column(name="macro F1", form=".4f"),
            Column(name="validation accuracy", form=".4f"),
            Column(name="parameters", form=",d"),
            Column(name="epochs", form="d"),
            Column(name="seconds", form=".1f"),
        ),
        rows=rows,
    )


def same_rows(one: RunContents, other: RunContents) -> bool:
    """Whether two runs were scored on the same test rows, as far as they say."""
    if one.data is None or other.data is None:
        return False
    if one.predictions is None or other.predictions is None:
        return False
    if one.data.fingerprint != other.data.fingerprint:
        # Preparation may differ (the size of the vocabulary) where the rows do not.
        described = all(one.settings.get(n) == other.settings.get(n) for n in _ROWS_OF)
        if not described or one.data.classes != other.data.classes:
            return False
    return np.array_equal(one.predictions.row, other.predictions.row) and np.array_equal(
        one.predictions.label, other.predictions.label
    )


def paired_test(one: RunContents, other: RunContents) -> tuple[int, int, float]:
    """McNemar's exact test of two models on the same rows.

    Returns:
        Rows that only the first got right, rows that only the other did, and the two-sided p.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996; exact by the binomial distribution.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    assert one.predictions is not None
    assert other.predictions is not None
    first = one.predictions.right
    second = other.predictions.right
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if not only_first + only_second:
        return 0, 0, 1.0
    found = binomtest(only_first, only_first + only_second, 0.5)
    return only_first, only_second, float(found.pvalue)


def _tests(names: Sequence[str], runs: Sequence[RunContents]) -> Section:
    rows: list[list[Any]] = []
    left_out = []
    for (name, run), (name2, run2) in itertools.combinations(zip(names, runs, strict=True), 2):
        if not same_rows(run, run2):
            left_out.append(f"{name} and {name2}")
            continue
        only_first, only_second, p = paired_test(run, run2)
        rows.append([name, name2, only_first, only_second, p])
    text = [
        "Both models scored the same rows, so only rows that one of them alone got right count "
        "(McNemar's exact test). A small p says that the difference is hardly chance."
    ]
    if len(rows) > 1:
        text.append(
            f"With {len(rows)} tests, compare p with {0.05 / len(rows):.3g} rather than 0.05."
        )
    if left_out:
        text.append(
            "No test, because they did not score the same rows or kept no predictions: "
            f"{'; '.join(left_out)}."
        )
    table = Table(
        key="tests-table",
        caption="Paired tests",
        columns=(
            Column(name="run"),
            Column(name="other run"),
            Column(name="only the run right", form=",d"),
            Column(name="only the other right", form=",d"),
            Column(name="p", form=".3g"),
        ),
        rows=rows,
    )
    return Section(
        key="tests", title="Paired tests", text=tuple(text), tables=(table,) if rows else ()
    )


def _curves(names: Sequence[str], runs: Sequence[RunContents], metric: str) -> Figure:
    title = metric.replace("_", " ")
    traces = []
    rows: list[list[Any]] = []
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        values = [(e["epoch"], finite(e.get(metric))) for e in run.history]
        rows += [[name, epoch, value] for epoch, value in values]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label(name),
                "x": [epoch for epoch, _ in values],
                "y": [value for _, value in values],
                "line": {"dash": _DASHES[number % len(_DASHES)]},
                "hovertemplate": "epoch %{x}: %{y:.4f}",
            }
        )
    return Figure(
        key=f"curves-{metric.replace('_', '-')}",
        title=title.capitalize(),
        summary=f"{title.capitalize()} by epoch of {len(runs)} runs.",
        data=traces,
        layout={
            "xaxis": counted_axis("epoch", max(max(trace["x"], default=1) for trace in traces)),
            "yaxis": {"title": {"text": title}},
        },
        values=Table(
            key=f"curves-{metric.replace('_', '-')}-values",
            caption=title.capitalize(),
            columns=(
                Column(name="run"),
                Column(name="epoch", form="d"),
                Column(name=title, form=".4f"),
            ),
            rows=rows,
        ),
    )


def _differences(names: Sequence[str], runs: Sequence[RunContents]) -> Section:
    settings = list(dict.fromkeys(name for run in runs for name in run.settings))
    kinds = [run.trials is not None for run in runs]
    rows = []
    for setting in settings:
        if setting == "output" or (setting.startswith("tune.") and not any(kinds)):
            continue
        values = [json.dumps(run.settings.get(setting), ensure_ascii=False) for run in runs]
        if len(set(values)) > 1:
            rows.append([setting, *map(masked, values)])
    table = Table(
        key="settings-table",
        caption="Settings that differ",
        columns=(Column(name="setting"), *(Column(name=name) for name in names)),
        rows=rows,
    )
    return Section(
        key="settings",
        title="Settings",
        text=() if rows else ("All settings are the same.",),
        tables=(table,) if rows else (),
    )
