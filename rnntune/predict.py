"""Classes for files of texts of any size, streamed through Ray Data.

One Ray row is one block of a file's rows, so that blocks of different columns never meet. Processes
that hold the model write a file a block, named so that the files stand in order.
Local results are written beside their place and moved into it. `_complete.json` is written last:
without it a folder is not complete.
"""

import dataclasses
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from rnntune import cluster, pool, sources, storage
from rnntune.classifier import TextClassifier, load
from rnntune.errors import ConfigError, DataError, RunError
from rnntune.lines import place as place_of
from rnntune.predictions import give_one_schema, write_predictions
from rnntune.progress import Terminal

if TYPE_CHECKING:
    import ray.data

__all__ = ["PredictSummary", "TextClassifier", "load", "predict_files"]

_MARKER = "_complete.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """What `predict_files` left.

    Args:
        output: the output folder.
        rows: rows that were read and written.
        without_text: rows whose text is null; their prediction is null too.
        class_rows: rows that were given each class.
        renamed: input columns whose names were taken, and how they are called in the output.
        files: names of the files in the folder, in the order of the rows.
        seconds: wall time.
        rows_per_s: rows a second of it.
    """

    output: str
    rows: int
    without_text: int
    class_rows: dict[str, int]
    renamed: dict[str, str]
    files: tuple[str, ...]
    seconds: float
    rows_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """The summary as dictionaries, lists and numbers."""
        return {**dataclasses.asdict(self), "files": list(self.files)}


def predict_files(
    model_place: str,
    inputs: Sequence[str],
    output: str,
    *,
    format: Literal["parquet", "jsonl"] = "parquet",
    num_workers: int | None = None,
    text_columns: tuple[str, ...] | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> PredictSummary:
    """Give every row of files a class.

    The output has the columns of the input and `file`, `row` (from 1 in each file),
    `predicted`, `probability` and `probability_<class>` for each class. An input column of one
    of these names is kept as `input_<name>`.

    Args:
        model_place: a model folder, or a run folder with one.
        inputs: files, folders, globs or URIs; CSV with a header or in AG News form, JSON lines
            or Parquet. A label column is not needed.
        output: folder or URI to be made.
        format: form of the output files.
        num_workers: processes that hold the model; None: as many as the data is worth.
        text_columns: columns that are joined by a space; None: those of the model's training
            data, or title and description in AG News form.
        overwrite: replace predictions that are there.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        RnntuneError: no whole model, no such files or columns, a record that cannot be read, or
            something is at the output.
    """
    begin = time.perf_counter()
    terminal = terminal or Terminal(silent=True)
    pool.check_workers(num_workers)
    if format not in ("parquet", "jsonl"):
        raise ConfigError(f"format must be parquet or jsonl, not {format!r}")
    files = _inputs(inputs)
    target = _Target(output, [file["place"] for file in files], overwrite=overwrite)
    classifier = load(model_place)
    for file in files:
        file["text_columns"] = _text_columns(
            file["form"], text_columns, classifier.description.text_columns
        )
    _check_columns(files[0])
    try:
        with cluster.connect(verbose=verbose):
            written = pool.map_with_model(
                _read(files),
                write_predictions,
                classifier,
                {"place": target.aside, "format": format},
                batch_size=1,
                files=[file["place"] for file in files],
                num_workers=num_workers,
            )
            try:
                parts = _collect(written, terminal, verbose=verbose)
            finally:
                terminal.done()
        if format == "parquet":
            give_one_schema(target.aside, parts)
        seconds = time.perf_counter() - begin
        summary = _summary(target.place, parts, classifier.classes, seconds)
        target.finish(summary)
    except BaseException:
        target.abandon()
        raise
    return summary


def _inputs(inputs: Sequence[str]) -> list[dict[str, Any]]:
    found = list(dict.fromkeys(f for place in inputs for f in sources.find_files(place)))
    if not found:
        raise DataError("no input files")
    return [
        {
            "number": number,
            "file": file,
            "place": file if storage.is_remote(file) else storage.locate(file)[1],
            "form": sources.form_of(file, "auto"),
        }
        for number, file in enumerate(found)
    ]


def _text_columns(
    form: str, wanted: tuple[str, ...] | None, of_model: tuple[str, ...]
) -> tuple[str, ...]:
    if wanted:
        return wanted
    return ("title", "description") if form == "ag_news" else of_model


def _check_columns(file: dict[str, Any]) -> None:
    """Refuse a file without the text columns before any process starts."""
    first = next(sources.read_columns(file["place"], file["form"]))
    for name in file["text_columns"]:
        place_of(file["file"], name, first.column_names)


class _Target:
    """The output folder: written aside where it can be moved, and marked when complete."""

    def __init__(self, output: str, inputs: Sequence[str], *, overwrite: bool) -> None:
        self.place = output.rstrip("/") if storage.is_remote(output) else storage.locate(output)[1]
        self._remote = storage.is_remote(output)
        self._check(inputs, overwrite=overwrite)
        self.aside = self.place if self._remote else f"{self.place}.{uuid.uuid4().hex[:8]}.part"
        if self._remote:
            storage.delete(self.place)

    def _check(self, inputs: Sequence[str], *, overwrite: bool) -> None:
        inside = [file for file in inputs if file.startswith(f"{self.place}/")]
        if inside:
            raise RunError(f"{self.place}: the input {inside[0]} is in this folder")
        names = storage.list_folder(self.place)
        ours = all(name == _MARKER or name.startswith("part-") for name in names)
        if names and not ours:
            raise RunError(f"{self.place}: this folder is not empty and holds no predictions")
        if names and not overwrite:
            raise RunError(f"{self.place}: predictions are there already; use --overwrite")

    def finish(self, summary: PredictSummary) -> None:
        text = json.dumps(summary.to_dict(), indent=1, ensure_ascii=False)
        storage.write_text(storage.join(self.aside, _MARKER), text + "\n")
        if self._remote:
            return
        storage.delete(self.place)
        Path(self.aside).rename(self.place)

    def abandon(self) -> None:
        storage.delete(self.aside)


def _read(files: Sequence[dict[str, Any]]) -> "ray.data.Dataset":
    import ray.data

    dataset = ray.data.from_items(list(files), override_num_blocks=len(files))
    dataset.context.execution_options.preserve_order = True
    dataset.context.target_max_block_size = 1  # every Ray row is a block for any free worker
    return dataset.map_batches(_blocks, batch_size=None, batch_format="pyarrow")


def _blocks(files: pa.Table) -> Iterator[pa.Table]:
    """The rows of files, packed a block a row."""
    for file in files.to_pylist():
        first_row = 1
        for table in sources.read_columns(file["place"], file["form"]):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            packed = {**file, "first_row": first_row, "rows": sink.getvalue().to_pybytes()}
            yield pa.Table.from_pylist([packed])
            first_row += table.num_rows


def _collect(
    written: "ray.data.Dataset", terminal: Terminal, *, verbose: bool
) -> list[dict[str, Any]]:
    """Run all, and give what was said of each file, in order."""
    begin = time.perf_counter()
    parts: list[dict[str, Any]] = []
    rows = 0
    for table in pool.blocks(written, verbose=verbose):
        for part in table.to_pylist():
            parts.append(part)
            rows += part["num_rows"]
        rate = rows / (time.perf_counter() - begin)
        terminal.update(f"scored {rows:,} rows, {rate:,.0f} rows/s")
    return sorted(parts, key=lambda part: str(part["name"]))


def _summary(
    place: str, parts: Sequence[dict[str, Any]], classes: Sequence[str], seconds: float
) -> PredictSummary:
    class_rows: Counter[str] = Counter(dict.fromkeys(classes, 0))
    renamed: dict[str, str] = {}
    for part in parts:
        class_rows.update(dict(zip(classes, part["class_rows"], strict=True)))
        renamed.update({pair["old"]: pair["new"] for pair in part["renamed"]})
    rows = sum(part["num_rows"] for part in parts)
    return PredictSummary(
        output=place,
        rows=rows,
        without_text=sum(part["without_text"] for part in parts),
        class_rows=dict(class_rows),
        renamed=renamed,
        files=tuple(part["name"] for part in parts),
        seconds=round(seconds, 2),
        rows_per_s=round(rows / max(seconds, 1e-9), 1),
    )
