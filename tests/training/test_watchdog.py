"""Training that hangs is noticed and ended, with a line that says so."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rnntune.data import loader
from rnntune.errors import RunError
from rnntune.training import watchdog
from rnntune.training.api import train
from rnntune.training.loop import _Run
from rnntune.training.recovery import CheckpointStore
from rnntune.training.watchdog import Heartbeat, Watchdog, end_where_it_hangs

HUNG = r"training hangs: no batch for 0\.4 s \(train\.hang_timeout_s\); go on"


def hang():
    """Wait for a lock that nobody gives back, as native code would do it."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def test_beats_keep_the_dog_asleep():
    hung = []
    heartbeat = Heartbeat()
    with Watchdog(heartbeat, 0.4, lambda: hung.append(1)):
        for _ in heartbeat.follow(range(8)):
            time.sleep(0.1)
        assert not hung
        time.sleep(0.8)
    assert hung == [1]


def test_a_stopped_process_does_not_hang():
    """Time that passes while nothing runs does not count."""
    code = (
        "import os, signal, time; from rnntune.training.watchdog import *\n"
        "with end_where_it_hangs(Heartbeat(), 1.5, 'x'):\n"
        "    print('begun', flush=True); time.sleep(0.8)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    process.stdout.readline()
    process.send_signal(19)
    time.sleep(2)
    process.send_signal(18)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_nothing_is_watched_without_a_timeout():
    with end_where_it_hangs(Heartbeat(), 0, "x"):
        time.sleep(0.2)


def test_a_hanging_wait_is_interrupted():
    with pytest.raises(RunError, match=HUNG), end_where_it_hangs(Heartbeat(), 0.4, "go on"):
        time.sleep(20)


def test_another_thread_is_interrupted_between_two_lines():
    raised = []

    def run():
        try:
            with end_where_it_hangs(Heartbeat(), 0.4, "go on"):
                while True:
                    time.sleep(0.05)
        except RunError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert len(raised) == 1


def test_ctrl_c_stays_ctrl_c():
    with pytest.raises(KeyboardInterrupt), end_where_it_hangs(Heartbeat(), 5, "x"):
        raise KeyboardInterrupt


def test_native_code_takes_the_process_with_it():
    code = (
        "import ctypes; from rnntune.training import watchdog\n"
        "watchdog._GRACE_S = 0.2\n"
        "mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)\n"
        "with watchdog.end_where_it_hangs(watchdog.Heartbeat(), 0.4, 'go on'):\n"
        "    while True: libc.pthread_mutex_lock(mutex)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.match(f"rnntune: {HUNG}\n$", done.stderr)


@pytest.fixture
def local(monkeypatch):
    monkeypatch.setattr("rnntune.training.api.runs_locally", lambda _: True)
    monkeypatch.setattr(watchdog, "_GRACE_S", 0.5)


def test_a_training_that_hangs_ends_and_goes_on(tiny, local, monkeypatch):
    config = tiny(train__checkpoint_every_steps=5)
    dogs, enter, step = [], Watchdog.__enter__, _Run._step
    monkeypatch.setattr(Watchdog, "__enter__", lambda self: (dogs.append(self), enter(self))[1])

    def hanging(self, batch):
        if self.state.step == 12:
            dogs[0]._timeout_s = 1.0  # before, a busy machine may take its time
            time.sleep(60)
        step(self, batch)

    monkeypatch.setattr(_Run, "_step", hanging)
    with pytest.raises(RunError, match=rf"hangs.*; go on later with --resume {config.output}"):
        train(config)
    assert CheckpointStore(f"{config.output}/checkpoints").names()[-1] == "checkpoint_000000010"
    monkeypatch.setattr(_Run, "_step", step)
    assert train(config, resume=True).result["epochs"] == 1


def test_steps_and_scored_batches_count(tiny, local, monkeypatch):
    """So neither a long epoch nor a long evaluation hangs."""
    beats, scored, stepped = [], [], []
    beat, collate, step = Heartbeat.beat, loader.collate, _Run._step
    monkeypatch.setattr(Heartbeat, "beat", lambda self: (beats.append(1), beat(self)))
    monkeypatch.setattr(loader, "collate", lambda *a: (scored.append(1), collate(*a))[1])
    monkeypatch.setattr(_Run, "_step", lambda self, b: (stepped.append(1), step(self, b))[1])
    train(tiny())
    assert scored
    assert stepped
    assert len(beats) == len(scored) + len(stepped)
