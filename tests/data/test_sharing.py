import numpy as np
import pytest

from rnntune.config.schema import DataConfig
from rnntune.data import sharing
from rnntune.data.prepared import ShardRef, split_refs
from rnntune.data.preprocess import prepare
from rnntune.data.sharing import fits_object_store, share_split
from rnntune.errors import DataError


@pytest.fixture
def prepared(tmp_path):
    return prepare(DataConfig(source="sample", cache_dir=str(tmp_path), extra_words=0))


def test_datasets_are_judged_together(prepared):
    store_bytes = 3 * prepared.encoded_bytes
    assert fits_object_store([prepared], store_bytes)
    assert not fits_object_store([prepared, prepared], store_bytes)
    assert fits_object_store([prepared, prepared], 2 * store_bytes)


@pytest.mark.ray
def test_tasks_put_many_rows_into_the_object_store(prepared, ray_session, monkeypatch):
    ours = [ref.read() for ref in split_refs(prepared, "train")]
    monkeypatch.setattr(sharing, "_DRIVER_BYTES", -1)
    with monkeypatch.context() as patched:
        patched.delattr(ShardRef, "read")  # of this process alone
        shared = share_split(prepared, "train", in_store=True)
        theirs = [ref.load() for ref in shared]
    assert [ref.num_rows for ref in shared] == [len(rows) for rows in ours]
    for ours_of, theirs_of in zip(ours, theirs, strict=True):
        assert np.array_equal(ours_of.ids, theirs_of.ids)
        assert np.array_equal(ours_of.labels, theirs_of.labels)


@pytest.mark.ray
def test_a_damaged_file_is_one_line_from_a_task_too(prepared, ray_session, monkeypatch, tmp_path):
    monkeypatch.setattr(sharing, "_DRIVER_BYTES", -1)
    for file in tmp_path.rglob("train*.parquet"):
        file.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"train.*\.parquet: damaged"):
        share_split(prepared, "train", in_store=True)
