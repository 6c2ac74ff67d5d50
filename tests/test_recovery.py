import json
import os

import pytest
import ray
from ray.train.v2._internal.execution.checkpoint import checkpoint_manager

from rnntune.checkpoint import Snapshot, State, save_snapshot
from rnntune.errors import RunError
from rnntune.recovery import check_checkpoints

OLD, NEW = "checkpoint_2026-01-01_10-00-00.000001", "checkpoint_2026-01-01_10-00-00.000002"


@pytest.fixture
def run(tmp_path):
    """A run folder with two checkpoints and Ray Train's note of them."""
    for step, name in ((3, OLD), (7, NEW)):
        state = State(epoch=1, step=step)
        snapshot = Snapshot(state=state, model={}, optimizer={}, best=None, identity={})
        save_snapshot(tmp_path / "checkpoints" / name, snapshot)
    note = {"latest_checkpoint_result": {"checkpoint_dir_name": NEW}}
    note_of(tmp_path).write_text(json.dumps(note))
    return tmp_path


def note_of(run):
    return run / "checkpoints" / "checkpoint_manager_snapshot.json"


def test_a_run_without_checkpoints(tmp_path):
    check_checkpoints(str(tmp_path))


def test_a_whole_run_is_left_as_it_is(run):
    before = note_of(run).read_text()
    check_checkpoints(str(run))
    assert note_of(run).read_text() == before


def test_a_truncated_checkpoint(run):
    file = run / "checkpoints" / NEW / "model.safetensors"
    os.truncate(file, 4)
    with pytest.raises(RunError, match="truncated checkpoint, 4 of"):
        check_checkpoints(str(run))


def test_a_checkpoint_that_is_gone(run):
    (run / "checkpoints" / NEW).rename(run / "elsewhere")
    with pytest.raises(RunError, match=f"{NEW}: the latest checkpoint is gone"):
        check_checkpoints(str(run))


@pytest.mark.parametrize("left", [0, 30])
def test_a_note_that_was_cut_off_names_the_last_whole_checkpoint(run, left):
    os.truncate(note_of(run), left)
    os.truncate(run / "checkpoints" / NEW / "state.json", 20)
    check_checkpoints(str(run))
    found = checkpoint_manager._CheckpointManagerState.model_validate_json(note_of(run).read_text())
    assert found.ray_version == ray.__version__
    assert found.latest_checkpoint_result.checkpoint_dir_name == OLD
    assert found.latest_checkpoint_result.metrics == {"epoch": 2, "step": 3}
    assert found.checkpoint_results == [found.latest_checkpoint_result]


def test_a_note_without_any_whole_checkpoint_is_taken_away(run):
    os.truncate(note_of(run), 0)
    for name in (OLD, NEW):
        os.truncate(run / "checkpoints" / name / "state.json", 20)
    check_checkpoints(str(run))
    assert not note_of(run).exists()
