import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnntune.config.metric import Metric
from rnntune.errors import RnntuneError, RunError, StorageError
from rnntune.tuning import journal as journal_module
from rnntune.tuning.journal import Journal, Trial, TrialState, best_epoch, best_score

ACCURACY = Metric("validation_accuracy")


def epoch(number: int, accuracy: float) -> dict:
    return {
        "epoch": number, "validation_accuracy": accuracy, "validation_loss": 1.0,
        "train_s": float(number), "validation_s": 0.25,
    }  # fmt: skip


@pytest.fixture
def journal(tmp_path):
    return Journal(str(tmp_path / "trials.jsonl"))


def lines(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]


def test_what_happened_is_read_back(journal, tmp_path):
    journal.start(0, {"train.seed": 1}, 2)
    journal.start(1, {"train.seed": 2}, 2)
    journal.model(0, 123, 0.5)
    journal.epoch(1, epoch(1, 0.4))
    journal.epoch(0, epoch(1, 0.6))
    journal.end(1, TrialState.STOPPED, "behind", 2.0)
    journal.elapsed(3.456)
    again = Journal(str(tmp_path / "trials.jsonl"))
    assert again.trials == journal.trials
    assert [number for number, _ in again.order] == [1, 0]
    assert again.elapsed_s == 3.46
    assert again.trials[0].num_parameters == 123
    assert again.trials[1].state is TrialState.STOPPED


def test_states_are_words_in_the_file(journal, tmp_path):
    journal.start(0, {}, 1)
    journal.end(0, TrialState.OVER_LIMIT, "9 parameters", 0.5)
    assert lines(tmp_path)[-1]["state"] == "over limit"
    assert f"{TrialState.OVER_LIMIT}" == "over limit"


def test_the_mean_of_weights_is_the_model_that_is_kept():
    trial = Trial(number=0, values={}, history=[epoch(1, 0.9), epoch(2, 0.8)])
    assert best_score(trial, ACCURACY) == 0.9
    trial.history[-1]["averaged"] = True
    assert best_score(trial, ACCURACY) == 0.8
    assert best_epoch(trial, ACCURACY)["epoch"] == 2


def test_an_epoch_is_noted_once(journal, tmp_path):
    journal.start(0, {}, 2)
    assert journal.epoch(0, epoch(1, 0.5))
    journal.start(0, {}, 2)
    assert not journal.epoch(0, epoch(1, 0.7))
    assert journal.trials[0].attempts == 2
    assert len(lines(tmp_path)) == 3


def test_a_file_that_a_kill_cut_off_goes_on_whole(journal, tmp_path):
    journal.start(0, {}, 2)
    file = Path(tmp_path, "trials.jsonl")
    file.write_text(file.read_text() + '{"event": "epo')
    again = Journal(str(file))
    again.epoch(0, epoch(1, 0.5))
    assert [line["event"] for line in lines(tmp_path)] == ["start", "epoch"]


def test_time_beyond_its_own_steps_is_overhead():
    trial = Trial(number=0, values={}, state=TrialState.FINISHED, attempts=1, seconds=5.0)
    trial.history = [epoch(1, 0.5), epoch(2, 0.6)]
    assert trial.own_s == 2.5
    assert trial.overhead_s == 2.5
    trial.attempts = 2
    assert trial.overhead_s is None


def test_the_best_epoch_is_the_first_among_equals():
    trial = Trial(number=0, values={})
    trial.history = [epoch(1, 0.5), epoch(2, 0.6), epoch(3, 0.6), epoch(4, float("nan"))]
    assert best_epoch(trial, ACCURACY)["epoch"] == 2
    assert best_score(trial, ACCURACY) == 0.6
    trial.state = TrialState.DIVERGED
    assert best_score(trial, ACCURACY) is None


# --- Storage that fails


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "trials.jsonl")


def begin(uri):
    kept = Journal(uri)
    kept.start(0, {"model.hidden_size": 8}, epochs=2)
    kept.epoch(0, {"epoch": 1, "validation_accuracy": 0.5})
    return kept


