"""Windows: the rows of large data in few files, whose row groups are read one at a time.

The second pass of the preparation leaves a file for each block. Where there are many rows, a third
pass makes files of about `FILE_BYTES` of them. Those of training rows come from blocks of all parts
of the data, and their rows are dealt out to windows at random and sorted by length there; those of
other rows keep the rows' order. `index.parquet` has a line for each window: `split`, `file`,
`row_group`, `num_rows`, `length_rows` (rows of each length, from 0), and with a file's first window
its `footer`, so that a reader need not ask the storage for it.
"""

import dataclasses
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rnntune import storage
from rnntune.data.batching import EncodedRows, IntArray
from rnntune.data.encoded_files import read_encoded, rows_table
from rnntune.data.lanes import DEFAULT_LANES
from rnntune.data.stratification import SPLITS, TRAIN
from rnntune.errors import DataError

__all__ = ["INDEX", "Window", "gather_windows", "plan_files", "read_index", "window_rows"]
__all__ += ["write_index"]
INDEX = "index.parquet"
FILE_BYTES = 96 << 20
_MOST_PACKED = 4
"""Bytes of tokens in one of a file that are counted on: a task holds the tokens of a whole file."""
WINDOW_ROWS = 32_768
_WINDOW_TOKENS = 1 << 21
_FEWEST_ROWS = 512
_FILES = pa.schema(
    [
        ("split", pa.int8()),
        ("number", pa.int64()),
        ("files", pa.list_(pa.string())),
        ("file_rows", pa.list_(pa.int64())),
    ]
)
_INDEX = pa.schema(
    [
        ("split", pa.int8()),
        ("number", pa.int64()),
        ("file", pa.string()),
        ("row_group", pa.int64()),
        ("num_rows", pa.int64()),
        ("length_rows", pa.list_(pa.int64())),
        ("footer", pa.binary()),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A row group of a file of a split.

    Args:
        file: its URI.
        row_group: number in the file.
        num_rows: rows in it.
        length_rows: rows of each length, from 0.
        footer: the file's, as Parquet writes it.
    """

    file: str
    row_group: int
    num_rows: int
    length_rows: npt.NDArray[np.int64]
    footer: bytes


def window_rows(num_rows: int, num_tokens: int) -> int:
    """Rows of a window: at most `WINDOW_ROWS`, fewer where texts are long; all lanes have as many.

    Batches of 64 rows of windows of 32,768 have 0.5% of padding on AG News, of 8,192 2%.

    Args:
        num_rows: training rows.
        num_tokens: their tokens.
    """
    mean = max(num_tokens // max(num_rows, 1), 1)
    most = max(_FEWEST_ROWS, min(WINDOW_ROWS, _WINDOW_TOKENS // mean))
    rounds = -(-num_rows // (most * DEFAULT_LANES))
    return max(_FEWEST_ROWS, -(-num_rows // (rounds * DEFAULT_LANES)))


def plan_files(written: Sequence[Mapping[str, Any]], seed: int, *, shuffle: bool) -> pa.Table:
    """Which blocks make which file.

    Args:
        written: what the second pass says of the blocks, in the order of the rows.
        seed: of the order of training rows.
        shuffle: whether these are dealt out at random.

    Returns:
        `split`, `number` of the file, `files` and `file_rows` of its blocks.
    """
    planned = []
    for split in range(len(SPLITS)):
        blocks = [part for part in written if part["split"] == split]
        if shuffle and split == TRAIN:
            order = np.random.default_rng(seed).permutation(len(blocks))
            blocks = [blocks[number] for number in order]
        ends = np.cumsum([_file_bytes(part) for part in blocks])
        num_files = max(1, round(int(ends[-1]) / FILE_BYTES)) if blocks else 0
        of_file = (ends - 1) * num_files // max(int(ends[-1]), 1) if blocks else ends
        for number in range(num_files):
            chosen = [b for b, file in zip(blocks, of_file, strict=True) if file == number]
            if chosen:
                planned.append(
                    {
                        "split": split,
                        "number": number,
                        "files": [part["uri"] for part in chosen],
                        "file_rows": [part["num_rows"] for part in chosen],
                    }
                )
    return pa.Table.from_pylist(planned, schema=_FILES)


def _file_bytes(part: Mapping[str, Any]) -> int:
    """What a block adds to a file, more where it is packed so well that its tokens take more."""
    return int(max(part["num_bytes"], 4 * part["num_tokens"] // _MOST_PACKED))


def gather_windows(
    table: pa.Table, *, blocks_uri: str, uri: str, seed: int, most_rows: int, shuffle: bool
) -> Iterator[pa.Table]:
    """Third pass: blocks to one file of windows, for each line of a table.

    Args:
        table: lines as `plan_files` gives them.
        blocks_uri: folder of the blocks.
        uri: folder of the files.
        seed: of the order of training rows.
        most_rows: rows of a window.
        shuffle: deal training rows out at random.

    Yields:
        Lines of the index.
    """
    for line in table.to_pylist():
        encoded = EncodedRows.concatenate(
            [
                read_encoded(storage.join(blocks_uri, file), num_rows=num_rows)
                for file, num_rows in zip(line["files"], line["file_rows"], strict=True)
            ]
        )
        order = np.arange(len(encoded))
        is_shuffled = shuffle and line["split"] == TRAIN
        if is_shuffled:
            order = np.random.default_rng([seed, line["number"]]).permutation(len(encoded))
        windows = np.array_split(order, -(-len(encoded) // most_rows))
        if is_shuffled:
            windows = [rows[np.argsort(encoded.lengths[rows], kind="stable")] for rows in windows]
        name = f"{SPLITS[line['split']]}-{line['number']:05d}-{uuid.uuid4().hex[:12]}.parquet"
        footer = _write_windows(storage.join(uri, name), encoded, windows)
        yield pa.Table.from_pylist(
            [
                {
                    "split": line["split"],
                    "number": line["number"],
                    "file": name,
                    "row_group": number,
                    "num_rows": len(rows),
                    "length_rows": np.bincount(encoded.lengths[rows]),
                    "footer": None if number else footer,
                }
                for number, rows in enumerate(windows)
            ],
            schema=_INDEX,
        )


def _write_windows(uri: str, encoded: EncodedRows, windows: Sequence[IntArray]) -> bytes:
    """Write rows, a row group a window; gives the footer."""
    sink, footer = pa.BufferOutputStream(), pa.BufferOutputStream()
    writer: pq.ParquetWriter | None = None
    for rows in windows:
        table = rows_table(_select(encoded, rows))
        writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=len(table))
    assert writer is not None
    writer.close()
    written = sink.getvalue()
    pq.read_metadata(pa.BufferReader(written)).write_metadata_file(footer)
    storage.write_bytes(uri, written.to_pybytes())
    return bytes(footer.getvalue().to_pybytes())


def _select(encoded: EncodedRows, rows: IntArray) -> EncodedRows:
    """Some rows, in an order."""
    lengths = encoded.lengths[rows]
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    cells = np.repeat(encoded.starts[rows] - starts, lengths) + np.arange(int(lengths.sum()))
    return EncodedRows(ids=encoded.ids[cells], lengths=lengths, labels=encoded.labels[rows])


def write_index(uri: str, lines: Sequence[pa.Table]) -> pa.Table:
    """Write the index of an entry's windows, in the order of the files.

    Args:
        uri: folder of the entry's rows.
        lines: as `gather_windows` gives them.
    """
    table = pa.concat_tables(lines).sort_by(
        [("split", "ascending"), ("number", "ascending"), ("row_group", "ascending")]
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    storage.write_bytes(storage.join(uri, INDEX), sink.getvalue().to_pybytes())
    return table


def read_index(uri: str) -> dict[str, list[Window]]:
    """The windows of each split, in order.

    Args:
        uri: folder of the entry's rows.

    Raises:
        DataError: the index is damaged.
    """
    file = storage.join(uri, INDEX)
    windows: dict[str, list[Window]] = {name: [] for name in SPLITS}
    footers: dict[str, bytes] = {}
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(file))).cast(_INDEX)
        lengths = table["length_rows"].combine_chunks()
        for number, line in enumerate(table.drop_columns(["length_rows"]).to_pylist()):
            name = storage.join(uri, line["file"])
            footers.setdefault(name, line["footer"])
            window = Window(
                file=name,
                row_group=line["row_group"],
                num_rows=line["num_rows"],
                length_rows=lengths[number].values.to_numpy(),
                footer=footers[name],
            )
            is_inside = "/" not in line["file"] and isinstance(window.footer, bytes)
            if not is_inside or window.length_rows.sum() != window.num_rows:
                raise ValueError(line["file"])
            windows[SPLITS[line["split"]]].append(window)
    except (pa.ArrowException, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{file}: damaged; delete its folder to prepare the data again") from error
    return windows
