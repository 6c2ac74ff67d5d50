"""What prediction writes: rows with their columns, their class and its probabilities."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.data.formats.lines import column_index as column_index
from rnntune.data.task import decide, label_column, rows_of_classes
from rnntune.errors import DataError
from rnntune.inference.csv_text import csv_text
from rnntune.inference.texts import free_delimiter

if TYPE_CHECKING:
    from rnntune.inference.loading import AnyClassifier

__all__ = ["unify_schemas", "write_predictions"]
_PART = pa.schema(
    [
        ("name", pa.string()),
        ("file", pa.string()),
        ("num_rows", pa.int64()),
        ("num_bytes", pa.int64()),
        ("without_text", pa.int64()),
        ("class_rows", pa.list_(pa.int64())),
        ("renamed", pa.list_(pa.struct([("old", pa.string()), ("new", pa.string())]))),
        ("schema", pa.binary()),
    ]
)


def write_predictions(
    classifier: "AnyClassifier",
    blocks: pa.Table,
    *,
    uri: str,
    format: str,
    escape_formulas: bool = True,
) -> pa.Table:
    """Blocks of rows to files of the same rows with their classes.

    Args:
        classifier: the model.
        blocks: one row a block, as `predict_files` packs them.
        uri: folder to write to.
        format: 'parquet', 'jsonl' or 'csv'.
        escape_formulas: of CSV; see `csv_text`.

    Returns:
        What was written, one row a file.

    Raises:
        DataError: a column is no text, or cannot be written in this format.
    """
    serialize = partial(_SERIALIZERS[format], escape_formulas=escape_formulas)
    parts = [_write(classifier, block, uri, format, serialize) for block in blocks.to_pylist()]
    return pa.Table.from_pylist(parts, _PART)


def _write(
    classifier: "AnyClassifier",
    block: dict[str, Any],
    uri: str,
    format: str,
    serialize: Callable[[pa.Table], bytes],
) -> dict[str, Any]:
    with pa.ipc.open_stream(block["rows"]) as stream:
        rows = stream.read_all().replace_schema_metadata(None)
    delimiter = free_delimiter(classifier.classes, classifier.description.label_delimiter)
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
    given = decide(probabilities, classifier.thresholds)
    for name, values in _predictions(probabilities, given, classifier.classes).items():
        if format == "csv" and pa.types.is_list(values.type):
            values = pc.binary_join(values.cast(pa.list_(pa.string())), delimiter)
        columns[name] = values.take(spread)
    name = f"part-{block['number']:05}-{first_row:012}.{format}"
    written = pa.table(columns)
    try:
        data = serialize(written)
    except (pa.ArrowException, UnicodeError) as error:
        reason = f"cannot be written as {format}: {DataError.reason(error)}"
        raise DataError(f"{block['file']}: {reason}") from error
    schema = written.schema.serialize().to_pybytes() if format == "parquet" else b""
    storage.write_bytes(storage.join(uri, name), data)
    renamed = zip(rows.column_names, names, strict=True)
    return {
        "name": name,
        "file": block["file"],
        "num_rows": rows.num_rows,
        "num_bytes": len(data),
        "without_text": rows.num_rows - len(probabilities),
        "class_rows": rows_of_classes(given, len(classifier.classes)).tolist(),
        "renamed": [{"old": old, "new": new} for old, new in renamed if old != new],
        "schema": schema,
    }


def _texts(block: dict[str, Any], rows: pa.Table) -> pa.Array:
    """The texts of rows, null where one of the columns is."""
    columns = []
    for name in block["text_columns"]:
        column_index(block["file"], name, rows.column_names)
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


def _predictions(
    probabilities: npt.NDArray[np.float32], given: npt.NDArray[Any], classes: Sequence[str]
) -> dict[str, pa.Array]:
    each = [pa.array(np.ascontiguousarray(column)) for column in probabilities.T]
    names = pa.array(classes, pa.string())
    if given.ndim == 1:
        predicted = names.take(pa.array(given, pa.int64()))
        best = pa.array(probabilities.max(axis=1), pa.float32())
    else:
        lists = label_column(given)
        predicted = pa.ListArray.from_arrays(lists.offsets, names.take(lists.values))
        best = pa.ListArray.from_arrays(lists.offsets, pa.array(probabilities[given]))
    return dict(zip(_added_names(classes), [predicted, best, *each], strict=True))


def _parquet(rows: pa.Table, **_: bool) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _jsonl(rows: pa.Table, **_: bool) -> bytes:
    """JSON has no NaN and no infinity: null; and no dates and bytes: as Python shows them."""
    for number, field in enumerate(rows.schema):
        if pa.types.is_floating(field.type):
            column = rows.column(number)
            nothing = pa.scalar(None, field.type)
            finite = pc.if_else(pc.is_finite(column), column, nothing)
            rows = rows.set_column(number, field, finite)
    lines = [json.dumps(row, ensure_ascii=False, default=str) for row in rows.to_pylist()]
    return "".join(f"{line}\n" for line in lines).encode()


def _csv(rows: pa.Table, *, escape_formulas: bool) -> bytes:
    text = csv_text(rows.column_names, rows.to_pylist(), escape_formulas=escape_formulas)
    return text.encode()


_SERIALIZERS: dict[str, Callable[..., bytes]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
    "csv": _csv,
}


def unify_schemas(uri: str, parts: Sequence[dict[str, Any]]) -> None:
    """Write files again whose columns differ from the others', so that all read as one table.

    Raises:
        DataError: no table could hold the columns of all.
    """
    found = {part["schema"]: part["file"] for part in parts}
    if len(found) == 1:
        return
    schemas = [pa.ipc.read_schema(pa.py_buffer(schema)) for schema in found]
    try:
        common = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"{' and '.join(dict.fromkeys(found.values()))}: columns do not fit together "
            f"({DataError.reason(error)}); write jsonl instead"
        ) from error
    for part in parts:
        if pa.ipc.read_schema(pa.py_buffer(part["schema"])) != common:
            file = storage.join(uri, part["name"])
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
