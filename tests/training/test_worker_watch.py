"""Workers of a cluster that hang are ended by the driver, as often as they may fail."""

import os
import signal
import time

import pytest
import ray
from clusters import wait_until

from rnntune.cluster.worker_process import WorkerProcess, kill_workers
from rnntune.console import Terminal
from rnntune.training import worker_watch
from rnntune.training.api import train
from rnntune.training.ray_trainer import KeyValueChannel
from rnntune.training.worker import BEATS, OUTCOME, PROCESSES
from rnntune.training.worker_watch import WorkerWatch


class Channel:
    """A channel whose workers count batches, or hang."""

    def __init__(self, **values):
        self.values = values
        self.counts = True

    def read(self):
        if self.counts:
            self.values[BEATS] = self.values.get(BEATS, 0) + 1
        return dict(self.values)


@pytest.fixture
def killed(monkeypatch):
    calls = []
    monkeypatch.setattr(worker_watch, "kill_workers", lambda p: (calls.append(p), len(p))[1])
    return calls


def test_workers_that_count_no_more_are_killed(killed):
    channel, lines = Channel(**{f"{PROCESSES}0": "a", f"{PROCESSES}1": "b"}), []
    with WorkerWatch(channel, 0.4, lines.append) as watch:
        time.sleep(1)
        assert not killed
        channel.counts = False
        wait_until(lambda: watch.num_hangs == 2, timeout_s=10)  # the second time in a row, too
    assert killed[0] == ["a", "b"]
    assert lines[0] == (
        "training hangs: no batch for 0.4 s (train.hang_timeout_s): its workers are ended"
    )


def test_lost_nodes_are_said_now_and_then_while_no_batch_comes(monkeypatch):
    monkeypatch.setattr(worker_watch, "_TICK_S", 0.02)
    monkeypatch.setattr(worker_watch, "_SAID_AFTER_S", 0.1)
    monkeypatch.setattr(worker_watch, "_SAID_EVERY_S", 0.2)
    channel, lines, room = Channel(), [], [None]

    def missing(waited_s):
        return room[0] and f"{room[0]} {waited_s:.2f}"

    with WorkerWatch(channel, 0, lines.append, missing):
        room[0] = "lost"
        time.sleep(0.3)
        assert lines == []  # batches come
        channel.counts = False
        wait_until(lambda: len(lines) == 2, timeout_s=10)
        channel.counts = True
        time.sleep(0.3)
        assert len(lines) == 2
        channel.counts, room[0] = False, None  # all nodes are there, and the workers are slow
        time.sleep(0.3)
        assert len(lines) == 2
        room[0] = "lost"
        wait_until(lambda: len(lines) == 3, timeout_s=10)
    waited = [float(line.split()[1]) for line in lines]
    assert waited[0] < 0.2 <= waited[1]


def test_neither_a_cluster_without_room_nor_the_end_is_a_hang(killed):
    waiting = Channel()
    waiting.counts = False
    ended = Channel(**{f"{PROCESSES}0": "a", OUTCOME: "done"})
    ended.counts = False
    with WorkerWatch(waiting, 0.2, print) as one, WorkerWatch(ended, 0.2, print) as other:
        time.sleep(0.8)
    assert one.num_hangs == other.num_hangs == 0
    assert all(processes == [] for processes in killed)


@pytest.mark.ray
def test_a_stopped_process_is_killed_once(ray_session):
    class Sleeper:  # here, so that it travels to its process as it is
        def process(self):
            return WorkerProcess.this_process()

    sleeper = ray.remote(Sleeper).options(num_cpus=0).remote()
    process = ray.get(sleeper.process.remote())
    os.kill(process.pid, signal.SIGSTOP)
    assert kill_workers([process]) == 1
    wait_until(lambda: kill_workers([process]) == 0, timeout_s=10)
    lost = WorkerProcess(node="0" * 56, pid=process.pid, started=process.started)
    assert kill_workers([lost]) == 0


class Stopping(Terminal):
    """Stops the worker at the first sight of progress, as often as said."""

    def __init__(self, channel, times):
        super().__init__(silent=True)
        self.lines = []
        self._channel, self._times = channel, times

    def training(self, _):
        if self._times:
            self._times -= 1
            os.kill(self._channel[0].read()[f"{PROCESSES}0"].pid, signal.SIGSTOP)

    def line(self, text):
        self.lines.append(text)


@pytest.mark.ray
@pytest.mark.slow
def test_a_stopped_worker_starts_again(ray_session, tiny, monkeypatch):
    channels = []

    class Noted(KeyValueChannel):
        def __init__(self):
            super().__init__()
            channels.append(self)

    monkeypatch.setattr("rnntune.training.ray_trainer.KeyValueChannel", Noted)
    config = tiny(
        batching__batch_rows=8,
        train__hang_timeout_s=10,
        train__checkpoint_every_steps=50,
        train__max_failures=1,
    )
    terminal = Stopping(channels, 1)
    assert train(config, terminal=terminal).result["epochs"] == 1
    said = "training hangs: no batch for 10 s (train.hang_timeout_s): its workers are ended"
    assert terminal.lines.count(said) == 1