def same(uri, kept):
    again = Journal(uri)
    return (again.trials, again.order, again.elapsed_s) == (
        kept.trials,
        kept.order,
        kept.elapsed_s,
    )


@pytest.mark.parametrize("left", range(1, 40, 7))
def test_a_line_that_a_kill_cut_off_never_happened(uri, left):
    begin(uri)
    first, second = Path(uri).read_text().splitlines(keepends=True)
    with Path(uri).open("w") as file:
        file.write(first + second[:left])
    again = Journal(uri)
    assert again.trials[0].history == []
    again.epoch(0, {"epoch": 1, "validation_accuracy": 0.75})
    assert same(uri, again)


def test_storage_that_fails_for_a_while_ends_no_search(uri, monkeypatch):
    kept = begin(uri)
    with monkeypatch.context() as patch:

        def half(descriptor):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - 5)
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", half)
        kept.epoch(0, {"epoch": 2, "validation_accuracy": 0.6})
        patch.setattr(journal_module.storage, "write_text", _fail)
        kept.elapsed(5.0)
        with pytest.raises(StorageError, match=r"trials\.jsonl: .*asleep"):
            kept.flush()
        assert Journal(uri).trials[0].history == kept.trials[0].history[:1]
    kept.end(0, TrialState.FINISHED, "", 3.0)
    assert same(uri, kept)


def test_storage_that_fails_for_long_ends_it(uri, monkeypatch):
    kept = begin(uri)
    monkeypatch.setattr(os, "fsync", _fail)
    monkeypatch.setattr(journal_module, "PATIENCE_S", 0.0)
    with pytest.raises(StorageError, match="asleep"):
        kept.elapsed(5.0)


def _fail(*_):
    raise StorageError("trials.jsonl: the disk is asleep")


@pytest.mark.parametrize("line", ["{", "[]", '{"event": "epoch", "trial": 7}', "\x00" * 9])
def test_a_damaged_line_is_named(uri, line):
    begin(uri)
    with Path(uri).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"trials\.jsonl:3: damaged"):
        Journal(uri)


METRICS = st.dictionaries(
    st.sampled_from(["epoch", "validation_accuracy", "validation_loss", "train_s", "validation_s"]),
    st.integers(-1, 3) | st.floats() | st.none() | st.just("x"),
)
EVENTS = st.fixed_dictionaries(
    {"event": st.sampled_from(["start", "epoch", "model", "end", "elapsed", "?"])},
    optional={
        "trial": st.integers(-2, 2) | st.none() | st.just("0"),
        "values": st.dictionaries(st.just("train.seed"), st.integers()) | st.none(),
        "epochs": st.integers(-1, 3) | st.just("x"),
        "metrics": st.builds(epoch, st.integers(1, 2), st.floats(0, 1)) | METRICS,
        "num_parameters": st.integers() | st.none() | st.just([]),
        "latency_ms": st.floats() | st.none() | st.just({}),
        "state": st.sampled_from([*TrialState, "lost"]),
        "reason": st.just("behind") | st.none(),
        "seconds": st.floats(0, 9) | st.none(),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(EVENTS.map(lambda event: json.dumps(event).encode()), max_size=6).map(
        lambda events: b"".join(event + b"\n" for event in events)
    )
    | st.binary(max_size=30)
)
def test_any_journal_is_read_or_refused(tmp_path, content):
    (tmp_path / "any.jsonl").write_bytes(content)
    try:
        read = Journal(str(tmp_path / "any.jsonl"))
    except RnntuneError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017
        return
    for trial in read.trials:  # what was read can be used
        assert trial.name
        assert trial.own_s >= 0.0 or trial.own_s != trial.own_s
        assert trial.overhead_s is None or trial.overhead_s >= 0.0
        if best_score(trial, ACCURACY) is not None:
            assert best_epoch(trial, ACCURACY)["epoch"] >= 1
    json.dumps([read.elapsed_s + 1.0, [trial.num_parameters or 0 for trial in read.trials]])
