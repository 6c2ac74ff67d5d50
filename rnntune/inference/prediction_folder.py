"""The folder that prediction leaves: written aside where it can be moved, marked when complete.

It holds `part-<file>-<row>.<form>` and, written last, `_complete.json`; nothing else is ever
deleted from it.
"""

import contextlib
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnntune import storage
from rnntune.cluster.owner import Owner, hold, is_abandoned, let_go
from rnntune.cluster.shared_storage import PROBE_PREFIX
from rnntune.errors import RunError, StorageError
from rnntune.location import Location
from rnntune.training.run_folder import refuse_inside

__all__ = ["PredictionFolder"]
_MARKER = "_complete.json"
_OWNER = "_owner.json"
_UNOWNED_S = 60.0
_PART = re.compile(r"part-\d{5,}-\d{12,}\.(parquet|jsonl|csv)")


def _has_no_owner(folder: Path) -> bool:
    """Whether a folder was begun by a process that was killed before it could note itself."""
    with contextlib.suppress(OSError):
        is_old = time.time() - folder.stat().st_mtime > _UNOWNED_S
        return is_old and not (folder / _OWNER).exists()
    return False


class PredictionFolder:
    """Where predictions go.

    Args:
        output: folder or URI.
        reads: files and folders that prediction reads.
        overwrite: replace predictions that are there.

    Raises:
        RunError: it holds what prediction reads or the working directory, or something is there.
    """

    def __init__(self, output: str, reads: Sequence[str], *, overwrite: bool) -> None:
        location = Location.parse(output).absolute()
        self.uri = str(location)
        self._remote = location.is_remote
        self._begun = False
        self._owner = Owner.this_process()
        refuse_inside(self.uri, reads, "holds what is read,")
        if overwrite:
            refuse_inside(self.uri, [str(Path.cwd())], "is or holds the working directory")
        if self._ours() and not overwrite:
            raise RunError(f"{self.uri}: predictions are there already; use --overwrite")
        self.aside = self.uri if self._remote else f"{self.uri}.{uuid.uuid4().hex[:8]}.part"

    def _ours(self) -> list[str]:
        names = storage.list_folder(self.uri)
        names = [name for name in names if not name.startswith(PROBE_PREFIX)]
        if any(name not in (_MARKER, _OWNER) and not _PART.fullmatch(name) for name in names):
            raise RunError(f"{self.uri}: this folder is not empty and holds no predictions")
        return names

    def begin(self) -> None:
        """Make room for the files, now that nothing stands in their way.

        Where files cannot be moved, older predictions go now, else when the new ones are whole.
        """
        self._begun = True
        if self._remote:
            self._delete_ours()
            return
        for killed in Path(self.uri).parent.glob(f"{Path(self.uri).name}.????????.part"):
            if is_abandoned(f"{killed}/{_OWNER}") or _has_no_owner(killed):
                storage.delete(str(killed))
        hold(self._owner)
        text = self._owner.to_json()
        storage.write_text(storage.join(self.aside, _OWNER), text)

    def _delete_ours(self) -> None:
        names = self._ours()
        for name in sorted(names, key=lambda name: name != _MARKER):  # the marker goes first
            storage.delete(storage.join(self.uri, name))

    def verify(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Make sure that every file that was written is there as it was written.

        Args:
            parts: `name` and `num_bytes` of each.

        Raises:
            RunError: one is missing or cut off.
        """
        sizes = storage.file_sizes(self.aside)
        lost = [part["name"] for part in parts if sizes.get(part["name"]) != part["num_bytes"]]
        if lost:
            raise RunError(
                f"{self.uri}: {len(lost)} of {len(parts)} files are missing or cut off here, first "
                f"{lost[0]}; all nodes need the same storage"
            )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the predictions as complete and move them into place.

        Raises:
            RunError: something else came into the folder meanwhile.
        StorageError: a file cannot be written, or the folder not be moved.
        """
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        storage.write_text(storage.join(self.aside, _MARKER), text + "\n")
        if self._remote:
            return
        self._delete_ours()
        storage.delete(self.uri)
        try:  # with its owner: a part without one is swept by nobody
            Path(self.aside).rename(self.uri)
        except OSError as error:
            raise StorageError(f"{self.uri}: {StorageError.reason(error)}") from error
        let_go(self._owner)
        with contextlib.suppress(StorageError):
            storage.delete(storage.join(self.uri, _OWNER))

    def abandon(self) -> None:
        """Take away what was written."""
        let_go(self._owner)
        with contextlib.suppress(RunError, StorageError):
            if self._remote and self._begun:
                self._delete_ours()
            elif not self._remote:
                storage.delete(self.aside)
