"""Who takes blocks of rows through the passes: Ray Data, or for small data this process."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from rnntune.cluster.ray_internals import spilled_bytes
from rnntune.cluster.session import connect, silence_ray_logging, user_error
from rnntune.cluster.shared_storage import check_shared_storage
from rnntune.cluster.waiting import await_room
from rnntune.config.schema import DataConfig
from rnntune.data.block_tasks import encode_block
from rnntune.data.cluster_counts import ClusterCounts
from rnntune.data.local_dataset import LocalDataset, fits_process, read_local
from rnntune.data.sources import Source, read_dataset
from rnntune.data.windows import gather_windows
from rnntune.data.word_counts import WordCounts

__all__ = ["LocalPasses", "RayPasses", "choose_passes"]
LOCAL_BYTES = 50_000_000
"""Text up to which a cluster would take longer to start than this process needs."""
CLUSTER_COUNT_BYTES = 256 << 20
"""Tokenized blocks up to which the driver merges their counts of words faster than tasks would."""


class LocalPasses:
    """The passes in this process."""

    read = staticmethod(read_local)

    @staticmethod
    def word_counts(_: Any) -> WordCounts:
        """Who merges the counts of words of tokenized blocks."""
        return WordCounts()

    @staticmethod
    def encode(blocks: Any, shared: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """Blocks through the second pass; see `encode_block` for what is shared and set."""
        return blocks.map_batches(encode_block, fn_kwargs={**shared, **settings})

    @staticmethod
    def gather(files: pa.Table, settings: Mapping[str, Any]) -> Any:
        """Files through the third pass; see `gather_windows` for what is set."""
        lines = LocalDataset(lambda: [files.slice(n, 1) for n in range(len(files))])
        return lines.map_batches(gather_windows, fn_kwargs=settings)


class RayPasses:
    """The passes through Ray Data; what all blocks share travels to each node once."""

    read = staticmethod(read_dataset)

    @staticmethod
    def word_counts(blocks: Any) -> WordCounts | ClusterCounts:
        """Who merges the counts of words of tokenized blocks: the driver, or tasks if many."""
        num_bytes = blocks.size_bytes() or 0
        if num_bytes <= CLUSTER_COUNT_BYTES:
            return WordCounts()
        return ClusterCounts(blocks.to_arrow_refs(), num_bytes)

    @staticmethod
    def encode(blocks: Any, shared: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """Blocks through the second pass; see `encode_block` for what is shared and set."""
        import ray

        return blocks.map_batches(
            _encode_shared,
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"shared": ray.put(dict(shared)), "settings": dict(settings)},
        )

    @staticmethod
    def gather(files: pa.Table, settings: Mapping[str, Any]) -> Any:
        """Files through the third pass; see `gather_windows` for what is set."""
        import ray.data

        lines: Any = ray.data.from_arrow([files.slice(n, 1) for n in range(len(files))])
        return lines.map_batches(
            _gather_files, batch_size=1, batch_format="pyarrow", fn_kwargs={"settings": settings}
        )


def _encode_shared(table: pa.Table, *, shared: Any, settings: Mapping[str, Any]) -> pa.Table:
    import ray

    return encode_block(table, **ray.get(shared), **settings)


def _gather_files(table: pa.Table, *, settings: Mapping[str, Any]) -> Iterator[pa.Table]:
    yield from gather_windows(table, **settings)


@contextlib.contextmanager
def choose_passes(
    data: DataConfig, source: Source, tell: Callable[[str], None], *, verbose: bool
) -> Iterator[LocalPasses | RayPasses]:
    """Who runs the passes over a source: this process, or a cluster meanwhile connected."""
    if fits_process(source.files, LOCAL_BYTES):
        yield LocalPasses()
        return
    with connect(verbose=verbose):
        import ray.data

        silence_ray_logging(logging.getLogger("ray").level < logging.ERROR)  # ray.data's own set-up
        spilled_before = spilled_bytes()
        check_shared_storage([data.cache_dir])
        await_room(1, {"CPU": 1.0}, tell)
        try:
            yield RayPasses()
        except ray.exceptions.RayError as error:
            raise user_error(error) from error
        if spilled := spilled_bytes() - spilled_before:
            tell(
                f"the rows did not fit the object store: {spilled / 1e6:,.0f} MB were spilled to "
                "disk meanwhile"
            )
