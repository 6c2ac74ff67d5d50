"""A search with one epoch for all trials, over its journal: who waits, goes on, and ends."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rnntune.config.load import Config
from rnntune.tuning.journal import Journal, TrialState
from rnntune.tuning.reports import EpochReport
from rnntune.tuning.search import Search
from rnntune.tuning.space_parser import parse_space

FIRST_EPOCHS = (0.2, 0.7, 0.4, 0.6, 0.1, 0.3)


@pytest.fixture
def open_search(tmp_path):
    def make(folder: str = "one", concurrent: int = 2, **overrides) -> Search:
        given = {
            "tune.space": {"train.learning_rate": {"loguniform": [0.001, 0.01]}},
            "tune.searcher": "random",
            "tune.scheduler": "one_epoch",
            "tune.finalists": 1,
            "tune.num_trials": len(FIRST_EPOCHS),
            "train.epochs": 3,
        }
        config = Config.load(None, {**given, **overrides})
        Path(tmp_path, folder).mkdir(exist_ok=True)
        journal = Journal(str(tmp_path / folder / "trials.jsonl"))
        uri = str(tmp_path / folder / "search")
        search = Search(config, parse_space(config), journal, uri, concurrent)
        search.begin()
        return search

    return make


def score(number: int, epoch: int) -> float:
    return FIRST_EPOCHS[number] + 0.01 * epoch


def run(
    search: Search, steps: int = 1000, loss: Callable[[float], float] = lambda value: 1 - value
) -> bool:
    """Run a search as Ray would, for so many reports; whether it came to its end."""
    running: list[int] = []
    while True:
        while (spec := search.next()) is not None:
            running.append(spec.number)
        if not running:
            assert search.all_started()
            search.finish()
            return True
        if steps == 0:
            return False
        steps -= 1
        number = running.pop(0)
        epoch = min(len(search.journal.trials[number].history) + 1, 3)  # the last one again
        value = score(number, epoch)
        metrics = {
            "epoch": epoch, "validation_accuracy": value, "validation_loss": loss(value),
            "train_s": 1.0, "validation_s": 0.1,
        }  # fmt: skip
        report = EpochReport(
            metrics=metrics, is_complete=epoch == 3, num_parameters=1, latency_ms=1.0,
            first_step_at=1.0,
        )  # fmt: skip
        if search.on_result(number, report) or epoch == 3:
            search.on_complete(number)
        else:
            running.append(number)


def ends(search: Search) -> list[tuple[int, TrialState, int]]:
    return [(t.number, t.state, len(t.history)) for t in search.journal.trials]


WHOLE = [
    (0, TrialState.STOPPED, 1),
    (1, TrialState.FINISHED, 3),
    (2, TrialState.STOPPED, 2),
    (3, TrialState.STOPPED, 2),
    (4, TrialState.STOPPED, 1),
    (5, TrialState.STOPPED, 1),
]


@pytest.mark.parametrize("concurrent", [1, 2, 6])
def test_all_train_one_epoch_and_the_best_go_on(open_search, concurrent):
    search = open_search(concurrent=concurrent)
    assert run(search)
    assert ends(search) == WHOLE
    reasons = [search.journal.trials[number].reason for number in (0, 2)]
    assert reasons == [f"behind the best after epoch {epoch}" for epoch in (1, 2)]
    starts = sum(trial.attempts for trial in search.journal.trials)
    assert starts <= search.most_starts == 6 + 3 + 1


@pytest.mark.parametrize("killed_after", range(10))
def test_killed_at_any_report_it_goes_on_to_the_same_end(open_search, killed_after):
    assert not run(open_search(), killed_after)
    again = open_search()
    assert run(again)
    assert ends(again) == WHOLE


def test_killed_between_any_two_lines_of_the_journal_it_goes_on_to_the_same_end(
    open_search, tmp_path
):
    whole = open_search("whole")
    assert run(whole)
    values = [trial.values for trial in whole.journal.trials]
    lines = Path(tmp_path, "whole", "trials.jsonl").read_text().splitlines(keepends=True)
    for number in range(len(lines)):
        folder = Path(tmp_path, f"cut-{number}")
        folder.mkdir()
        (folder / "trials.jsonl").write_text("".join(lines[:number]))
        again = open_search(folder.name)
        assert run(again), number
        assert ends(again) == WHOLE, number
        assert [trial.values for trial in again.journal.trials] == values


def test_a_new_search_goes_on_with_the_smallest_losses(open_search):
    search = open_search(**{"tune.time_budget_s": 10_000})
    assert run(search, loss=lambda value: value)
    finished = {t.number for t in search.journal.trials if t.state is TrialState.FINISHED}
    assert finished == {4}  # of the lowest score, as the loss is the score here


@pytest.mark.parametrize(("rules", "winner"), [(0, 1), (1, 4)])
@pytest.mark.parametrize("killed_after", [1, 6, 8, 9])
def test_a_search_of_the_rules_before_keeps_them(
    open_search, tmp_path, killed_after, rules, winner
):
    search = open_search()
    assert not run(search, killed_after, lambda value: value)
    assert search.journal.rules == 2
    file = tmp_path / "one" / "trials.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    first = [line for line in lines if '"epoch": 1' in line or '"start"' in line]
    begin = [json.dumps({"event": "begin", "rules": rules}) + "\n"] if rules else []
    file.write_text("".join([*begin, *(line for line in first if '"begin"' not in line)]))
    again = open_search()
    assert again.journal.rules == rules
    assert run(again, loss=lambda value: value)
    epochs = {t.number: len(t.history) for t in again.journal.trials if len(t.history) > 1}
    assert epochs == {winner: 3}


def test_a_trial_waits_and_is_not_over(open_search):
    search = open_search()
    assert not run(search, 2)
    waiting = search.journal.trials[0]
    assert (waiting.state, waiting.is_over) == (TrialState.PAUSED, False)
    assert not search.all_started()


def test_the_last_finalist_to_report_goes_on_without_a_pause(open_search):
    search = open_search(concurrent=1, **{"tune.num_trials": 2, "tune.time_budget_s": 10_000})
    assert run(search)
    assert [trial.attempts for trial in search.journal.trials] == [1, 1]


def test_a_trial_that_fails_is_not_waited_for(open_search):
    search = open_search(concurrent=1, **{"tune.num_trials": 2})
    assert not run(search, 1)
    search.end(1, TrialState.FAILED, "no memory")
    assert run(search)
    assert ends(search) == [(0, TrialState.FINISHED, 3), (1, TrialState.FAILED, 0)]


def test_half_of_the_time_is_the_finalists(open_search, monkeypatch):
    search = open_search(**{"tune.time_budget_s": 100})
    assert not run(search, 2)
    monkeypatch.setattr(Search, "elapsed_s", 51.0)
    search = open_search(**{"tune.time_budget_s": 100})
    assert run(search)
    # Four had begun; the others do not begin any more.
    stopped = (2, TrialState.STOPPED, 1), (3, TrialState.STOPPED, 1)
    assert ends(search) == [*WHOLE[:2], *stopped]  # without a semifinal


def test_half_of_further_time_is_for_new_trials(open_search, monkeypatch):
    given = {"tune.time_budget_s": 100}
    assert not run(open_search(**given), 2)
    monkeypatch.setattr(Search, "elapsed_s", 51.0)
    search = open_search(**given)
    assert run(search)
    assert len(search.journal.trials) == 4
    monkeypatch.setattr(Search, "elapsed_s", 70.0)
    plain = open_search(**given)
    assert run(plain)
    assert len(plain.journal.trials) == 4  # the second half of its time is not for new ones
    plain.journal.extend()
    search = open_search(**{"tune.time_budget_s": 100.0})
    assert search.journal.extended_s == 70.0
    assert not run(search, 1)
    again = open_search(**given)  # killed in between
    assert run(again)
    assert len(again.journal.trials) == len(FIRST_EPOCHS)


def test_an_ensemble_has_as_many_finalists_as_it_chooses_from(open_search):
    search = open_search(**{"tune.ensemble": 3})
    assert run(search)
    assert sum(trial.state is TrialState.FINISHED for trial in search.journal.trials) >= 3
