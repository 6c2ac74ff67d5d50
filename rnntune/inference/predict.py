"""Classes for files of texts of any size, streamed through Ray Data; small ones need no cluster.

One Ray row is one block of a file's rows, so that blocks of different columns never meet. Processes
that hold the model write a file a block, named so that the files stand in order.
Local results are written beside their place and moved into it. `_complete.json` is written last:
without it a folder is not complete.
"""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from rnntune.cluster.session import connect
from rnntune.cluster.shared_storage import check_shared_storage, check_storage
from rnntune.cluster.waiting import await_room
from rnntune.config.schema import DataConfig
from rnntune.console import Terminal
from rnntune.data.formats.records import read_columns
from rnntune.data.formats.schema import RecordFormat
from rnntune.data.local_dataset import LocalDataset
from rnntune.errors import ConfigError
from rnntune.inference.inputs import InputFile, find_inputs
from rnntune.inference.loading import load
from rnntune.inference.model_pool import (
    check_workers,
    iterate_blocks,
    map_with_model,
    scores_locally,
)
from rnntune.inference.prediction_folder import PredictionFolder
from rnntune.inference.prediction_writer import unify_schemas, write_predictions

if TYPE_CHECKING:
    import ray.data

__all__ = ["PredictSummary", "predict_files"]


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
    model_uri: str,
    inputs: Sequence[str],
    output: str,
    *,
    format: Literal["parquet", "jsonl", "csv"] = "parquet",
    escape_formulas: bool = True,
    num_workers: int | None = None,
    text_columns: tuple[str, ...] | None = None,
    data: DataConfig | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    terminal: Terminal | None = None,
) -> PredictSummary:
    """Give every row of files a class.

    The output has the columns of the input and `file`, `row` (from 1 in each file),
    `predicted`, `probability` and `probability_<class>` for each class. An input column of one
    of these names is kept as `input_<name>`.

    Args:
        model_uri: a model folder, or a run folder with one.
        inputs: files, folders, globs or URIs of all forms that `train` reads. Labels are not
            needed.
        output: folder or URI to be made.
        format: form of the output files; each CSV file has a header.
        escape_formulas: write a quote before cells of CSV that a spreadsheet would run.
        num_workers: processes that hold the model; None: as many as the data is worth.
        text_columns: columns that are joined by a space; None: those of the model's training
            data, or what the form of the file fixes.
        data: format, encoding, delimiter and header of the inputs; None: told by the files.
        overwrite: replace predictions that are there.
        verbose: let Ray log.
        terminal: where to show progress; None: nowhere.

    Raises:
        RnntuneError: no whole model, no such files or columns, a record that cannot be read, or
            something is at the output.
    """
    begin = time.perf_counter()
    terminal = terminal or Terminal(silent=True)
    check_workers(num_workers)
    if format not in ("parquet", "jsonl", "csv"):
        raise ConfigError(f"format must be parquet, jsonl or csv, not {format!r}")
    classifier = load(model_uri)
    data = dataclasses.replace(
        data or DataConfig(), text_columns=classifier.description.text_columns
    )
    files = find_inputs(inputs, data, text_columns)
    reads = [*(file.uri for file in files), model_uri]
    target = PredictionFolder(output, reads, overwrite=overwrite)
    try:
        names = [file.uri for file in files]
        local = scores_locally(names, num_workers)
        with contextlib.nullcontext() if local else connect(verbose=verbose):
            (check_storage if local else check_shared_storage)([target.aside])
            target.begin()
            if not local:
                await_room(1, {"CPU": 1.0}, terminal.line)
            written = map_with_model(
                (_read_local if local else _read)(files),
                write_predictions,
                classifier,
                {"uri": target.aside, "format": format, "escape_formulas": escape_formulas},
                batch_size=1,
                files=names,
                num_workers=num_workers,
            )
            try:
                parts = _collect(written, terminal, verbose=verbose)
            finally:
                terminal.done()
        target.verify(parts)
        if format == "parquet":
            unify_schemas(target.aside, parts)
        seconds = time.perf_counter() - begin
        summary = _summary(target.uri, parts, classifier.classes, seconds)
        target.finish(summary.to_dict())
    except BaseException:
        target.abandon()
        raise
    return summary


def _read(files: Sequence[InputFile]) -> "ray.data.Dataset":
    import ray.data

    dataset = ray.data.from_items([file.to_row() for file in files], override_num_blocks=len(files))
    dataset.context.execution_options.preserve_order = True
    dataset.context.target_max_block_size = 1  # every Ray row is a block for any free worker
    read: Any = _blocks
    return dataset.map_batches(
        read,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"forms": {file.number: file.form for file in files}},
    )


def _read_local(files: Sequence[InputFile]) -> LocalDataset:
    rows = pa.Table.from_pylist([file.to_row() for file in files])
    forms = {file.number: file.form for file in files}
    return LocalDataset(lambda: [rows]).map_batches(_blocks, fn_kwargs={"forms": forms})


def _blocks(files: pa.Table, *, forms: Mapping[int, RecordFormat]) -> Iterator[pa.Table]:
    """The rows of files, packed a block a row."""
    for file in files.to_pylist():
        first_row = 1
        for table in read_columns(file["uri"], forms[file["number"]]):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            packed = {**file, "first_row": first_row, "rows": sink.getvalue().to_pybytes()}
            yield pa.Table.from_pylist([packed])
            first_row += table.num_rows


def _collect(
    written: "ray.data.Dataset | LocalDataset", terminal: Terminal, *, verbose: bool
) -> list[dict[str, Any]]:
    """Run all, and give what was said of each file, in order."""
    begin = time.perf_counter()
    parts: list[dict[str, Any]] = []
    rows = 0
    for table in iterate_blocks(written, verbose=verbose):
        for part in table.to_pylist():
            parts.append(part)
            rows += part["num_rows"]
        rate = rows / (time.perf_counter() - begin)
        terminal.update(f"scored {rows:,} rows, {rate:,.0f} rows/s")
    return sorted(parts, key=lambda part: str(part["name"]))


def _summary(
    uri: str, parts: Sequence[dict[str, Any]], classes: Sequence[str], seconds: float
) -> PredictSummary:
    class_rows: Counter[str] = Counter(dict.fromkeys(classes, 0))
    renamed: dict[str, str] = {}
    for part in parts:
        class_rows.update(dict(zip(classes, part["class_rows"], strict=True)))
        renamed.update({pair["old"]: pair["new"] for pair in part["renamed"]})
    rows = sum(part["num_rows"] for part in parts)
    return PredictSummary(
        output=uri,
        rows=rows,
        without_text=sum(part["without_text"] for part in parts),
        class_rows=dict(class_rows),
        renamed=renamed,
        files=tuple(part["name"] for part in parts),
        seconds=round(seconds, 2),
        rows_per_s=round(rows / max(seconds, 1e-9), 1),
    )
