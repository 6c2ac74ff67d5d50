"""Figures and tables of a search: how it went, what mattered, what is worth its size."""

from collections.abc import Mapping, Sequence
from typing import Any

from rnntune.config.metric import Metric
from rnntune.report.content import Column, Figure, Section, Table, counted_axis, finite
from rnntune.report.ensemble_tables import ensemble_section
from rnntune.report.front_figures import front_section
from rnntune.report.run_contents import RunContents
from rnntune.report.setting_figures import setting_section
from rnntune.report.trial_labels import (
    SYMBOLS,
    metric_name,
    metric_title,
    trial_text,
    value_cell,
)
from rnntune.tuning.journal import Trial, best_epoch, best_score

__all__ = ["pareto_front", "search_sections", "standing"]
_MOST_CURVES = 200


def search_sections(run: RunContents) -> list[Section]:
    """What there is to see of a search, finished or running."""
    trials = run.trials or ()
    scores = {trial.number: best_score(trial, run.metric) for trial in trials}
    scored = [(trial, s) for trial in trials if (s := scores[trial.number]) is not None]
    sections = []
    if scored:
        best = min(scored, key=lambda pair: -run.metric.score(pair[1]))[0]
        sections.append(
            Section(
                key="history",
                title="History",
                text=(standing(run),),
                figures=(_history(run, scored), _curves(run, scored, best)),
            )
        )
        if (front := front_section(run)) is not None:
            sections.append(front)
        if (ensemble := ensemble_section(run)) is not None:
            sections.append(ensemble)
        sections.append(setting_section(run, scored))
        if figures := _costs(run, scored):
            sections.append(Section(key="costs", title="Costs", figures=figures))
    return [*sections, _trials(run, trials, scores)]


def standing(run: RunContents) -> str:
    """How many trials there are of each state."""
    counts: dict[str, int] = {}
    for trial in run.trials or ():
        counts[str(trial.state)] = counts.get(str(trial.state), 0) + 1
    parts = ", ".join(f"{number} {state}" for state, number in counts.items())
    return f"{len(run.trials or ())} trials: {parts}." if parts else "No trial has started."


def _history(run: RunContents, scored: Sequence[tuple[Trial, float]]) -> Figure:
    choose = max if run.metric.mode == "max" else min
    best: list[float] = []
    for _, score in scored:
        best.append(choose([score, *best[-1:]]))
    numbers = [trial.number for trial, _ in scored]
    values = [score for _, score in scored]
    return Figure(
        key="search-history",
        title="Score of each trial",
        summary=f"{metric_title(run.metric)} of {len(scored)} trials in the order of their start; "
        f"the best is {best[-1]:.4f}.",
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "name": "trial",
                "x": numbers,
                "y": values,
                "text": [trial_text(trial) for trial, _ in scored],
                "marker": {
                    "size": 9,
                    "symbol": [SYMBOLS.get(str(trial.state), "circle") for trial, _ in scored],
                },
                "hovertemplate": "%{y:.4f}<br>%{text}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": numbers,
                "y": best,
                "line": {"shape": "hv"},
                "hovertemplate": "best so far %{y:.4f}<extra></extra>",
            },
        ],
        layout={
            "xaxis": counted_axis("trial", max(numbers, default=1)),
            "yaxis": {"title": {"text": metric_name(run.metric)}},
        },
        height=360,
    )


def _curves(run: RunContents, scored: Sequence[tuple[Trial, float]], best: Trial) -> Figure:
    shown = scored[-_MOST_CURVES:]
    traces: list[dict[str, Any]] = []
    for trial, _ in shown:
        epochs = [epoch["epoch"] for epoch in trial.history]
        last = SYMBOLS.get(str(trial.state), "circle")
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": epochs,
                "y": [finite(epoch.get(run.metric.name)) for epoch in trial.history],
                "showlegend": False,
                "opacity": 1.0 if trial is best else 0.55,
                "line": {
                    "color": "var(--accent)" if trial is best else "var(--muted)",
                    "width": 3 if trial is best else 1,
                },
                "marker": {"size": [3] * (len(epochs) - 1) + [8], "symbol": last},
                "text": [trial_text(trial)] * len(epochs),
                "hovertemplate": "epoch %{x}: %{y:.4f}<br>%{text}<extra></extra>",
            }
        )
    stopped = sum(str(trial.state) == "stopped" for trial, _ in shown)
    left_out = (
        f" The last {len(shown)} of {len(scored)} are drawn." if len(shown) < len(scored) else ""
    )
    return Figure(
        key="search-curves",
        title="Learning curves",
        summary=f"{metric_title(run.metric)} by epoch of {len(shown)} trials; trial "
        f"{best.number}, the best, is bold; {stopped} were stopped early, where a cross ends the "
        f"line.{left_out}",
        data=[*[t for t in traces if t["opacity"] < 1], *[t for t in traces if t["opacity"] == 1]],
        layout={
            "xaxis": counted_axis("epoch", max(len(trial.history) for trial, _ in shown)),
            "yaxis": {"title": {"text": metric_name(run.metric)}},
            "hovermode": "closest",
        },
        height=360,
    )


