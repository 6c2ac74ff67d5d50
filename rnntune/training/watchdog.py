"""Notices training that hangs: a loop counts its batches, and a thread watches the count.

What hangs is not always slow Python: a lock, a reduction that waits for a peer, storage that never
answers. So the watching thread first interrupts the one that trains, as Ctrl-C would, and ends
the process where that does not help.
"""

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rnntune.errors import RunError

__all__ = ["Heartbeat", "Watchdog", "end_where_it_hangs", "hang_message"]
_TICK_S = 1.0
_GRACE_S = 5.0
_Item = TypeVar("_Item")


def hang_message(timeout_s: float) -> str:
    """What is said of training that hangs."""
    return f"training hangs: no batch for {timeout_s:g} s (train.hang_timeout_s)"


class Heartbeat:
    """Counts the batches of a loop, whatever it does with them.

    Args:
        on_beat: called with the count, at most once a second.
    """

    def __init__(self, on_beat: Callable[[int], None] | None = None) -> None:
        self.count = 0
        self._on_beat = on_beat
        self._told = 0.0

    def beat(self) -> None:
        """Count one."""
        self.count += 1
        if self._on_beat is not None and (now := time.monotonic()) - self._told >= _TICK_S:
            self._told = now
            self._on_beat(self.count)

    def follow(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The items; each counts when it is taken."""
        for item in items:
            self.beat()
            yield item


class Watchdog:
    """A thread that calls somebody when a heartbeat stops; a context manager.

    It counts its own ticks and does not read the clock: a process that was stopped or a machine
    that slept does not hang.

    Args:
        heartbeat: what is watched.
        timeout_s: seconds without a beat; 0: nothing is watched.
        on_hang: called once, in the thread.
    """

    def __init__(self, heartbeat: Heartbeat, timeout_s: float, on_hang: Callable[[], None]) -> None:
        self._heartbeat, self._timeout_s, self._on_hang = heartbeat, timeout_s, on_hang
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._timeout_s:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        tick_s = min(_TICK_S, self._timeout_s / 4)
        silent_s, seen = 0.0, self._heartbeat.count
        while not self._ended.wait(tick_s):
            silent_s = silent_s + tick_s if self._heartbeat.count == seen else 0.0
            seen = self._heartbeat.count
            if silent_s >= self._timeout_s:
                self._on_hang()
                return


def _interrupt(thread: threading.Thread) -> None:
    """Press Ctrl-C for a thread; signals reach the main one alone, the others between two lines.

    Source: https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc
    """
    ident = thread.ident or 0
    if thread is threading.main_thread():
        signal.pthread_kill(ident, signal.SIGINT)
        return
    interrupt = ctypes.py_object(KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), interrupt)


@contextlib.contextmanager
def end_where_it_hangs(heartbeat: Heartbeat, timeout_s: float, advice: str) -> Iterator[None]:
    """End what this thread does within if it hangs; its last checkpoint stays.

    The thread is interrupted as by Ctrl-C. Native code that does not let itself be interrupted
    takes the process with it, with status 2 and the same line.

    Args:
        heartbeat: of what is done.
        timeout_s: seconds without a beat; 0: never.
        advice: how to go on, for the message.

    Raises:
        RunError: it hung.
    """
    message = f"{hang_message(timeout_s)}; {advice}"
    thread = threading.current_thread()
    left, hung = threading.Event(), threading.Event()

    def on_hang() -> None:
        hung.set()
        for _ in range(2):  # the first asks the loop to stop, the second interrupts it
            _interrupt(thread)
            if left.wait(_GRACE_S):
                return
        os.write(2, f"rnntune: {message}\n".encode())
        os._exit(2)

    try:
        with Watchdog(heartbeat, timeout_s, on_hang):
            yield
    except KeyboardInterrupt:
        if hung.is_set():
            raise RunError(message) from None
        raise
    finally:
        left.set()
