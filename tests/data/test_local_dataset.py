import gc
import gzip
import weakref

import pyarrow as pa
import pytest

from rnntune.data import local_dataset
from rnntune.data.local_dataset import LocalDataset, fits_process
from rnntune.errors import StorageError


def _tables(*values):
    return LocalDataset(lambda: (pa.table({"x": [v], "y": [v]}) for v in values))


def _values(dataset):
    return [table["x"].to_pylist() for table in dataset.iter_batches(batch_size=None)]


def _twice(table, *, times):
    for _ in range(times):
        yield table


def test_steps_run_block_by_block_in_order():
    dataset = _tables(1, 2).union(_tables(3))
    added = dataset.map_batches(lambda t, by: t.set_column(0, "x", pa.array([by])), fn_kwargs={
        "by": 7
    })  # fmt: skip
    assert _values(dataset) == [[1], [2], [3]]
    assert _values(added) == [[7], [7], [7]]
    assert _values(dataset.map_batches(_twice, fn_kwargs={"times": 2}, batch_size=1)) == [
        [1], [1], [2], [2], [3], [3],
    ]  # fmt: skip
    small = dataset.select_columns(["y"])
    assert [table.column_names for table in small.iter_batches()] == [["y"]] * 3


def test_materialized_steps_run_once():
    calls = []

    def counted(table):
        calls.append(1)
        return table

    kept = _tables(1, 2).map_batches(counted).materialize()
    assert _values(kept) == _values(kept) == [[1], [2]]
    assert len(calls) == 2


def test_blocks_beyond_a_bound_are_kept_on_disk(monkeypatch):
    monkeypatch.setattr(local_dataset, "_KEPT_BYTES", 40)
    alive = []

    def tracked(table):
        alive.append(weakref.ref(table))
        return table

    kept = _tables(*range(9)).map_batches(tracked).materialize()
    assert _values(kept) == _values(kept) == [[number] for number in range(9)]
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 3  # of 16 bytes each


def test_a_temporary_folder_without_room_is_named(monkeypatch):
    monkeypatch.setattr(local_dataset, "_KEPT_BYTES", 0)

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match=r"\(TMPDIR\): cannot keep tokens there: .*No space"):
        _tables(1, 2).materialize()


@pytest.mark.usefixtures("no_cluster_in_the_shell")
def test_small_files_need_no_cluster(tmp_path, monkeypatch):
    plain, packed = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    plain.write_bytes(b"x" * 1000)
    packed.write_bytes(gzip.compress(bytes(range(256)) * 4, 0))
    assert fits_process(["sample:train", str(plain)], 1000)
    assert not fits_process([str(plain)], 999)
    assert not fits_process([str(packed)], packed.stat().st_size)  # its text is larger
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not fits_process(["sample:train"], 1000)
