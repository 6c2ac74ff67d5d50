"""Scores of a trained model on labelled rows, each row once whatever the number of workers.

Ray Data reads the rows, and processes that hold the model give the probabilities; little data
is read and scored in this process.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rnntune import storage
from rnntune.cluster.session import connect
from rnntune.cluster.waiting import await_room
from rnntune.config.schema import DataConfig
from rnntune.console import Terminal
from rnntune.data.local_dataset import read_local
from rnntune.data.recognition import read_class_names
from rnntune.data.sources import Source, read_dataset, resolve_source
from rnntune.data.task import decide, label_column, rows_equal
from rnntune.errors import DataError
from rnntune.inference.label_set_metrics import LabelSetAccumulator, LabelSetEvaluation
from rnntune.inference.metrics import Evaluation, MetricAccumulator, errors_writer
from rnntune.inference.model_pool import (
    check_workers,
    iterate_blocks,
    map_with_model,
    scores_locally,
)
from rnntune.inference.scored_rows import MOST_ERRORS

if TYPE_CHECKING:
    from rnntune.inference.exported import ExportMetadata
    from rnntune.inference.loading import AnyClassifier
    from rnntune.training.model_metadata import ModelMetadata

__all__ = ["evaluate"]


def evaluate(
    model_uri: str,
    data: DataConfig | None,
    *,
    split: Literal["test", "train", "all"] = "test",
    num_workers: int | None = None,
    errors: str | None = None,
    escape_formulas: bool = True,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> Evaluation | LabelSetEvaluation:
    """Score a trained model on labelled rows.

    Args:
        model_uri: a model folder, or a run folder with one.
        data: where the rows are; None: the test split of the run in `model_uri`. Columns that it
            leaves at their defaults are those that the model was trained on; cleaning and
            vocabulary are the model's.
        split: 'test' means all rows where the source has no test split.
        num_workers: processes that hold the model; None: as many as the data is worth.
        errors: where to write the misclassified rows, a .csv or .jsonl file; of rows of several
            labels those with one label too many or too few.
        escape_formulas: write a quote before cells of CSV that a spreadsheet would run.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        RnntuneError: no whole model, no such data, or a row that cannot be used, unless
            `data.on_bad_rows` is 'skip'.
    """
    from rnntune.inference.loading import load

    terminal = terminal or Terminal(silent=True)
    check_workers(num_workers)
    write = errors_writer(errors, escape_formulas=escape_formulas) if errors else None
    if data is None:  # what reads prepared data needs PyTorch, an export does not
        from rnntune.inference.own_split import own_data, score_own_split

        own_data(model_uri)  # a model alone is a mistake to report before it is loaded
    classifier = load(model_uri)
    if data is None:
        tally = _tally(classifier, "error", keep_errors=write is not None)
        scored_source = score_own_split(
            model_uri, classifier, tally, verbose=verbose, terminal=terminal
        )
        found = tally.evaluation(scored_source)
        if errors and write:
            _write_errors(errors, write, tally, terminal)
        return found
    source = _resolve(data, classifier.description)
    for note in source.notes:
        terminal.line(note)
    chosen = {
        "test": source.test or source.train,
        "train": source.train,
        "all": source.files,
    }[split]
    tally = _tally(classifier, data.on_bad_rows, keep_errors=write is not None)
    local = scores_locally(chosen, num_workers)
    with contextlib.nullcontext() if local else connect(verbose=verbose):
        if not local:
            await_room(1, {"CPU": 1.0}, terminal.line)
        settings = {
            "label_ids": _label_ids(source, classifier.classes),
            "keep_errors": write is not None,
        }
        scored = map_with_model(
            (read_local if local else read_dataset)(source, chosen),
            _score,
            classifier,
            settings,
            batch_size=None,
            files=chosen,
            num_workers=num_workers,
        )
        try:
            for block in iterate_blocks(scored, verbose=verbose):
                tally.add(block)
                terminal.update(f"scored {tally.rows:,} rows")
        finally:
            terminal.done()
    found = tally.evaluation(data.source)
    if errors and write:
        _write_errors(errors, write, tally, terminal)
    return found


def _write_errors(
    uri: str,
    write: Callable[[Iterable[dict[str, Any]]], str],
    tally: MetricAccumulator | LabelSetAccumulator,
    terminal: Terminal,
) -> None:
    storage.write_text(uri, write(tally.errors()))
    if tally.num_errors > MOST_ERRORS:
        terminal.line(f"{uri}: the surest {MOST_ERRORS:,} of {tally.num_errors:,} wrong rows")


def _tally(
    classifier: "AnyClassifier", on_bad_rows: str, *, keep_errors: bool
) -> MetricAccumulator | LabelSetAccumulator:
    thresholds = classifier.thresholds
    if thresholds is None:
        return MetricAccumulator(classifier.classes, on_bad_rows, keep_errors=keep_errors)
    return LabelSetAccumulator(classifier.classes, thresholds, on_bad_rows, keep_errors=keep_errors)


def _resolve(data: DataConfig, description: "ModelMetadata | ExportMetadata") -> Source:
    """The source of the data, read as the model's training data was."""
    defaults = DataConfig()
    changes: dict[str, Any] = {
        name: getattr(description, name)
        for name in ("text_columns", "label_column", "label_delimiter")
        if getattr(data, name) == getattr(defaults, name)
    }
    has_sets = description.task.is_multi_label
    if has_sets and data.multi_label is False:
        raise DataError(f"{data.source}: data.multi_label is false, but the model gives sets")
    if data.label_delimiter is not None and not isinstance(description.label_column, str):
        changes.pop("label_column", None)  # one column to split, not the model's several
    if has_sets and data.multi_label == "auto":
        changes["multi_label"] = True  # each row with one label is a mistake of none
    if len(data.label_columns) > 1:  # nothing to split
        changes.pop("label_delimiter", None)
    if changes.get("label_delimiter") is not None:
        as_is = {**changes, "label_delimiter": None, "multi_label": "auto"}
        if resolve_source(dataclasses.replace(data, **as_is)).multi_label:  # lists need none
            changes.pop("label_delimiter")
    source = resolve_source(dataclasses.replace(data, **changes))
    if source.multi_label != has_sets:
        rows, model = ("several labels", "one") if source.multi_label else ("one label", "several")
        raise DataError(f"{data.source}: rows of {rows}, but the model gives {model} a row")
    if source.format == "ag_news" and read_class_names(source.train[0]) is None:
        return dataclasses.replace(source, class_names=description.classes)
    return source


