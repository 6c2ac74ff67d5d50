"""Which process works on something: what it writes of itself, and whether it still lives."""

import dataclasses
import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from rnntune import storage
from rnntune.cluster.ray_internals import submission_id
from rnntune.errors import StorageError

__all__ = ["LAPSE_S", "Owner", "hold", "is_abandoned", "let_go", "start_ticks"]
LAPSE_S = 60.0
"""Seconds without a renewal after which an owner on another machine counts as dead."""
_held: set[str] = set()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that works on a run.

    Args:
        nonce: drawn anew for every claim.
        host: its machine's name, for people.
        machine: its boot and its table of processes; empty where the system does not tell.
        pid: its process.
        started: when that process started, in the machine's ticks: pids are used again.
        job: its submission id, if it is a job of a Ray cluster.
        since: when it claimed the run, in seconds since 1970.
        renewed: when it last renewed its claim.
    """

    nonce: str
    host: str
    machine: str
    pid: int
    started: int
    job: str | None
    since: float
    renewed: float

    @classmethod
    def this_process(cls) -> "Owner":
        """A claim of this process."""
        now = time.time()
        return cls(
            nonce=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=start_ticks(os.getpid()) or 0,
            job=submission_id(),
            since=now,
            renewed=now,
        )

    @classmethod
    def parse(cls, content: Any) -> "Owner | None":
        """The owner that a run's marker names; None if it names none."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(content, dict) or not set(names) <= set(content):
            return None
        texts = ("nonce", "host", "machine")
        numbers = ("pid", "started", "since", "renewed")
        is_ours = all(isinstance(content[name], str) for name in texts)
        is_ours = is_ours and all(isinstance(content[name], int | float) for name in numbers)
        if not is_ours or not all(0 <= content[name] < 1e11 for name in numbers):
            return None
        return cls(**{name: content[name] for name in names})

    def to_json(self) -> str:
        """The note of an owner, which `parse` reads."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell if its process lives."""
        return bool(self.machine) and self.machine == _machine()

    def is_living(self) -> bool:
        """Whether it still works, as far as can be told from here."""
        if self.is_here:
            if self.pid == os.getpid() and self.started == start_ticks(self.pid):
                return self.nonce in _held
            return self.started == start_ticks(self.pid)
        return time.time() - self.renewed < LAPSE_S

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        who = f"process {self.pid} on {self.host}"
        return f"{f'job {self.job}, ' if self.job else ''}{who}, since {since}"


def hold(owner: Owner) -> None:
    """Note that this process still works on what it claimed."""
    _held.add(owner.nonce)


def let_go(owner: Owner) -> None:
    """Note that it does not any more."""
    _held.discard(owner.nonce)


def is_abandoned(uri: str, after_s: float = 86_400.0) -> bool:
    """Whether the process that a file names as its owner is gone.

    Args:
        uri: a file with the owner that nobody renews.
        after_s: age after which an owner on another machine counts as gone.

    Returns:
        False, too, where there is no such file.
    """
    try:
        owner = Owner.parse(json.loads(storage.read_text(uri)))
    except (StorageError, ValueError):
        return False
    if owner is None:
        return False
    return not owner.is_living() if owner.is_here else time.time() - owner.renewed > after_s


def _machine() -> str:
    """What makes a pid mean one process: this boot of the system and its table of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """When a process started; None if it is gone or waits to be buried.

    Source: `man 5 proc_pid_stat`, fields 3 and 22; the name before them may hold anything.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
