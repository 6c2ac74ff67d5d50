"""Tables of a search's ensemble: its models, and its scores beside those of single models."""

from collections.abc import Mapping
from typing import Any

from rnntune.report.content import Column, Section, Table, finite
from rnntune.report.run_contents import RunContents
from rnntune.report.tables import COMPARED

__all__ = ["ensemble_section"]
_SCORES = ("accuracy", "micro_f1", "macro_f1", "loss")


def ensemble_section(run: RunContents) -> Section | None:
    """The ensemble of a finished search; None: it has none."""
    result = run.result or {}
    if "ensemble" not in result:
        return None
    members = result["ensemble"]["members"]
    total = sum(member["weight"] for member in members)
    is_model = "distilled" not in result
    where = "model" if is_model else "ensemble; model is the distilled one"
    return Section(
        key="ensemble",
        title="Ensemble",
        text=(
            f"{len(members)} models of the best trials, chosen on the validation rows; the mean "
            f"of their probabilities predicts. Folder: {where}.",
        ),
        tables=(
            _compared(result),
            Table(
                key="members-table",
                caption="Models of the ensemble",
                columns=(
                    Column(name="trial", form="d"),
                    Column(name="share of the mean", form=".2f"),
                    Column(name=run.metric.short_name.replace("_", " "), form=".4f"),
                ),
                rows=[
                    [
                        member["trial"],
                        member["weight"] / total if total else None,
                        finite(member.get(run.metric.name)),
                    ]
                    for member in members
                ],
            ),
        ),
    )


def _compared(result: Mapping[str, Any]) -> Table:
    """The scores of each model that was compared, those that there are."""
    models = {title: result[key] for key, title in COMPARED.items() if key in result}
    names = [
        f"{split}_{score}"
        for split in ("validation", "test")
        for score in _SCORES
        if any(f"{split}_{score}" in scores for scores in models.values())
    ]
    return Table(
        key="ensemble-table",
        caption="Scores of the models",
        columns=(
            Column(name="model"),
            *(Column(name=name.replace("_", " "), form=".4f") for name in names),
            Column(name="parameters", form=",d"),
        ),
        rows=[
            [
                title,
                *(finite(scores.get(name)) for name in names),
                scores.get("num_parameters", result["num_parameters"]),
            ]
            for title, scores in models.items()
        ],
    )
