"""Workers of a cluster that count no batches: they hang and are ended, or their nodes are lost."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from rnntune.cluster.worker_process import kill_workers
from rnntune.training.watchdog import hang_message
from rnntune.training.worker import BEATS, OUTCOME, PROCESSES

__all__ = ["WorkerWatch"]
_TICK_S = 2.0
_SAID_AFTER_S, _SAID_EVERY_S = 10.0, 30.0


class _Readable(Protocol):
    def read(self) -> dict[str, Any]:
        """The latest values."""


class WorkerWatch:
    """A thread that kills workers which count no batches any more; a context manager.

    Ray Train then starts again from the last checkpoint, as often as `train.max_failures` says.
    Workers that wait for each other all count as hanging, and one that is stopped cannot end
    itself: so the driver ends them all. Where no worker lives, the cluster is at work on that.

    Args:
        channel: of the workers.
        timeout_s: seconds without a batch; 0: nothing is watched.
        tell: called with a line when workers are killed, and now and then while they cannot start.
        missing: gives a line if the cluster has lost the room for them, of the seconds waited.
    """

    def __init__(
        self,
        channel: _Readable,
        timeout_s: float,
        tell: Callable[[str], None],
        missing: Callable[[float], str | None] = lambda _: None,
    ) -> None:
        self._channel, self._timeout_s, self._tell = channel, timeout_s, tell
        self._missing = missing
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.num_hangs = 0

    def __enter__(self) -> "WorkerWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_TICK_S)

    def _watch(self) -> None:
        tick_s = min(_TICK_S, self._timeout_s / 4 or _TICK_S)
        silent_s, said_s, seen = 0.0, 0.0, None
        while not self._ended.wait(tick_s):
            values = self._channel.read()
            beats = (values.get(BEATS), self._processes(values))
            silent_s = silent_s + tick_s if beats == seen else 0.0
            seen = beats
            said_s = self._say_what_is_missing(silent_s, said_s)
            if not self._timeout_s or silent_s < self._timeout_s or values.get(OUTCOME) is not None:
                continue
            silent_s = 0.0
            self.num_hangs += 1  # before training fails by it
            if kill_workers(self._processes(values)):
                self._tell(f"{hang_message(self._timeout_s)}: its workers are ended")
            else:
                self.num_hangs -= 1

    def _say_what_is_missing(self, silent_s: float, said_s: float) -> float:
        """Say it if it is time to; gives the seconds of silence at which it was last said."""
        if not silent_s:
            return 0.0
        due = said_s + _SAID_EVERY_S if said_s else _SAID_AFTER_S
        if silent_s < due or (line := self._missing(silent_s)) is None:
            return said_s
        self._tell(line)
        return silent_s

    @staticmethod
    def _processes(values: dict[str, Any]) -> list[Any]:
        return [value for key, value in values.items() if key.startswith(PROCESSES)]
