"""What a task does with one block of rows: the two passes of the preparation.

Each takes and gives an Arrow table, as Ray Data has it, and knows nothing of the other blocks.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rnntune import storage
from rnntune.config.schema import Tokenizer
from rnntune.data.batching import EncodedRows
from rnntune.data.encoded_files import write_encoded
from rnntune.data.formats.schema import byte_slices
from rnntune.data.stratification import (
    SPLITS,
    TRAIN,
    Fractions,
    Reassigned,
    assign_splits,
    hash_texts,
    lowest_hashes,
    text_slices,
)
from rnntune.data.task import rows_of_classes
from rnntune.data.vocabulary import UNKNOWN, HashedVocabulary, truncate

__all__ = ["MAX_PROBLEMS", "encode_block", "recount_block", "tokenize_block"]
__all__ += ["tokenize_blocks"]
MAX_PROBLEMS = 20
_NO_HASHES = np.empty(0, dtype=np.uint64)
_BLOCK = pa.schema(
    [
        ("origin", pa.int8()),
        ("file", pa.string()),
        ("first_row", pa.int64()),
        ("num_rows", pa.int64()),
        ("hashes", pa.list_(pa.uint64())),
        ("held_out", pa.list_(pa.uint64())),
        ("words", pa.list_(pa.string())),
        ("counts", pa.list_(pa.int64())),
        ("indices", pa.list_(pa.int32())),
        ("lengths", pa.list_(pa.int32())),
        ("rows", pa.list_(pa.int64())),
        ("names", pa.list_(pa.string())),
        ("name_rows", pa.list_(pa.int64())),
        ("class_rows", pa.list_(pa.int64())),
        ("label_ids", pa.list_(pa.int32())),
        ("label_counts", pa.list_(pa.int32())),
        ("lowest_ids", pa.list_(pa.int32())),
        ("lowest_hashes", pa.list_(pa.uint64())),
        ("num_problems", pa.int64()),
        ("problems", pa.list_(pa.struct([("row", pa.int64()), ("reason", pa.string())]))),
    ]
)
_WRITTEN = pa.schema(
    [
        ("split", pa.int8()),
        ("origin", pa.int8()),
        ("file", pa.string()),
        ("first_row", pa.int64()),
        ("uri", pa.string()),
        ("num_rows", pa.int64()),
        ("num_bytes", pa.int64()),
        ("num_tokens", pa.int64()),
        ("num_known", pa.int64()),
        ("num_cut", pa.int64()),
        ("class_rows", pa.list_(pa.int64())),
        ("length_rows", pa.list_(pa.int64())),
        ("num_repeated", pa.list_(pa.int64())),
    ]
)


def tokenize_blocks(table: pa.Table, **settings: Any) -> Iterator[pa.Table]:
    """First pass, a block of any size in pieces of bounded size; see `tokenize_block`."""
    for piece in byte_slices(table):
        yield tokenize_block(piece, **settings)


def tokenize_block(
    table: pa.Table,
    *,
    clean: bool,
    tokenizer: Tokenizer,
    max_tokens: int,
    seed: int,
    fractions: Fractions,
    origin: int,
    compare_texts: bool,
) -> pa.Table:
    """First pass, one block of rows to one row: tokens as indices into the block's own words.

    Args:
        table: rows of one file, see `formats.schema.ROW_SCHEMA`.
        clean: repair entities and line breaks.
        tokenizer: how texts are split into tokens.
        max_tokens: tokens of a text that are counted and kept.
        seed: of the splits.
        fractions: of the training files' rows that are held out.
        origin: index in `SPLITS` of the split that the file is given for.
        compare_texts: keep a hash of each text, to find texts of one split in another.
    """
    bad = pc.is_valid(table["problem"])
    problems = table.filter(bad)
    good = table.filter(pc.invert(bad))
    texts = good["text"].combine_chunks()
    hashes = hash_texts(texts, seed) if compare_texts or not origin else _NO_HASHES
    parts = np.full(len(texts), origin, dtype=np.int8)
    if not origin:
        parts = assign_splits(hashes, fractions)
    coded, lengths = _tokens(texts, clean, tokenizer, max_tokens)
    indices = coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    trained = indices[np.repeat(parts == TRAIN, lengths)]
    counts = np.bincount(trained, minlength=len(coded.dictionary))
    names, label_ids, row_of_label = _labels(good["label"].combine_chunks())
    _, firsts = np.unique(label_ids, return_index=True)
    rows = good["row"].to_numpy()
    # A row of several labels counts for each of them; of those the rarest one deals it out.
    lowest_ids, lowest = label_ids[:0], hashes
    if len(hashes):
        lowest_ids, lowest = lowest_hashes(hashes[row_of_label], label_ids, fractions)
    first_problems = problems.slice(0, MAX_PROBLEMS)
    return _one_row(_BLOCK, {
        "origin": origin,
        "hashes": _NO_HASHES if origin else hashes,
        "held_out": hashes if compare_texts and origin else _NO_HASHES,
        "file": table["file"][0].as_py() if table.num_rows else "",
        "first_row": table["row"][0].as_py() if table.num_rows else 0,
        "num_rows": table.num_rows,
        "words": coded.dictionary,
        "counts": counts,
        "indices": indices,
        "lengths": lengths,
        "rows": rows,
        "names": names,
        "name_rows": rows[row_of_label[firsts]],
        "class_rows": np.bincount(label_ids, minlength=len(names)),
        "label_ids": label_ids,
        "label_counts": np.bincount(row_of_label, minlength=len(texts)),
        "lowest_ids": lowest_ids,
        "lowest_hashes": lowest,
        "num_problems": problems.num_rows,
        "problems": [
            {"row": row, "reason": reason}
            for row, reason in zip(
                *(first_problems[name].to_pylist() for name in ("row", "problem")), strict=True
            )
        ],
    })  # fmt: skip


def _labels(
    labels: pa.Array,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The labels of rows, one or a list each.

    Returns:
        Their names; for each label of each row, once, its index among the names, int32 (labels,),
        and the row, int64 (labels,).
    """
    rows = np.arange(len(labels))
    if pa.types.is_list(labels.type):
        rows = np.repeat(rows, pc.list_value_length(labels).to_numpy(zero_copy_only=False))
        labels = pc.list_flatten(labels)
    coded = labels.dictionary_encode()
    ids = coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    pairs = np.stack([rows, ids], axis=1)
    if (np.diff(rows) == 0).any():
        pairs = np.unique(pairs, axis=0)
    names = np.array(coded.dictionary.to_pylist(), dtype=object)
    return names, pairs[:, 1].astype(np.int32), pairs[:, 0]


