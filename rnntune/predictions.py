"""What prediction writes: rows with their columns, their class and its probabilities."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.classifier import TextClassifier
from rnntune.errors import DataError
from rnntune.lines import place as place_of

__all__ = ["give_one_schema", "write_predictions"]

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


def write_predictions(
    classifier: TextClassifier, blocks: pa.Table, *, place: str, format: str
) -> pa.Table:
    """Blocks of rows to files of the same rows with their classes.

    Args:
        classifier: the model.
        blocks: one row a block, as `predict_files` packs them.
        place: folder to write to.
        format: 'parquet' or 'jsonl'.

    Returns:
        What was written, one row a file.

    Raises:
        DataError: a column is no text, or cannot be written in this format.
    """
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
        told = f"{block['file']}: cannot be written as {format}: {DataError.reason(error)}"
        raise DataError(told) from error


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


def give_one_schema(place: str, parts: Sequence[dict[str, Any]]) -> None:
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
