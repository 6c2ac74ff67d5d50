"""What a worker tells the driver."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from rnntune.config.load import Config
from rnntune.errors import RunError, StorageError
from rnntune.training import worker
from rnntune.training.worker import EPOCHS, PROGRESS, TrainingWorker, WorkerJob, run_worker


class Mailbox:
    """A channel without an actor."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def put(self, key: str, value: Any, *, wait: bool = False) -> None:  # noqa: ARG002
        self.values[key] = value


def job_of(checkpoints: str) -> WorkerJob:
    return WorkerJob(config=Config(), feed=None, checkpoints=checkpoints, channel=Mailbox())


@pytest.mark.parametrize(
    ("mistake", "is_tried_again"),
    [(RunError("a truncated checkpoint"), False), (StorageError("s3://b: 503"), True)],
)
def test_a_users_mistake_is_reported(monkeypatch, mistake, is_tried_again):
    def broken(job):
        raise mistake

    monkeypatch.setattr(worker, "_ray_worker", broken)
    job = job_of("")
    with pytest.raises(StorageError) if is_tried_again else nullcontext():
        run_worker({"job": job})
    assert job.channel.values == {"failure": mistake}


def event(kind: str, epoch: int = 1) -> SimpleNamespace:
    state = SimpleNamespace(step=epoch, history=[{"epoch": n + 1} for n in range(epoch)])
    metrics = {"epoch": epoch, "rows": 8}
    return SimpleNamespace(
        kind=kind, metrics=metrics, snapshot=lambda: SimpleNamespace(state=state)
    )


@pytest.fixture
def make_worker(tmp_path):
    def make(rank: int):
        saved = []
        job = job_of(str(tmp_path))
        made = TrainingWorker(job, device=None, num_cpus=1, rank=rank, world_size=2)
        made.store = SimpleNamespace(save=saved.append)
        made.threads = SimpleNamespace(on_progress=lambda _: None)
        return made, job.channel.values, saved

    return make


def test_rank_0_reports_and_saves(make_worker):
    made, values, saved = make_worker(0)
    made._report(event("progress"))
    made._report(event("progress"))
    assert values[PROGRESS].number == 2
    assert not saved
    made._report(event("checkpoint"))
    assert len(saved) == 1
    assert EPOCHS not in values
    made.num_resumed = 1
    made._report(event("epoch", 2))
    assert [epoch["epoch"] for epoch in values[EPOCHS].history] == [1, 2]
    assert values[EPOCHS].num_resumed == 1
    assert len(saved) == 2


def test_an_epoch_is_reported_only_when_it_is_saved(make_worker):
    made, values, _ = make_worker(0)

    def full(snapshot):
        raise StorageError("No space left on device")

    made.store = SimpleNamespace(save=full)
    with pytest.raises(StorageError):
        made._report(event("epoch"))
    assert EPOCHS not in values


def test_other_ranks_leave_that_to_rank_0(make_worker):
    made, values, saved = make_worker(1)
    for kind in ("progress", "checkpoint", "epoch"):
        made._report(event(kind))
    assert not saved
    assert not values
