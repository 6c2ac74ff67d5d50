import os
import shutil
from pathlib import Path

import pytest
import torch

from rnntune.errors import RunError, StorageError
from rnntune.training.checkpoint import Snapshot, State, load_snapshot
from rnntune.training.recovery import CheckpointStore, check_checkpoints, read_checkpoint


def snapshot(step: int) -> Snapshot:
    return Snapshot(
        state=State(epoch=1, step=step),
        model={"weight": torch.tensor([float(step)])},
        optimizer={},
        best=None,
        identity={"data": "a"},
    )


@pytest.fixture
def store(tmp_path):
    """The checkpoints of a run, two of them."""
    store = CheckpointStore(str(tmp_path / "checkpoints"), keep=2)
    for step in (3, 7):
        store.save(snapshot(step))
    return store


def inside(store, *names):
    return Path(store.uri, *names)


def listed(store):
    return sorted(path.name for path in Path(store.uri).iterdir())


def test_a_run_without_checkpoints(tmp_path):
    check_checkpoints(str(tmp_path))
    assert CheckpointStore(str(tmp_path / "checkpoints")).latest() is None


def test_the_newest_few_are_kept(store):
    assert store.names() == ["checkpoint_000000003", "checkpoint_000000007"]
    store.save(snapshot(1000))
    assert store.names() == ["checkpoint_000000007", "checkpoint_000001000"]
    assert listed(store) == store.names()


def test_the_latest_is_read_back(store):
    found = read_checkpoint(store.latest(), {"data": "a"})
    assert found.state.step == 7
    assert found.model["weight"].tolist() == [7.0]
    with pytest.raises(RunError, match="checkpoint of another run"):
        read_checkpoint(store.latest(), {"data": "b"})


def test_a_step_is_written_again(store):
    store.save(snapshot(7))
    assert read_checkpoint(store.latest(), {}).state.step == 7
    assert len(store.names()) == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(store, tmp_path):
    os.truncate(inside(store, "checkpoint_000000007", "model.safetensors"), 4)
    lines = []
    check_checkpoints(str(tmp_path), lines.append)
    (line,) = lines
    assert "truncated checkpoint, 4 of" in line
    assert line.endswith("; going on from the one before, of step 3")
    assert listed(store) == ["checkpoint_000000003"]


def test_those_of_a_second_training_are_checked_as_well(store, tmp_path):
    second = CheckpointStore(f"{store.uri}/refit", keep=2)
    for step in (2, 4):
        second.save(snapshot(step))
    os.truncate(inside(second, "checkpoint_000000004", "model.safetensors"), 4)
    check_checkpoints(str(tmp_path))
    assert second.names() == ["checkpoint_000000002"]
    assert len(store.names()) == 2


def test_without_a_whole_checkpoint_the_latest_is_refused(store, tmp_path):
    os.truncate(inside(store, "checkpoint_000000003", "state.json"), 4)
    os.truncate(inside(store, "checkpoint_000000007", "model.safetensors"), 4)
    with pytest.raises(RunError, match=r"000000007.*truncated checkpoint, 4 of"):
        check_checkpoints(str(tmp_path))
    assert len(listed(store)) == 2


@pytest.mark.parametrize(
    "content",
    [
        '{"version": 2}',
        '{"version": 2, "files": {"x": 3}, "state": {}, "identity": {}}',
        '{"version": 2, "files": {}, "state": {"elapsed": 3}, "identity": {}}',
        '{"version": 2, "files": {}, "state": [], "identity": null}',
    ],
)
def test_a_state_of_another_form(tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(RunError, match="not a checkpoint"):
        load_snapshot(tmp_path, {})


def test_an_old_checkpoint_that_cannot_be_deleted_costs_no_training(store, monkeypatch):
    def fail(uri):
        raise StorageError(f"{uri}: the disk is asleep")

    with monkeypatch.context() as patch:
        patch.setattr("rnntune.storage.delete", fail)
        store.save(snapshot(9))
    store.save(snapshot(11))
    assert listed(store) == ["checkpoint_000000009", "checkpoint_000000011"]


def test_one_that_a_kill_cut_off_never_happened(store, tmp_path):
    inside(store, "checkpoint_000000007", "state.json").unlink()  # remote storage: it comes last
    shutil.copytree(inside(store, "checkpoint_000000003"), inside(store, ".checkpoint_9.part"))
    check_checkpoints(str(tmp_path))
    assert store.names() == ["checkpoint_000000003"]
    assert not inside(store, ".checkpoint_9.part").exists()


def test_what_cannot_be_written_leaves_nothing(store, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("rnntune.training.checkpoint.save_file", full)
    with pytest.raises(StorageError, match=r"no checkpoint in .*: No space left on device"):
        store.save(snapshot(9))
    assert listed(store) == ["checkpoint_000000003", "checkpoint_000000007"]


def test_clear_takes_all_away(store):
    inside(store, "log.txt").write_text("kept")
    store.clear()
    assert listed(store) == ["log.txt"]
