"""A cluster that has no room says so; every command that needs room asks in the same way."""

import re
import threading
import time

import pytest
import ray

from rnntune.cluster import waiting
from rnntune.cluster.waiting import await_room
from rnntune.data.preprocess import prepare
from rnntune.inference.evaluate import evaluate
from rnntune.inference.predict import predict_files
from rnntune.training.api import train
from rnntune.tuning.api import tune

pytestmark = pytest.mark.ray


class Holder:
    """Keeps CPUs from others."""

    def ping(self):
        return True


@pytest.fixture
def taken(ray_session):
    """A cluster both of whose CPUs somebody else holds; gives what frees them."""
    holder = ray.remote(Holder).options(num_cpus=2).remote()
    ray.get(holder.ping.remote())
    yield lambda: ray.kill(holder)
    ray.kill(holder)


def test_what_is_waited_for_is_said(taken, monkeypatch):
    monkeypatch.setattr(waiting, "_FIRST_S", 0.5)
    monkeypatch.setattr(waiting, "_EVERY_S", 1.0)
    lines = []
    thread = threading.Thread(target=await_room, args=(2, {"CPU": 1.0, "GPU": 0}, lines.append))
    begin = time.monotonic()
    thread.start()
    while len(lines) < 2:
        assert time.monotonic() - begin < 20
        time.sleep(0.1)
    taken()
    thread.join(timeout=20)
    assert not thread.is_alive()
    said = r"waiting for 2 workers with 1 CPU each: [012] of 2 CPU free; (\d+) s so far"
    waited = [int(re.fullmatch(said, line)[1]) for line in lines]
    assert waited == sorted(set(waited))


def test_nothing_is_said_and_nothing_kept_where_there_is_room(ray_session):
    lines = []
    for _ in range(3):  # what was asked for is free again
        await_room(2, {"CPU": 1.0}, lines.append)
    assert lines == []


class AskedError(Exception):
    pass


@pytest.fixture
def asks(ray_session, monkeypatch):
    """Have a module's wait for room raise what it is asked."""

    def replace(module):
        def room(workers, each, *_, **__):
            raise AskedError(workers, each["CPU"])

        monkeypatch.setattr(f"rnntune.{module}.await_room", room)

    return replace


def test_train_and_tune_wait_for_their_workers(asks, tiny, tmp_path):
    asks("training.ray_trainer")
    with pytest.raises(AskedError, match=r"\(1, 1.0\)"):
        train(tiny())
    asks("tuning.session")
    output = str(tmp_path / "search")
    with pytest.raises(AskedError, match=r"\(2, 1.0\)"):
        tune(tiny(output=output, tune__workers_per_trial=2, tune__num_trials=1))


def test_prepare_predict_and_evaluate_wait_for_a_cpu(asks, sample_run, tmp_path, tiny, monkeypatch):
    (tmp_path / "rows.csv").write_text("label,text\n" + "World,a b\nSports,c d\n" * 5)
    rows = str(tmp_path / "rows.csv")
    asks("inference.predict")
    with pytest.raises(AskedError):
        predict_files(sample_run.uri, [rows], str(tmp_path / "out"))
    asks("inference.evaluate")
    with pytest.raises(AskedError):
        evaluate(sample_run.uri, tiny(data__source=rows).data)
    asks("data.passes")
    monkeypatch.setattr("rnntune.data.passes.LOCAL_BYTES", -1)
    data = tiny(data__source=rows, data__cache_dir=str(tmp_path / "cache")).data
    with pytest.raises(AskedError):
        prepare(data)
