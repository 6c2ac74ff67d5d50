"""A search over its journal, without a cluster: what it proposes, stops, notes and cleans up."""

import dataclasses
from pathlib import Path

import pytest
import torch

from rnntune import storage
from rnntune.config.load import Config
from rnntune.errors import DivergedError, OverLimitError
from rnntune.training.checkpoint import Snapshot, State
from rnntune.tuning.journal import Journal, TrialState
from rnntune.tuning.ray_adapter import JournalScheduler, JournalSearcher
from rnntune.tuning.reports import REPORT, TRIAL, EpochReport, TrialSpec, trial_end
from rnntune.tuning.search import Search
from rnntune.tuning.space_parser import parse_space
from rnntune.tuning.trial_loop import trial_store


@pytest.fixture
def config():
    return Config.load(
        None,
        {
            "tune.space": {"model.hidden_size": {"choice": [8, 16, 32]}},
            "tune.searcher": "random",
            "tune.num_trials": 4,
            "tune.scheduler": "asha",
            "tune.reduction_factor": 2,
            "train.epochs": 4,
        },
    )


@pytest.fixture
def open_search(config, tmp_path):
    """Gives a search over the journal as it is by now, as a new process would open it."""

    def make(max_concurrent: int = 2, **more) -> Search:
        journal = Journal(str(tmp_path / "trials.jsonl"))
        space, uri = parse_space(config), str(tmp_path / "search")
        return Search(config, space, journal, uri, max_concurrent, **more)

    return make


def report(epoch: int, accuracy: float, *, last: bool = False) -> EpochReport:
    metrics = {
        "epoch": epoch, "epochs": 4, "step": epoch, "train_s": 1.0, "validation_s": 0.1,
        "validation_accuracy": accuracy, "validation_macro_f1": accuracy,
        "validation_loss": 1 - accuracy, "rows": 7,
    }  # fmt: skip
    return EpochReport(
        metrics=metrics, is_complete=last, num_parameters=10, latency_ms=0.5, first_step_at=3.0
    )


def test_changes_of_trials_are_told_as_they_come(open_search):
    changes = []
    search = open_search(
        on_change=lambda trial: changes.append((trial.name, len(trial.history), trial.is_over))
    )
    search.begin()
    search.next()
    search.on_result(0, report(1, 0.5))
    search.on_result(0, report(1, 0.5))  # of a trial that went on from its checkpoint
    search.on_result(0, report(2, 0.6, last=True))
    search.on_complete(0)
    assert changes == [("trial-0000", 1, False), ("trial-0000", 2, False), ("trial-0000", 2, True)]


def test_no_more_trials_at_once_than_there_is_room_for(open_search):
    search = open_search()
    first, second = search.next(), search.next()
    assert (first.number, first.name) == (0, "trial-0000")
    assert second.number == 1
    assert search.next() is None
    assert not search.all_started()
    search.end(0, TrialState.FINISHED, "")
    assert search.next().number == 2


def test_an_architecture_is_measured_once_also_after_a_kill(config, tmp_path):
    config = config.override({
        "tune.space": {
            "model.hidden_size": {"grid": [8, 16]},
            "train.learning_rate": {"grid": [0.1, 0.01]},
            "model.dropout": {"grid": [0.1]},
        },
        "tune.searcher": "grid",
    })  # fmt: skip

    def opened() -> Search:
        journal = Journal(str(tmp_path / "trials.jsonl"))
        return Search(config, parse_space(config), journal, str(tmp_path / "search"), 4)

    search = opened()
    measured: dict[int, float] = {}
    for _ in range(4):
        spec = search.next()
        size = spec.values["model.hidden_size"]
        assert spec.latency_ms == measured.get(size)
        measured.setdefault(size, size / 10)
        first = dataclasses.replace(report(1, 0.5), latency_ms=measured[size])
        search.on_result(spec.number, first)
    assert measured == {8: 0.8, 16: 1.6}
    again = opened()
    for _ in range(4):
        spec = again.next()
        assert spec.latency_ms == measured[spec.values["model.hidden_size"]]


