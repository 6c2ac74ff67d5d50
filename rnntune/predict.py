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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import cluster, pool, sources, storage
from rnntune.classifier import TextClassifier, load
from rnntune.errors import ConfigError, DataError, RunError
from rnntune.lines import place as place_of
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
                _predict,
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
            _give_one_schema(target.aside, parts)
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


def _predict(classifier: TextClassifier, blocks: pa.Table, *, place: str, format: str) -> pa.Table:
    """Blocks of rows to files of the same rows with their classes."""
    parts = [_write(classifier, block, place, format) for block in blocks.to_pylist()]
    return pa.Table.from_pylist(parts, _PART)


def _write(
    classifier: TextClassifier, block: dict[str, Any], place: str, format: str
) -> dict[str, Any]:
    with pa.ipc.open_stream(block["rows"]) as stream:
        rows = stream.read_all().replace_schema_metadata(None)
    texts = _texts(block, rows)
    known = pc.is_valid(texts)
    probabilities = classifier.predict_proba(_strings(block, texts.filter(known)))
    names = _output_names(rows.column_names, classifier.classes)
    first_row = block["first_row"]
    columns = {
        "file": pa.array([block["file"]] * rows.num_rows, pa.string()),
        "row": pa.array(range(first_row, first_row + rows.num_rows), pa.int64()),
        **dict(zip(names, rows.columns, strict=True)),
    }
    # Rows without a text take null, the others their prediction.
    spread = pc.if_else(known, pc.subtract(pc.cumulative_sum(known.cast(pa.int64())), 1), None)
    for name, values in _predictions(probabilities, classifier.classes).items():
        columns[name] = values.take(spread)
    name = f"part-{block['number']:05}-{first_row:012}.{format}"
    data, schema = _serialized(block, pa.table(columns), format)
    storage.write_bytes(storage.join(place, name), data)
    renamed = zip(rows.column_names, names, strict=True)
    return {
        "name": name,
        "file": block["file"],
        "num_rows": rows.num_rows,
        "without_text": rows.num_rows - len(probabilities),
        "class_rows": np.bincount(
            probabilities.argmax(axis=1), minlength=len(classifier.classes)
        ).tolist(),
        "renamed": [{"old": old, "new": new} for old, new in renamed if old != new],
        "schema": schema,
    }


def _texts(block: dict[str, Any], rows: pa.Table) -> pa.Array:
    """The texts of rows, null where one of the columns is."""
    columns = []
    for name in block["text_columns"]:
        place_of(block["file"], name, rows.column_names)
        column = rows[name].combine_chunks()
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.null()):
            raise DataError(f"{block['file']}: column {name} holds {kind}, not strings")
        columns.append(column.cast(pa.string()))
    return pc.binary_join_element_wise(*columns, " ")


def _strings(block: dict[str, Any], texts: pa.Array) -> list[str]:
    try:
        found: list[str] = texts.to_pylist()
    except UnicodeDecodeError as error:
        rows = f"rows from {block['first_row']}"
        raise DataError(f"{block['file']}: {rows}: bytes that are not UTF-8") from error
    return found


def _output_names(columns: Sequence[str], classes: Sequence[str]) -> list[str]:
    """What the input's columns are called beside ours."""
    taken = {"file", "row", *_added_names(classes)}
    names = []
    for column in columns:
        name = column
        while name in taken or (name != column and name in columns):
            name = f"input_{name}"
        taken.add(name)
        names.append(name)
    return names


def _added_names(classes: Sequence[str]) -> list[str]:
    return ["predicted", "probability", *[f"probability_{name}" for name in classes]]


def _predictions(probabilities: Any, classes: Sequence[str]) -> dict[str, pa.Array]:
    given = pa.array(probabilities.argmax(axis=1), pa.int64())
    best = pa.array(probabilities.max(axis=1), pa.float32())
    each = [pa.array(np.ascontiguousarray(column)) for column in probabilities.T]
    predicted = pa.array(classes, pa.string()).take(given)
    return dict(zip(_added_names(classes), [predicted, best, *each], strict=True))


def _serialized(block: dict[str, Any], rows: pa.Table, format: str) -> tuple[bytes, bytes]:
    """The bytes of an output file, and of its schema."""
    try:
        if format == "jsonl":
            return _jsonl(rows), b""
        return _parquet(rows), rows.schema.serialize().to_pybytes()
    except (pa.ArrowException, UnicodeError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise DataError(f"{block['file']}: cannot be written as {format}: {reason}") from error


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _jsonl(rows: pa.Table) -> bytes:
    """JSON has no NaN and no infinity: null; and no dates and bytes: as Python shows them."""
    for number, field in enumerate(rows.schema):
        if pa.types.is_floating(field.type):
            column = rows.column(number)
            nothing = pa.scalar(None, field.type)
            finite = pc.if_else(pc.is_finite(column), column, nothing)
            rows = rows.set_column(number, field, finite)
    lines = [json.dumps(row, ensure_ascii=False, default=str) for row in rows.to_pylist()]
    return "".join(f"{line}\n" for line in lines).encode()


def _give_one_schema(place: str, parts: Sequence[dict[str, Any]]) -> None:
    """Write files again whose columns differ from the others', so that all read as one table."""
    found = {part["schema"]: part["file"] for part in parts}
    if len(found) == 1:
        return
    schemas = [pa.ipc.read_schema(pa.py_buffer(schema)) for schema in found]
    try:
        common = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise DataError(
            f"{' and '.join(dict.fromkeys(found.values()))}: columns do not fit together "
            f"({reason}); write jsonl instead"
        ) from error
    for part in parts:
        if pa.ipc.read_schema(pa.py_buffer(part["schema"])) != common:
            file = storage.join(place, part["name"])
            rows = pq.read_table(pa.BufferReader(storage.read_bytes(file)), use_threads=False)
            storage.write_bytes(file, _parquet(_with_schema(rows, common)))


def _with_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


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


_PART = pa.schema(
    [
        ("name", pa.string()),
        ("file", pa.string()),
        ("num_rows", pa.int64()),
        ("without_text", pa.int64()),
        ("class_rows", pa.list_(pa.int64())),
        ("renamed", pa.list_(pa.struct([("old", pa.string()), ("new", pa.string())]))),
        ("schema", pa.binary()),
    ]
)