def _tokens(
    texts: pa.StringArray, clean: bool, tokenizer: Tokenizer, max_tokens: int
) -> tuple[pa.DictionaryArray, npt.NDArray[np.int32]]:
    """Tokens of all texts, (tokens,), and how many each text has, int32 (rows,)."""
    from rnntune.data.tokenize import clean_texts, tokenize

    coded, lengths = [pa.array([], pa.string()).dictionary_encode()], [np.empty(0, dtype=np.int32)]
    for part in text_slices(texts):
        cleaned = clean_texts(part) if clean else part
        tokens, counts = tokenize(cleaned.to_pylist(), tokenizer, max_tokens)
        coded.append(pa.array(tokens, pa.string()).dictionary_encode())
        lengths.append(counts)
    return pa.chunked_array(coded).unify_dictionaries().combine_chunks(), np.concatenate(lengths)


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


def recount_block(table: pa.Table, *, fractions: Fractions, reassigned: Reassigned) -> pa.Table:
    """What reassigned texts change in a block's counts of words.

    Args:
        table: one row, as `tokenize_block` gives it.
        fractions: sizes of the splits.
        reassigned: texts that go elsewhere than their hash says.

    Returns:
        `words` and `counts`, which may be negative; (words that change,).
    """
    before = _parts(table, fractions, None) == TRAIN
    after = _parts(table, fractions, reassigned) == TRAIN
    change = np.repeat(after.astype(np.int8) - before, _flat(table, "lengths"))
    words = pc.list_flatten(table["words"].combine_chunks())
    counts = np.bincount(_flat(table, "indices"), weights=change, minlength=len(words))
    changes = pa.table({"words": words, "counts": counts.astype(np.int64)})
    return changes.filter(pa.array(counts != 0))