def test_the_searcher_of_ray_gets_trials_until_none_is_left(open_search):
    search = open_search(max_concurrent=1)
    searcher = JournalSearcher(search)
    for number in range(4):
        spec = searcher.suggest("an id of Ray's")[TRIAL]
        assert spec.number == number
        assert searcher.suggest("another") == (None if number < 3 else "FINISHED")
        search.end(number, TrialState.FINISHED, "")
    assert search.all_over()


def test_a_trial_that_is_behind_is_stopped_and_one_at_its_end_is_not(open_search):
    search = open_search()
    scheduler = JournalScheduler(search)

    class Trial:
        def __init__(self, spec: TrialSpec) -> None:
            self.config = {TRIAL: spec}

    good, bad = Trial(search.next()), Trial(search.next())
    assert scheduler.on_trial_result(None, good, {REPORT: report(1, 0.9)}) == "CONTINUE"
    assert scheduler.on_trial_result(None, bad, {REPORT: report(1, 0.2)}) == "STOP"
    search.on_complete(1)
    stopped = search.journal.trials[1]
    assert (stopped.state, stopped.reason) == (
        TrialState.STOPPED,
        "behind the best after epoch 1",
    )
    assert stopped.num_parameters == 10
    for epoch in (2, 3):
        assert not search.on_result(0, report(epoch, 0.9))
    assert not search.on_result(0, report(4, 0.1, last=True))
    search.on_complete(0)
    assert search.journal.trials[0].state is TrialState.FINISHED
    assert search.first_step_at == 3.0
    assert "rows" not in search.journal.trials[0].history[0]


def test_a_search_that_goes_on_decides_as_an_uninterrupted_one(open_search):
    search = open_search(max_concurrent=3)
    for _ in range(3):
        search.next()
    search.on_result(0, report(1, 0.9))
    search.on_result(1, report(1, 0.1))  # killed before it could be stopped
    again = open_search(max_concurrent=3)
    again.begin()
    assert [trial.state for trial in again.journal.trials] == [
        TrialState.RUNNING, TrialState.STOPPED, TrialState.RUNNING,
    ]  # fmt: skip
    assert [again.next().number, again.next().number] == [0, 2]
    assert not again.on_result(0, report(1, 0.9))  # what it had reported comes again
    assert len(again.journal.trials[0].history) == 1
    assert again.on_result(2, report(1, 0.3))
    assert [trial.attempts for trial in again.journal.trials] == [2, 1, 2]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (OverLimitError("9 parameters, over 8", num_parameters=9), "over limit", "9 parameters"),
        (DivergedError("the gradient is not finite"), "diverged", "the gradient is not finite"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        (MemoryError(), "failed", "MemoryError"),
    ],
)
def test_how_a_trial_ends_that_went_wrong(open_search, error, state, reason):
    search = open_search()
    search.next()
    assert not search.on_result(0, trial_end(error))
    search.on_complete(0)
    trial = search.journal.trials[0]
    assert trial.state == state
    assert trial.reason.startswith(reason)
    assert trial.num_parameters == (9 if state == "over limit" else None)


@pytest.fixture(params=[1, 2])
def ensemble(request, config):
    """The models of an ensemble, and settings that ask for it."""
    object.__setattr__(config.tune, "ensemble", request.param)
    return request.param


def test_trials_whose_models_may_be_chosen_keep_their_checkpoints(ensemble, open_search):
    search = open_search(max_concurrent=6)
    search.total = 6
    for number, accuracy in enumerate((0.5, 0.9, 0.7, 0.4, 0.8, 0.7)):
        spec = search.next()
        weights = {"w": torch.zeros(1)}
        state = State(epoch=1, step=1)
        trial_store(search.uri, spec.name).save(
            Snapshot(state=state, model=weights, optimizer={}, best=None, identity={})
        )
        storage.write_text(storage.join(search.uri, spec.name, "log.txt"), "a line\n")
        search.on_result(number, report(1, accuracy))
        search.end(number, TrialState.FINISHED, "")
    kept = sorted(path.parent.name for path in Path(search.uri).rglob("checkpoint_*"))
    chosen = [1] if ensemble == 1 else [1, 2, 4, 5]
    assert kept == [f"trial-{number:04}" for number in chosen]
    assert len(list(Path(search.uri).rglob("log.txt"))) == 6


def test_a_stopped_search_starts_nothing(open_search):
    search = open_search()
    search.next()
    search.stop()
    assert search.next() is None
    assert search.all_started()
