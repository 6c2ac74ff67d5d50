"""Blocks of rows in this process: what small data needs in place of Ray Data.

Starting Ray and its workers takes about ten seconds; one process reads and tokenizes tens of
megabytes in that time. The steps are the same functions over the same blocks, so that what comes
out is the same, too.
"""

import itertools
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import fs

from rnntune import storage
from rnntune.data.formats.class_folders import list_texts
from rnntune.data.sources import Source, read_blocks
from rnntune.errors import RnntuneError, StorageError

__all__ = ["LocalDataset", "fits_process", "read_local", "text_bytes"]
_PACKED = {".gz": 4, ".bz2": 4, ".zst": 4, ".lz4": 3, ".xz": 4, ".parquet": 3}
"""About how many bytes of text stand in one byte of such files."""
_KEPT_BYTES = 128 << 20
"""Blocks that are kept in memory between two passes."""


class LocalDataset:
    """Tables one after the other, and the steps of `ray.data.Dataset` that this package uses.

    Args:
        blocks: gives the tables; called anew for each pass.
    """

    def __init__(self, blocks: Callable[[], Iterable[pa.Table]]) -> None:
        self._blocks = blocks

    def map_batches(
        self,
        function: Callable[..., pa.Table | Iterator[pa.Table]],
        *,
        fn_kwargs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> "LocalDataset":
        """Apply a function to each block; it gives a table or several.

        Args:
            function: called with a table and `fn_kwargs`.
            fn_kwargs: its other arguments.
            _: how Ray would run it.
        """

        def mapped() -> Iterator[pa.Table]:
            for block in self._blocks():
                result = function(block, **(fn_kwargs or {}))
                if isinstance(result, pa.Table):
                    yield result
                else:
                    yield from result

        return LocalDataset(mapped)

    def union(self, *others: "LocalDataset") -> "LocalDataset":
        """The blocks of this dataset, then those of others."""
        every = [self, *others]
        return LocalDataset(lambda: itertools.chain.from_iterable(one._blocks() for one in every))

    def select_columns(self, names: Sequence[str]) -> "LocalDataset":
        """Some columns of each block."""
        return LocalDataset(lambda: (block.select(names) for block in self._blocks()))

    def materialize(self) -> "LocalDataset":
        """Run all steps now and keep the blocks, the first ones in memory and more on disk.

        How much text is in a compressed file is only estimated before.
        """
        kept: list[pa.Table] = []
        num_bytes = 0
        blocks = iter(self._blocks())
        for block in blocks:
            kept.append(block)
            num_bytes += block.nbytes
            if num_bytes > _KEPT_BYTES:
                break
        more = _on_disk(blocks)
        return LocalDataset(lambda: itertools.chain(kept, more()))

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        """Run all steps and give the blocks as they come."""
        yield from self._blocks()


def _on_disk(blocks: Iterator[pa.Table]) -> Callable[[], Iterator[pa.Table]]:
    """Write tables of one schema to a file without a name, and give what reads them again."""
    first = next(blocks, None)
    if first is None:
        return lambda: iter(())
    try:
        with tempfile.TemporaryFile() as file:
            with pa.ipc.new_stream(file, first.schema) as writer:
                for block in itertools.chain([first], blocks):
                    writer.write_table(block.combine_chunks())
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        folder, reason = tempfile.gettempdir(), RnntuneError.reason(error)
        raise StorageError(f"{folder} (TMPDIR): cannot keep tokens there: {reason}") from error
    buffer = pa.py_buffer(mapped)
    return lambda: (pa.Table.from_batches([batch]) for batch in pa.ipc.open_stream(buffer))


def read_local(source: Source, files: Sequence[str]) -> LocalDataset:
    """The rows of files in order; see `sources.read_blocks` for the columns."""
    return LocalDataset(
        lambda: itertools.chain.from_iterable(read_blocks(source, file) for file in files)
    )


def fits_process(files: Iterable[str], most_bytes: int) -> bool:
    """Whether files are worth no cluster: no address of one is set, and they are small.

    Args:
        files: local paths or URIs.
        most_bytes: of text, estimated where files are compressed.
    """
    if os.environ.get("RAY_ADDRESS"):
        return False
    total = 0
    for file in files:
        total += text_bytes(file)
        if total > most_bytes:
            return False
    return True


def text_bytes(file: str) -> int:
    """About how many bytes of text a file holds; 0 for the sample."""
    if file.startswith("sample:"):
        return 0
    filesystem, path = storage.locate(file)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.Directory:
        return sum(each.size for each in list_texts(file))
    size = int(info.size or 0)
    return size * next((times for end, times in _PACKED.items() if path.endswith(end)), 1)