def _costs(run: RunContents, scored: Sequence[tuple[Trial, float]]) -> tuple[Figure, ...]:
    figures = []
    for key, name, form in (
        ("latency_ms", "latency of one text, ms", ".2f"),
        ("num_parameters", "parameters", ",.0f"),
    ):
        points = [
            (float(cost), score, trial)
            for trial, score in scored
            if (cost := getattr(trial, key)) is not None
        ]
        if points:
            figures.append(_cost(run, key, name, form, points))
    return tuple(figures)


def _cost(
    run: RunContents, key: str, name: str, form: str, points: list[tuple[float, float, Trial]]
) -> Figure:
    front = pareto_front([(cost, score) for cost, score, _ in points], run.metric)
    chosen = ", ".join(f"trial {points[n][2].number} ({points[n][1]:.4f})" for n in front)
    return Figure(
        key=f"cost-{key.replace('_', '-')}",
        title=f"Score against {name}",
        summary=f"Trials that no other beats in both, the cheapest first: {chosen}.",
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "name": "trial",
                "x": [cost for cost, _, _ in points],
                "y": [score for _, score, _ in points],
                "text": [trial_text(trial) for _, _, trial in points],
                "marker": {"size": 9},
                "hovertemplate": f"%{{y:.4f}}, %{{x:{form}}}<br>%{{text}}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "Pareto front",
                "x": [points[n][0] for n in front],
                "y": [points[n][1] for n in front],
                "line": {"shape": "hv", "dash": "dash"},
                "hoverinfo": "skip",
            },
        ],
        layout={
            "xaxis": {"title": {"text": name}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": metric_name(run.metric)}},
        },
        height=360,
    )


def pareto_front(points: Sequence[tuple[float, float]], metric: Metric) -> list[int]:
    """The points that no other beats in cost (lower) and score, the cheapest first."""
    scores = [metric.score(score) for _, score in points]
    front: list[int] = []
    for n in sorted(range(len(points)), key=lambda n: (points[n][0], -scores[n])):
        if not front or scores[n] > scores[front[-1]]:
            front.append(n)
    return front


def _trials(
    run: RunContents, trials: Sequence[Trial], scores: Mapping[int, float | None]
) -> Section:
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    metric = run.metric
    ordered = sorted(
        trials,
        key=lambda t: (
            scores[t.number] is None,
            -metric.score(scores[t.number] or 0),
            t.number,
        ),
    )
    rows: list[list[Any]] = []
    for trial in ordered:
        best = best_epoch(trial, run.metric) if scores[trial.number] is not None else {}
        rows.append(
            [
                trial.number,
                str(trial.state),
                finite(best.get("validation_accuracy")),
                finite(best.get("validation_macro_f1")),
                finite(best.get("validation_loss")),
                len(trial.history),
                trial.seconds,
                trial.num_parameters,
                trial.latency_ms,
                *(value_cell(trial.values.get(name)) for name in names),
                trial.reason,
            ]
        )
    forms = {"accuracy": ".4f", "macro F1": ".4f", "loss": ".4f", "epochs": "d", "seconds": ".1f"}
    forms |= {"parameters": ",d", "latency ms": ".2f"}
    table = Table(
        key="trials-table",
        caption="Trials, the best first",
        columns=(
            Column(name="trial", form="d"),
            Column(name="state"),
            *(Column(name=name, form=form) for name, form in forms.items()),
            *(Column(name=name, form=".3g") for name in names),
            Column(name="why it ended"),
        ),
        rows=rows,
        filter="Filter trials",
    )
    return Section(key="trials", title="Trials", tables=(table,) if rows else ())
