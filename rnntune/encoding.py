"""What a task does with one block of rows: the two passes of the preparation.

Each takes and gives an Arrow table, as Ray Data has it, and knows nothing of the other blocks.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rnntune import storage

__all__ = ["MAX_PROBLEMS", "SPLITS", "encode_block", "tokenize_block"]

SPLITS = ("train", "validation", "test")
MAX_PROBLEMS = 20
_TRAIN, _VALIDATION, _TEST = range(3)

_BLOCK = pa.schema(
    [
        ("test", pa.bool_()),
        ("file", pa.string()),
        ("first_row", pa.int64()),
        ("num_rows", pa.int64()),
        ("words", pa.list_(pa.string())),
        ("counts", pa.list_(pa.int64())),
        ("indices", pa.list_(pa.int32())),
        ("lengths", pa.list_(pa.int32())),
        ("parts", pa.list_(pa.int8())),
        ("rows", pa.list_(pa.int64())),
        ("names", pa.list_(pa.string())),
        ("name_rows", pa.list_(pa.int64())),
        ("trained_names", pa.list_(pa.string())),
        ("label_ids", pa.list_(pa.int32())),
        ("num_problems", pa.int64()),
        ("problems", pa.list_(pa.struct([("row", pa.int64()), ("reason", pa.string())]))),
    ]
)

_WRITTEN = pa.schema(
    [
        ("split", pa.int8()),
        ("test", pa.bool_()),
        ("file", pa.string()),
        ("first_row", pa.int64()),
        ("place", pa.string()),
        ("num_rows", pa.int64()),
        ("num_tokens", pa.int64()),
        ("num_known", pa.int64()),
        ("num_cut", pa.int64()),
        ("class_rows", pa.list_(pa.int64())),
        ("length_rows", pa.list_(pa.int64())),
    ]
)


def tokenize_block(
    table: pa.Table,
    *,
    clean: bool,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
    test: bool,
) -> pa.Table:
    """First pass, one block of rows to one row: tokens as indices into the block's own words."""
    from rnntune import text

    bad = pc.is_valid(table["problem"])
    problems = table.filter(bad)
    good = table.filter(pc.invert(bad))
    texts = good["text"].combine_chunks()
    parts = _assign(texts, seed, validation_fraction, test_fraction, test)
    tokens, lengths = text.tokenize((text.clean(texts) if clean else texts).to_pylist())
    coded = pa.array(tokens, pa.string()).dictionary_encode()
    indices = coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    trained = indices[np.repeat(parts == _TRAIN, lengths)]
    counts = np.bincount(trained, minlength=len(coded.dictionary))
    labels = good["label"].combine_chunks().dictionary_encode()
    label_ids = labels.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    _, firsts = np.unique(label_ids, return_index=True)
    rows = good["row"].to_numpy()
    names = np.array(labels.dictionary.to_pylist(), dtype=object)
    first_problems = problems.slice(0, MAX_PROBLEMS)
    return _one_row(_BLOCK, {
        "test": test,
        "file": table["file"][0].as_py() if table.num_rows else "",
        "first_row": table["row"][0].as_py() if table.num_rows else 0,
        "num_rows": table.num_rows,
        "words": coded.dictionary,
        "counts": counts,
        "indices": indices,
        "lengths": lengths,
        "parts": parts,
        "rows": rows,
        "names": names,
        "name_rows": rows[firsts],
        "trained_names": names[np.unique(label_ids[parts == _TRAIN])],
        "label_ids": label_ids,
        "num_problems": problems.num_rows,
        "problems": [
            {"row": row, "reason": reason}
            for row, reason in zip(
                *(first_problems[name].to_pylist() for name in ("row", "problem")), strict=True
            )
        ],
    })  # fmt: skip


def _one_row(schema: pa.Schema, values: Mapping[str, Any]) -> pa.Table:
    """A table of one row; a list column takes a whole array as its value."""
    columns = []
    for field in schema:
        value = values[field.name]
        if pa.types.is_list(field.type):
            inner = value if isinstance(value, pa.Array) else pa.array(value, field.type.value_type)
            offsets = pa.array([0, len(inner)], pa.int32())
            columns.append(pa.ListArray.from_arrays(offsets, inner.cast(field.type.value_type)))
        else:
            columns.append(pa.array([value], field.type))
    return pa.table(columns, schema=schema)


def _assign(
    texts: pa.StringArray, seed: int, validation_fraction: float, test_fraction: float, test: bool
) -> npt.NDArray[np.int8]:
    """The split of each row, int8 (rows,): by a hash of its text, so equal texts stay together."""
    if test:
        return np.full(len(texts), _TEST, dtype=np.int8)
    values = np.array(texts.to_pylist(), dtype=object)
    hashed = pd.util.hash_array(values, hash_key=f"{seed:016d}"[-16:], categorize=False)
    place = hashed / 2.0**64  # uniform on [0, 1)
    parts = np.full(len(texts), _TRAIN, dtype=np.int8)
    parts[place < test_fraction + validation_fraction * (1 - test_fraction)] = _VALIDATION
    parts[place < test_fraction] = _TEST
    return parts


def encode_block(
    table: pa.Table, *, words: Any, labels: Sequence[str], place: str, max_length: int
) -> pa.Table:
    """Second pass, one block: tokens to ids, written to the cache, one file a split."""
    import ray

    from rnntune import text

    block = {name: table[name].combine_chunks() for name in table.column_names}
    values = {n: pc.list_flatten(block[n]) for n in ("words", "names")}
    arrays = {
        n: pc.list_flatten(block[n]).to_numpy()
        for n in ("indices", "lengths", "parts", "label_ids")
    }
    ids = text.Lookup(ray.get(words)).ids(values["words"])[arrays["indices"]]
    known = pc.index_in(values["names"], value_set=pa.array(labels, pa.string()))
    label_ids = pc.fill_null(known, -1).to_numpy(zero_copy_only=False)[arrays["label_ids"]]
    row_of_token = np.repeat(np.arange(len(label_ids)), arrays["lengths"])
    written = []
    for part, split in enumerate(SPLITS):
        chosen = (arrays["parts"] == part) & (label_ids >= 0)
        if not chosen.any():
            continue
        kept, lengths, num_cut = text.fit_lengths(
            ids[chosen[row_of_token]], arrays["lengths"][chosen], max_length
        )
        name = f"{split}-{uuid.uuid4().hex[:12]}.parquet"
        _write_rows(storage.join(place, name), kept, lengths, label_ids[chosen])
        written.append(
            {
                "split": part,
                "test": table["test"][0].as_py(),
                "file": table["file"][0].as_py(),
                "first_row": table["first_row"][0].as_py(),
                "place": name,
                "num_rows": len(lengths),
                "num_tokens": len(kept),
                "num_known": int((kept != text.UNKNOWN).sum()),
                "num_cut": num_cut,
                "class_rows": np.bincount(label_ids[chosen], minlength=len(labels)),
                "length_rows": np.bincount(lengths),
            }
        )
    return pa.Table.from_pylist(written, schema=_WRITTEN)


def _write_rows(
    place: str,
    ids: npt.NDArray[np.int32],
    lengths: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int32],
) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows = pa.table({"ids": pa.ListArray.from_arrays(offsets, ids), "label": labels})
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    storage.write_bytes(place, sink.getvalue().to_pybytes())
