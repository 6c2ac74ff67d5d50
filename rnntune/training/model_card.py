"""The model card: `README.md` of a model folder, for whoever gets the model without its run.

Source: Mitchell et al. 2019, https://arxiv.org/abs/1810.03993
"""

import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from rnntune import __version__
from rnntune.config.load import Config, flatten
from rnntune.data.prepared import PreparedDataset
from rnntune.training.run_folder import RunFolder

__all__ = ["model_card", "write_model_card"]
_PACKAGES = ("torch", "numpy", "pyarrow")
_MAX_CLASSES = 100


def write_model_card(
    folder: RunFolder, config: Config, prepared: PreparedDataset, result: Mapping[str, Any]
) -> None:
    """Write the card of a run's model, and of the ensemble beside it if there is one."""
    from rnntune import storage

    text = model_card(config, prepared, result)
    storage.write_text(folder.inside("model", "README.md"), text)
    if "distilled" in result:
        scores = {**result["ensemble"], "test_rows": result["test_rows"]}
        text = model_card(config, prepared, {**scores, "ensemble": result["ensemble"]})
        storage.write_text(folder.inside("ensemble", "README.md"), text)


def model_card(config: Config, prepared: PreparedDataset, result: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        config: of the model.
        prepared: its data.
        result: of its run.
    """
    return "\n".join(_lines(config, prepared, result)) + "\n"


def _lines(config: Config, prepared: PreparedDataset, result: Mapping[str, Any]) -> Iterator[str]:
    num_classes = len(prepared.classes)
    yield "# Model card"
    yield ""
    kind = "sets of " if prepared.task.is_multi_label else ""
    yield f"A recurrent classifier of texts into {kind}{num_classes} classes, trained with"
    yield f"rnntune {__version__}. Licence: not stated; the user of the data decides."
    yield from ("", "## Scores", "", "| metric | value | 95% interval |", "|---|---|---|")
    low, high = _interval(result["test_accuracy"], result["test_rows"])
    rows = f"{result['test_rows']:,} test rows"
    accuracy_name = "all labels right" if prepared.task.is_multi_label else "accuracy"
    if "test_micro_f1" in result:
        yield f"| micro F1, {rows} | {result['test_micro_f1']:.4f} | |"
    yield f"| {accuracy_name}, {rows} | {result['test_accuracy']:.4f} | {low:.4f} to {high:.4f} |"
    yield f"| macro F1, {rows} | {result['test_macro_f1']:.4f} | |"
    if result.get("validation_accuracy") is not None:
        accuracy = result["validation_accuracy"]
        low, high = _interval(accuracy, prepared.splits["validation"].num_rows)
        if "validation_micro_f1" in result:
            yield f"| micro F1, validation rows | {result['validation_micro_f1']:.4f} | |"
        yield f"| {accuracy_name}, validation rows | {accuracy:.4f} | {low:.4f} to {high:.4f} |"
    if result.get("validation_calibration_error") is not None:
        error, before = (result[f"validation_calibration_error{name}"] for name in ("", "_before"))
        temperature = result["temperature"]
        yield f"| calibration error, validation rows | {error:.4f} | |"
        yield f"| the same before scaling by the temperature {temperature} | {before:.4f} | |"
    if (members := _members(result)) is not None:
        yield from ("", members)
    if "distilled" in result:
        yield from ("", "It learned from an ensemble of its search as well as from the labels.")
    chosen = "thresholds of the classes" if prepared.task.is_multi_label else "temperature"
    yield from ("", f"The best epoch and the {chosen} were chosen on the validation rows.")
    if result.get("refit"):
        yield "Validation scores are of that model; this one was then trained in the same way on"
        yield f"{result['train_rows']:,} training plus validation rows."
    if len(result.get("schedule", ())) > 1:
        yield "Its settings changed in training (population based training); those below are the"
        yield "last ones, and `schedule.yaml` of its run has them by epoch."
    yield from ("", "## Data", "")
    source = re.sub(r"//[^/@]+@", "//", config.data.source)  # without a user and password
    yield f"Source: {_cell(source)}; {prepared.num_words:,} words in the vocabulary."
    yield from ("", "| class | training | validation | test |", "|---|---|---|---|")
    splits = [prepared.splits[name].class_rows for name in ("train", "validation", "test")]
    for number, name in enumerate(prepared.classes[:_MAX_CLASSES]):
        counts = " | ".join(f"{rows[number]:,}" for rows in splits)
        yield f"| {_cell(name)} | {counts} |"
    if num_classes > _MAX_CLASSES:
        yield f"| and {num_classes - _MAX_CLASSES} more | | | |"
    yield from ("", "## Limits", "")
    yield f"- The first {config.data.max_length:,} tokens of a text are read."
    yield "- Words that are not in the vocabulary are one and the same unknown word."
    if not prepared.task.is_multi_label:
        yield "- A text of none of the classes gets one of them all the same."
    yield "- The scores hold for texts like those of the data, of the same source and time."
    for warning in result.get("warnings", ()):
        yield f"- {_cell(str(warning))}"
    yield from ("", "## Settings", "", "```yaml")
    for name, value in flatten(config.to_dict()).items():
        if name.startswith(("model.", "train.", "batching.")):
            yield f"{name}: {value}"
    yield from ("```", "", "## Versions", "")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    yield f"rnntune {__version__}, Python {platform.python_version()}, {versions}."


def _members(result: Mapping[str, Any]) -> str | None:
    """What an ensemble is made of, where the model is one."""
    if "ensemble" not in result or "distilled" in result:
        return None
    members = result["ensemble"]["members"]
    parts = ", ".join(f"{member['trial']} ({member['weight']})" for member in members)
    return (
        f"An ensemble: the weighted mean of {len(members)} networks, of trials {parts}; settings "
        "below are those of the best trial."
    )


def _cell(text: str) -> str:
    """Text that neither ends a cell of a table nor starts markup."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "|`<>[]*_\\" else letter for letter in flat)


def _interval(share: float, rows: int) -> tuple[float, float]:
    """Wilson's interval of 95% for a share of rows."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    if not rows:
        return 0.0, 1.0
    found = binomtest(round(share * rows), rows).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
