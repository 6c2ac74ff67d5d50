"""Who works on a run: one process at a time, on local disks and object storage alike.

The file that marks a run names its owner, who renews it every few seconds. A dead owner's lease
is taken over: at once where its process was on this machine, else when it has lapsed. Storage
has no "write only if nobody else has", so a claim is written, left to settle and read again: of
two claims at the same moment the later write wins. What remains is a writer that stalls between
looking and writing for longer than that: the one that it pushes out notices within a renewal,
at the latest, and stops.
"""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from rnntune import storage
from rnntune.cluster.owner import LAPSE_S, Owner, hold, let_go
from rnntune.errors import RunError, StorageError
from rnntune.location import Location

__all__ = ["Lease", "refuse_living_owner"]
HEARTBEAT_S = 10.0
"""Seconds between two renewals."""
SETTLE_S = {False: 0.1, True: 1.0}
"""Seconds that a claim has to settle: on a local disk, on remote storage."""


def refuse_living_owner(uri: str, owner: Owner | None) -> None:
    """Make sure that nobody else works on a run.

    Raises:
        RunError: somebody does; the message names who.
    """
    if owner is None or not owner.is_living():
        return
    silent_s = max(0.0, time.time() - owner.renewed)
    rest = ""
    if not owner.is_here:
        rest = (
            f"; its last sign of life is {silent_s:.0f} s old, after {LAPSE_S:.0f} s without one "
            "it counts as dead"
        )
    raise RunError(f"{uri}: in use by {owner}; stop it or wait for its end{rest}")


class Lease:
    """This process's claim to a run, renewed on a thread until it is released.

    Args:
        folder: the run folder, for messages.
        uri: of the file that marks the run and names its owner.
        marker: what else that file holds.

    Raises:
        RunError: somebody else works on the run, or claimed it at the same moment.
        StorageError: the file cannot be read or written.
    """

    def __init__(self, folder: str, uri: str, marker: Mapping[str, Any]) -> None:
        self._folder, self._uri = folder, uri
        self.marker = dict(marker)
        self._owner = Owner.this_process()
        self._lost_to: Owner | None = None
        self._is_lost = False
        self._ended = threading.Event()
        self._claim()
        hold(self._owner)
        self._thread = threading.Thread(target=self._renew_until_ended, daemon=True)
        self._thread.start()

    def _claim(self) -> None:
        self._refuse_others()
        self._write()
        time.sleep(SETTLE_S[Location.parse(self._uri).is_remote])
        other = self._read()
        if other is None or other.nonce != self._owner.nonce:
            who = f"by {other} " if other else ""
            raise RunError(f"{self._folder}: claimed {who}at the same moment; try again later")

    def _refuse_others(self) -> None:
        owner = self._read()
        refuse_living_owner(self._folder, owner)
        if owner is None or owner.is_here:
            return
        # Its clock may only be slow: a living one renews its claim while we look.
        deadline = time.monotonic() + 1.5 * HEARTBEAT_S
        while time.monotonic() < deadline:
            time.sleep(min(1.0, HEARTBEAT_S / 4))
            if (now := self._read()) != owner:
                if now is not None:
                    raise RunError(f"{self._folder}: in use by {now}; stop it or wait for its end")
                return

    def _read(self) -> Owner | None:
        if not storage.exists(self._uri):
            return None
        text = storage.read_bytes(self._uri)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return Owner.parse(content.get("owner")) if isinstance(content, dict) else None

    def _write(self) -> None:
        content = {**self.marker, "owner": dataclasses.asdict(self._owner)}
        storage.write_text(self._uri, json.dumps(content, indent=1) + "\n")

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(HEARTBEAT_S) and not self._is_lost:
            with contextlib.suppress(StorageError):  # it may pass; nobody can claim it meanwhile
                self._renew()

    def _renew(self) -> None:
        other = self._read()
        if other is None or other.nonce != self._owner.nonce:
            self._lost_to, self._is_lost = other, True
            return
        self._owner = dataclasses.replace(self._owner, renewed=time.time())
        self._write()

    def check(self) -> None:
        """Make sure that the run is still ours.

        Raises:
            RunError: this process was still for so long that somebody else took the run over.
        """
        if self._is_lost:
            who = f"by {self._lost_to}" if self._lost_to else "or deleted"
            raise RunError(f"{self._folder}: taken over {who}; this process stops")

    def release(self) -> None:
        """Give the run back; what cannot be written lapses."""
        self._ended.set()
        self._thread.join()
        let_go(self._owner)
        with contextlib.suppress(StorageError):
            other = self._read()
            if other is not None and other.nonce == self._owner.nonce:
                content = {**self.marker, "owner": None}
                storage.write_text(self._uri, json.dumps(content, indent=1) + "\n")
