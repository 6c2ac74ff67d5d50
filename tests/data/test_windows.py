"""Windows: few files in place of many, and what ranks read of them from object storage."""

import numpy as np
import pytest
from s3_server import bucket_uri, s3_env, s3_served  # noqa: F401  (fixtures)

from rnntune import storage
from rnntune.config.schema import BatchingConfig
from rnntune.data import windows
from rnntune.data.batching import EncodedRows
from rnntune.data.encoded_files import read_encoded, write_encoded
from rnntune.data.loader import TrainBatches, scoring_batches
from rnntune.data.prepared import ShardRef
from rnntune.data.windows import gather_windows, plan_files, read_index, window_rows, write_index
from rnntune.errors import DataError

BLOCK_ROWS, NUM_BLOCKS, WINDOW = 1_000, 40, 500


def blocks(uri: str, split: int = 0) -> list[dict]:
    """Blocks of rows like news in their lengths, whose labels number the rows."""
    random = np.random.default_rng(split)
    written = []
    for number in range(NUM_BLOCKS):
        lengths = random.normal(43, 12, BLOCK_ROWS).clip(5, 90).astype(np.int32)
        rows = EncodedRows(
            ids=random.integers(2, 60_000, lengths.sum()).astype(np.int32),
            lengths=lengths,
            labels=np.arange(BLOCK_ROWS) + number * BLOCK_ROWS,
        )
        name = f"block-{split}-{number}.parquet"
        num_bytes = write_encoded(storage.join(uri, name), rows)
        sizes = {"num_rows": BLOCK_ROWS, "num_bytes": num_bytes, "num_tokens": len(rows.ids)}
        written.append({"split": split, "uri": name, **sizes})
    return written


def gathered(uri: str, folder, *, split: int = 0, shuffle: bool = True):
    """The windows of each split after the third pass."""
    planned = plan_files(blocks(str(folder), split), 0, shuffle=shuffle)
    settings = {"uri": uri, "seed": 0, "most_rows": WINDOW, "shuffle": shuffle}
    lines = gather_windows(planned, blocks_uri=str(folder), **settings)
    write_index(uri, list(lines))
    return read_index(uri)


def test_texts_that_repeat_themselves_make_no_file_of_too_many_tokens():
    """A gigabyte of tokens that takes a megabyte on disk goes into several files."""
    sizes = {"num_rows": 1_000, "num_bytes": 10_000, "num_tokens": 2_621_440}
    packed = [{"split": 0, "uri": f"block-{n}.parquet", **sizes} for n in range(100)]
    planned = plan_files(packed, 0, shuffle=True)
    assert len(planned) == 3
    assert sorted(map(len, planned["files"].to_pylist())) == [33, 33, 34]


def refs(found) -> list:
    return [ShardRef(num_rows=w.num_rows, uri=w.file, window=w).part() for w in found]


def test_training_rows_are_dealt_out_at_random_and_sorted(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "FILE_BYTES", 1 << 20)
    found = gathered(str(tmp_path), tmp_path)["train"]
    assert 2 <= len({window.file for window in found}) < 8
    labels = []
    for window in found:
        rows = read_encoded(window.file, row_group=window.row_group, footer=window.footer)
        assert np.array_equal(np.bincount(rows.lengths), window.length_rows)
        assert (np.diff(rows.lengths) >= 0).all()
        assert len(set(rows.labels // BLOCK_ROWS)) > 4  # of many blocks
        labels += rows.labels.tolist()
    assert sorted(labels) == list(range(BLOCK_ROWS * NUM_BLOCKS))


@pytest.mark.parametrize(("split", "shuffle"), [(0, False), (1, True), (2, True)])
def test_other_rows_keep_their_order(tmp_path, split, shuffle):
    found = gathered(str(tmp_path), tmp_path, split=split, shuffle=shuffle)
    (of_split,) = [windows for windows in found.values() if windows]
    labels = [
        label
        for window in of_split
        for label in read_encoded(window.file, row_group=window.row_group).labels.tolist()
    ]
    assert labels == list(range(BLOCK_ROWS * NUM_BLOCKS))


def test_long_texts_have_smaller_windows():
    assert window_rows(16 * 65_536, 43 * 16 * 65_536) == windows.WINDOW_ROWS
    assert window_rows(300_000, 43 * 300_000) == 300_000 / 16  # every lane has one
    assert window_rows(1_000_000, 1_000_000_000) < 3_000
    assert window_rows(10, 10**9) == 512


def test_a_damaged_index_is_said(tmp_path):
    gathered(str(tmp_path), tmp_path)
    (tmp_path / windows.INDEX).write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"index\.parquet: damaged"):
        read_index(str(tmp_path))


def test_ranks_read_their_share_from_object_storage(bucket_uri, s3_served, tmp_path):  # noqa: F811
    """The sum over ranks of what is read is the data once, whatever the number of ranks."""
    found = gathered(bucket_uri, tmp_path)["train"]
    sizes = storage.file_sizes(bucket_uri)
    data_bytes = sum(size for name, size in sizes.items() if name.startswith("train-"))
    config = BatchingConfig(batch_rows=16)
    counted = {}
    for world_size in (1, 2, 4):
        s3_served.clear()
        rows, padded, cells = [], 0, 0
        for rank in range(world_size):
            batches = TrainBatches(
                refs(found), config, seed=0, rank=rank, world_size=world_size, window_rows=8_000
            )
            rows += [n for batch in batches.epoch(0) if batch.weight for n in batch.labels.tolist()]
            padded, cells = padded + batches.padded_cells, cells + batches.cells
        assert sorted(rows) == list(range(BLOCK_ROWS * NUM_BLOCKS))
        assert padded / cells < 0.03  # of windows of 500 rows
        read = [one for one in s3_served if one.method == "GET" and "/train-" in one.path]
        counted[world_size] = (sum(one.num_bytes for one in read), len(read))
    for num_bytes, num_requests in counted.values():
        assert 0.9 * data_bytes < num_bytes <= 1.05 * data_bytes
        assert num_requests <= 1.05 * len(found)


def test_going_on_reads_what_is_left(bucket_uri, s3_served, tmp_path):  # noqa: F811
    found = gathered(bucket_uri, tmp_path)["train"]
    config = BatchingConfig(batch_rows=16)

    def batches():
        return TrainBatches(refs(found), config, seed=0, window_rows=8_000)

    whole = list(batches().epoch(0))
    start = whole[len(whole) * 9 // 10].position
    s3_served.clear()
    rest = list(batches().epoch(0, start))
    wanted = [batch.labels.tolist() for batch in whole if batch.position > start]
    assert [batch.labels.tolist() for batch in rest] == wanted
    read = [one for one in s3_served if one.method == "GET"]
    assert len(read) <= 16  # of 80 windows: those of one round in five


def test_ranks_score_parts_of_their_own(bucket_uri, s3_served, tmp_path):  # noqa: F811
    found = gathered(bucket_uri, tmp_path, split=1)["validation"]
    s3_served.clear()
    rows = []
    for rank in range(4):
        for batch in scoring_batches(refs(found), rank, 4):
            assert batch.rows.tolist() == batch.labels.tolist()
            rows += batch.rows.tolist()
    assert sorted(rows) == list(range(BLOCK_ROWS * NUM_BLOCKS))
    assert len([one for one in s3_served if one.method == "GET"]) <= 1.05 * len(found)
