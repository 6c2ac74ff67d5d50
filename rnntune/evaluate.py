"""Scores of a trained model on labelled rows, each row once whatever the number of workers.

Ray Data reads the rows, and processes that hold the model give the probabilities.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rnntune import cluster, files, pool, sources, storage
from rnntune.config import DataConfig
from rnntune.progress import Terminal
from rnntune.scores import Evaluation, Tally, table, writer

if TYPE_CHECKING:
    from rnntune.checkpoint import Description
    from rnntune.classifier import TextClassifier

__all__ = ["Evaluation", "evaluate", "table"]


def evaluate(
    model_place: str,
    data: DataConfig,
    *,
    split: Literal["test", "train", "all"] = "test",
    num_workers: int | None = None,
    errors: str | None = None,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> Evaluation:
    """Score a trained model on labelled rows.

    Args:
        model_place: a model folder, or a run folder with one.
        data: where the rows are. Columns that it leaves at their defaults are those that the
            model was trained on; cleaning and vocabulary are the model's.
        split: 'test' means all rows where the source has no test split.
        num_workers: processes that hold the model; None: as many as the data is worth.
        errors: where to write the misclassified rows, a .csv or .jsonl file.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        RnntuneError: no whole model, no such data, or a row that cannot be used, unless
            `data.on_bad_rows` is 'skip'.
    """
    from rnntune.classifier import load

    terminal = terminal or Terminal(silent=True)
    pool.check_workers(num_workers)
    write = writer(errors) if errors else None
    classifier = load(model_place)
    source = _resolve(data, classifier.description)
    chosen = {
        "test": source.test or source.train,
        "train": source.train,
        "all": source.train + source.test,
    }[split]
    tally = Tally(classifier.classes, data.on_bad_rows, keep_errors=write is not None)
    with cluster.connect(verbose=verbose):
        settings = {
            "label_ids": _label_ids(source, classifier.classes),
            "keep_errors": write is not None,
        }
        scored = pool.map_with_model(
            sources.read(source, chosen),
            _score,
            classifier,
            settings,
            batch_size=None,
            files=chosen,
            num_workers=num_workers,
        )
        try:
            for block in pool.blocks(scored, verbose=verbose):
                tally.add(block)
                terminal.update(f"scored {tally.rows:,} rows")
        finally:
            terminal.done()
    found = tally.evaluation(data.source)
    if errors and write:
        storage.write_text(errors, write(tally.errors()))
    return found


def _resolve(data: DataConfig, description: "Description") -> sources.Source:
    """The source of the data, read as the model's training data was."""
    defaults = DataConfig()
    changes: dict[str, Any] = {
        name: getattr(description, name)
        for name in ("text_columns", "label_column")
        if getattr(data, name) == getattr(defaults, name)
    }
    source = sources.resolve(dataclasses.replace(data, **changes))
    if source.format == "ag_news" and files.class_names(source.train[0]) is None:
        return dataclasses.replace(source, class_names=description.classes)
    return source


def _label_ids(source: sources.Source, classes: Sequence[str]) -> dict[str, int]:
    """The id of the model's class for each label, as the data writes labels."""
    ids = {name: number for number, name in enumerate(classes)}
    if source.format != "ag_news":
        return ids
    named = {str(n): name for n, name in enumerate(source.class_names or (), start=1)}
    return {label: ids[name] for label, name in named.items() if name in ids}


def _score(
    classifier: "TextClassifier",
    rows: pa.Table,
    *,
    label_ids: Mapping[str, int],
    keep_errors: bool,
) -> pa.Table:
    """Labelled rows to probabilities; of rows without a problem or error, not the text."""
    labels = rows["label"].combine_chunks()
    places = pc.index_in(labels, pa.array(list(label_ids), pa.string()))
    label = pa.array(list(label_ids.values()), pa.int32()).take(places)
    problem = rows["problem"].combine_chunks()
    unknown = pc.and_(pc.is_null(problem), pc.is_null(label))
    problem = pc.if_else(unknown, _unknown(labels, classifier.classes), problem)
    good = pc.is_null(problem).to_numpy(zero_copy_only=False)
    probabilities = classifier.predict_proba(rows.filter(good)["text"].to_pylist())
    told = ~good  # rows whose origin is wanted
    if keep_errors:
        told[good] = probabilities.argmax(axis=1) != label.filter(good).to_numpy()
    nothing = pa.scalar(None, pa.string())
    return pa.table(
        {
            "file": pc.if_else(told, rows["file"].combine_chunks(), nothing),
            "row": rows["row"],
            "text": pc.if_else(told, rows["text"].combine_chunks(), nothing),
            "problem": problem,
            "label": pc.if_else(good, label, pa.scalar(-1, pa.int32())),
            "probabilities": _lists(probabilities, good),
        }
    )


def _unknown(labels: pa.StringArray, classes: Sequence[str]) -> pa.StringArray:
    more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
    known = f" is none of the model's classes ({', '.join(classes[:8])}{more})"
    names = labels.to_pylist()
    return pa.array([name if name is None else f"label {name!r}{known}" for name in names])


def _lists(values: npt.NDArray[np.float32], here: npt.NDArray[np.bool_]) -> pa.ListArray:
    """Rows of values as lists, an empty one where a row has none."""
    offsets = np.concatenate([[0], np.cumsum(here * values.shape[1])]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values.ravel())