def _label_ids(source: Source, classes: Sequence[str]) -> dict[str, int]:
    """The id of the model's class for each label, as the data writes labels."""
    ids = {name: number for number, name in enumerate(classes)}
    if source.format != "ag_news":
        return ids
    named = {str(n): name for n, name in enumerate(source.class_names or (), start=1)}
    return {label: ids[name] for label, name in named.items() if name in ids}


def _score(
    classifier: "AnyClassifier",
    rows: pa.Table,
    *,
    label_ids: Mapping[str, int],
    keep_errors: bool,
) -> pa.Table:
    """Labelled rows to probabilities; of rows without a problem or error, not the text."""
    label, unknown_label = _numbers(rows["label"].combine_chunks(), label_ids)
    problem = rows["problem"].combine_chunks()
    unknown = pc.and_(pc.is_null(problem), pc.is_valid(unknown_label))
    problem = pc.if_else(unknown, _unknown(unknown_label, classifier.classes), problem)
    good = pc.is_null(problem).to_numpy(zero_copy_only=False)
    probabilities = classifier.predict_proba(rows.filter(good)["text"].to_pylist())
    told = ~good  # rows whose origin is wanted
    if keep_errors:
        told[good] = ~_right(classifier, probabilities, label.filter(good))
    nothing = pa.scalar(None, pa.string())
    return pa.table(
        {
            "file": pc.if_else(told, rows["file"].combine_chunks(), nothing),
            "row": rows["row"],
            "text": pc.if_else(told, rows["text"].combine_chunks(), nothing),
            "problem": problem,
            "label": label,
            "probabilities": _lists(probabilities, good),
        }
    )


def _numbers(labels: pa.Array, label_ids: Mapping[str, int]) -> tuple[pa.Array, pa.Array]:
    """Classes of labels, int32, or lists of them, and of each row the first label that is none."""
    names = pa.array(list(label_ids), pa.string())
    numbers = pa.array(list(label_ids.values()), pa.int32())
    flat = labels.flatten() if pa.types.is_list(labels.type) else labels
    found = numbers.take(pc.index_in(flat, names))
    unknown = pc.if_else(pc.is_null(found), flat, pa.scalar(None, pa.string()))
    if not pa.types.is_list(labels.type):
        return pc.fill_null(found, -1), unknown
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(labels.value_lengths(), 0).to_numpy())])
    firsts: list[str | None] = [None] * len(labels)
    where = np.flatnonzero(pc.is_valid(unknown).to_numpy(zero_copy_only=False))
    rows = np.searchsorted(offsets, where, side="right") - 1
    for row, number in zip(rows[::-1].tolist(), where[::-1].tolist(), strict=True):
        firsts[row] = unknown[number].as_py()
    lists = pa.ListArray.from_arrays(offsets.astype(np.int32), pc.fill_null(found, -1))
    return lists, pa.array(firsts, pa.string())


def _right(
    classifier: "AnyClassifier", probabilities: npt.NDArray[np.float32], label: pa.Array
) -> npt.NDArray[np.bool_]:
    given = decide(probabilities, classifier.thresholds)
    if given.ndim == 1:
        return rows_equal(given, label.to_numpy())
    lists = label_column(given)
    pairs = zip(lists.to_pylist(), label.to_pylist(), strict=True)
    return np.array([set(one) == set(other) for one, other in pairs], dtype=np.bool_)


def _unknown(labels: pa.StringArray, classes: Sequence[str]) -> pa.StringArray:
    more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
    known = f" is none of the model's classes ({', '.join(classes[:8])}{more})"
    names = labels.to_pylist()
    return pa.array([name if name is None else f"label {name!r}{known}" for name in names])


def _lists(values: npt.NDArray[np.float32], here: npt.NDArray[np.bool_]) -> pa.ListArray:
    """Rows of values as lists, an empty one where a row has none."""
    offsets = np.concatenate([[0], np.cumsum(here * values.shape[1])]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values.ravel())
