"""What a stopped run can go on from: the note that Ray Train keeps of its checkpoints.

Ray Train writes the note over itself, so a full disk or a killed process can leave it cut off
while the checkpoints that it named are whole. It is then made anew from those.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from rnntune import storage
from rnntune.checkpoint import verify
from rnntune.errors import RunError

__all__ = ["CHECKPOINTS", "check_checkpoints"]

CHECKPOINTS = "checkpoints"
"""Name of the folder of a run's checkpoints."""

_NOTE = "checkpoint_manager_snapshot.json"


def check_checkpoints(place: str) -> None:
    """Make sure that a run can go on from its latest checkpoint, or has none.

    Args:
        place: the run folder.

    Raises:
        RunError: the latest checkpoint is gone, truncated or damaged.
    """
    note = storage.join(place, CHECKPOINTS, _NOTE)
    if not storage.exists(note):
        return
    try:
        latest = json.loads(storage.read_bytes(note))["latest_checkpoint_result"]
        name = latest["checkpoint_dir_name"] if latest else None
    except (ValueError, KeyError, TypeError):
        _write_anew(place, note)
        return
    if name is not None:
        _verified(place, name)


def _verified(place: str, name: str) -> dict[str, Any]:
    folder = storage.join(place, CHECKPOINTS, name)
    if not storage.exists(folder):
        raise RunError(f"{folder}: the latest checkpoint is gone; the run cannot be resumed")
    with tempfile.TemporaryDirectory() as aside:
        return verify(Path(storage.local_copy(folder, aside)))


def _write_anew(place: str, note: str) -> None:
    import ray

    for name in reversed(storage.list_folder(storage.join(place, CHECKPOINTS))):
        if not name.startswith("checkpoint_2"):
            continue
        try:
            state = _verified(place, name)["state"]
        except RunError:
            continue
        metrics = {"epoch": state["epoch"] + 1, "step": state["step"]}
        found = {"version": 0, "checkpoint_dir_name": name, "metrics": metrics}
        content = {
            "ray_version": ray.__version__,
            "checkpoint_results": [found],
            "checkpoint_report_indices": [0],
            "latest_checkpoint_result": found,
            "pending_training_results": [],
            "pending_validation_specs": [],
            "current_report_index": 1,
            "validated_checkpoint_dir_names": [],
            "timed_out_validation_checkpoint_dir_names": [],
            "failed_validation_checkpoint_dir_names": [],
        }
        storage.write_text(note, json.dumps(content))
        return
    storage.delete(note)