def _parts(
    table: pa.Table, fractions: Fractions, reassigned: Reassigned | None
) -> npt.NDArray[np.int8]:
    """The split of each row of a tokenized block, int8 (rows,)."""
    if origin := table["origin"][0].as_py():
        return np.full(len(_flat(table, "lengths")), origin, dtype=np.int8)
    return assign_splits(_flat(table, "hashes"), fractions, reassigned)


def _flat(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A list column of a one-row table as an array."""
    values: npt.NDArray[Any] = pc.list_flatten(table[name].combine_chunks()).to_numpy()
    return values


def encode_block(
    table: pa.Table,
    *,
    words: HashedVocabulary,
    labels: Sequence[str],
    uri: str,
    max_length: int,
    held_out: Mapping[int, npt.NDArray[np.uint64]],
    fractions: Fractions,
    reassigned: Reassigned,
    multi_label: bool = False,
) -> pa.Table:
    """Second pass, one block: tokens to ids, written to the cache, one file a split.

    Args:
        table: one row, as `tokenize_block` gives it.
        words: the vocabulary.
        labels: the classes, as the data writes them.
        uri: folder of the cache entry.
        max_length: tokens of a row that are kept.
        held_out: by index in `SPLITS`, the sorted hashes of that split's texts.
        fractions: sizes of the splits.
        reassigned: texts that go elsewhere than their hash says.
        multi_label: whether rows have sets of labels.
    """
    block = {name: table[name].combine_chunks() for name in table.column_names}
    values = {n: pc.list_flatten(block[n]) for n in ("words", "names")}
    arrays = {
        n: pc.list_flatten(block[n]).to_numpy()
        for n in ("indices", "lengths", "label_ids", "label_counts", "hashes")
    }
    parts = _parts(table, fractions, reassigned)
    ids = words.ids(values["words"])[arrays["indices"]]
    known = pc.index_in(values["names"], value_set=pa.array(labels, pa.string()))
    label_ids = pc.fill_null(known, -1).to_numpy(zero_copy_only=False)[arrays["label_ids"]]
    row_of_label = np.repeat(np.arange(len(arrays["lengths"])), arrays["label_counts"])
    usable = np.bincount(row_of_label, label_ids < 0, len(arrays["lengths"])) == 0
    of_rows = label_ids
    if multi_label:
        of_rows = np.zeros((len(usable), len(labels)), dtype=np.uint8)
        of_rows[row_of_label[label_ids >= 0], label_ids[label_ids >= 0]] = 1
    row_of_token = np.repeat(np.arange(len(usable)), arrays["lengths"])
    written = []
    for part, split in enumerate(SPLITS):
        chosen = (parts == part) & usable
        if not chosen.any():
            continue
        kept, lengths, num_cut = truncate(
            ids[chosen[row_of_token]], arrays["lengths"][chosen], max_length
        )
        repeated = [0] * len(SPLITS)
        if part == TRAIN:
            for other, known_hashes in held_out.items():
                repeated[other] = _num_in(known_hashes, arrays["hashes"][chosen])
        name = f"{split}-{uuid.uuid4().hex[:12]}.parquet"
        rows = EncodedRows(ids=kept, lengths=lengths, labels=of_rows[chosen])
        num_bytes = write_encoded(storage.join(uri, name), rows)
        written.append(
            {
                "split": part,
                "origin": table["origin"][0].as_py(),
                "file": table["file"][0].as_py(),
                "first_row": table["first_row"][0].as_py(),
                "uri": name,
                "num_rows": len(lengths),
                "num_bytes": num_bytes,
                "num_tokens": len(kept),
                "num_known": int((kept != UNKNOWN).sum()),
                "num_cut": num_cut,
                "class_rows": rows_of_classes(of_rows[chosen], len(labels)),
                "length_rows": np.bincount(lengths),
                "num_repeated": repeated,
            }
        )
    return pa.Table.from_pylist(written, schema=_WRITTEN)


def _num_in(sorted_hashes: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64]) -> int:
    """How many hashes are in a sorted array."""
    if not len(sorted_hashes):
        return 0
    index = np.searchsorted(sorted_hashes, hashes).clip(max=len(sorted_hashes) - 1)
    return int((sorted_hashes[index] == hashes).sum())
