import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rnntune.cluster.owner import Owner
from rnntune.errors import RunError
from rnntune.training import lease
from rnntune.training.lease import Lease

HOLD = """
import sys, time
from rnntune.training.lease import Lease
held = Lease("run", sys.argv[1], {"kind": "train"})
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "run.json"


def owner_of(marker):
    return Owner.parse(json.loads(marker.read_text())["owner"])


def left(marker, **changes):
    """Leave the claim of another process behind."""
    owner = dataclasses.replace(Owner.this_process(), **changes)
    marker.write_text(json.dumps({"owner": dataclasses.asdict(owner)}))
    return owner


def claimed(marker):
    return Lease("the run", str(marker), {"kind": "train"})


def until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_is_killed_gives_way_at_once(marker):
    command = [sys.executable, "-c", HOLD, str(marker)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"the run: in use by process {process.pid} on "):
            claimed(marker)
        os.kill(process.pid, signal.SIGSTOP)  # a process that sleeps is not dead
        with pytest.raises(RunError, match="in use by"):
            claimed(marker)
        process.kill()
        until(lambda: not owner_of(marker).is_living())
        claimed(marker).release()
    finally:
        process.kill()
        process.communicate()


def test_a_pid_that_is_used_again_is_another_process(marker):
    left(marker, pid=os.getppid(), started=1)
    claimed(marker).release()


@pytest.mark.parametrize("age_s", [0, 50])
def test_an_owner_on_another_machine_lives_until_its_lease_lapses(marker, age_s):
    left(marker, machine="other", host="node-7", job="raysubmit_1", renewed=time.time() - age_s)
    with pytest.raises(RunError, match=r"in use by job raysubmit_1, process .* on node-7, since"):
        claimed(marker)


def test_a_lapsed_lease_is_taken_over_when_nobody_renews_it(marker, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.2)
    left(marker, machine="other", renewed=time.time() - 61)
    start = time.monotonic()
    held = claimed(marker)
    assert time.monotonic() - start > 0.2
    assert owner_of(marker).machine != "other"
    held.release()


def test_an_owner_whose_clock_is_slow_is_alive(marker, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.4)
    owner = left(marker, machine="other", renewed=time.time() - 61)
    renewal = threading.Timer(
        0.2, lambda: left(marker, **dataclasses.asdict(owner) | {"renewed": owner.renewed + 1})
    )
    renewal.start()
    with pytest.raises(RunError, match="in use by"):
        claimed(marker)
    renewal.join()


def test_a_claim_is_renewed_and_notices_that_it_was_lost(marker, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    held = claimed(marker)
    first = owner_of(marker).renewed
    until(lambda: owner_of(marker).renewed > first)
    held.check()
    left(marker, host="node-8")

    def lost():
        try:
            held.check()
        except RunError as error:
            return "taken over by process" in str(error) and "on node-8" in str(error)
        return False

    until(lost)
    held.release()
    assert owner_of(marker).host == "node-8"


def test_of_two_claims_at_the_same_moment_one_is_refused(marker, monkeypatch):
    monkeypatch.setitem(lease.SETTLE_S, False, 0.3)
    later = threading.Timer(0.1, lambda: left(marker, host="node-9"))
    later.start()
    with pytest.raises(RunError, match=r"claimed by .* on node-9.* at the same moment"):
        claimed(marker)
    later.join()


def test_storage_that_fails_for_a_while_does_not_end_a_claim(marker, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    held = claimed(marker)
    with monkeypatch.context() as patch:

        def fail(*_):
            raise lease.StorageError("the disk is asleep")

        patch.setattr(lease.storage, "read_text", fail)
        time.sleep(0.2)
    held.check()
    first = owner_of(marker).renewed
    until(lambda: owner_of(marker).renewed > first)
    held.release()
    assert json.loads(marker.read_text()) == {"kind": "train", "owner": None}
