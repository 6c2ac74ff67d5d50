from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.scheduler import Asha, OneEpoch


def asha(**settings) -> Asha:
    return Asha(**{"grace_epochs": 1, "reduction_factor": 3, "max_epochs": 9, **settings})


def test_rungs_end_with_the_longest_trial():
    assert asha().rungs == (1, 3, 9)
    assert asha(max_epochs=8).rungs == (1, 3)
    assert asha(grace_epochs=2, reduction_factor=2, max_epochs=8).rungs == (2, 4, 8)
    assert asha(reduction_factor=10, max_epochs=1000).rungs == (1, 10, 100, 1000)


def test_the_first_at_a_rung_goes_on_and_the_worst_of_many_stops():
    found = asha()
    assert not found.on_result(0, 1, 0.1)
    assert not found.on_result(1, 1, 0.9)
    assert found.on_result(2, 1, 0.2)
    assert not found.on_result(1, 2, 0.0)  # between rungs
    assert not found.on_result(1, 3, 0.0)  # the first at the next one


def test_a_score_that_is_no_number_stops_nobody_and_counts_for_nobody():
    found = asha()
    assert not found.on_result(0, 1, float("nan"))
    assert not found.on_result(1, 1, -5.0)
    assert found.on_result(2, 1, -6.0)


@given(
    st.lists(st.tuples(st.integers(0, 7), st.floats(-1, 1)), max_size=60),
    st.integers(1, 3),
    st.integers(2, 4),
)
def test_it_decides_as_ray_does(reports, grace_epochs, reduction_factor):
    """Trials report epoch by epoch, in any order among them, until they are stopped."""
    ours = Asha(grace_epochs=grace_epochs, reduction_factor=reduction_factor, max_epochs=12)
    theirs = ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=12, grace_period=grace_epochs,
        reduction_factor=reduction_factor,
    )  # fmt: skip
    trials = [SimpleNamespace(trial_id=str(number)) for number in range(8)]
    for trial in trials:
        theirs.on_trial_add(None, trial)
    epochs = dict.fromkeys(range(8), 0)
    for number, score in reports:
        if epochs[number] is None or epochs[number] == 11:
            continue
        epochs[number] += 1
        result = {"epoch": epochs[number], "score": score}
        stops = theirs.on_trial_result(None, trials[number], result) == TrialScheduler.STOP
        assert ours.on_result(number, epochs[number], score) is stops
        if stops:
            epochs[number] = None


def trial(number: int, *scores: float, state=TrialState.RUNNING) -> Trial:
    history = [{"validation_accuracy": score} for score in scores]
    return Trial(number=number, values={}, history=history, state=state, epochs=4)


def one_epoch(**settings) -> OneEpoch:
    aims = Aims((Metric(settings.pop("metric", "validation_accuracy")), *settings.pop("more", ())))
    return OneEpoch(**{"grace_epochs": 1, "num_finalists": 2, "aims": aims, **settings})


def finalists(scheduler: OneEpoch, trials) -> set[int] | None:
    standings = scheduler.standings(trials)
    assert standings is None or standings.are_final
    assert standings is None or set(standings.limits.values()) <= {4}
    return None if standings is None else set(standings.limits)


def test_the_best_few_after_the_first_epoch_go_on_and_later_epochs_do_not_count():
    trials = [trial(0, 0.4, 0.9), trial(1, 0.6), trial(2, 0.5), trial(3, 0.7)]
    assert finalists(one_epoch(), trials) == {1, 3}
    assert [one_epoch().waits(each, one_epoch().standings(trials)) for each in trials] == [
        True, False, True, False,
    ]  # fmt: skip
    assert finalists(one_epoch(grace_epochs=2), [trial(0, 0.4, 0.9), trial(1, 0.6, 0.5)]) == {0, 1}


def test_nobody_goes_on_before_the_last_first_epoch():
    trials = [trial(0, 0.9), trial(1)]
    assert finalists(one_epoch(), trials) is None
    assert one_epoch().waits(trials[0], None)
    assert not one_epoch().waits(trials[1], None)
    trials[1].state = TrialState.FAILED
    assert finalists(one_epoch(), trials) == {0}


def test_among_equals_the_first_goes_on_and_no_number_never():
    trials = [trial(0, float("nan")), trial(1, 0.5), trial(2, 0.5), trial(3, 0.5)]
    assert finalists(one_epoch(), trials) == {1, 2}
    assert finalists(one_epoch(), trials[:2]) == {1}


def test_the_smallest_losses_go_on():
    trials = [trial(number) for number in range(3)]
    for each, loss in zip(trials, (0.5, 0.2, 0.3), strict=True):
        each.history.append({"validation_loss": loss})
    assert finalists(one_epoch(metric="validation_loss"), trials) == {1, 2}


def test_by_the_loss_the_surest_go_on_whatever_their_accuracy():
    trials = [trial(number, score) for number, score in enumerate((0.5, 0.6, 0.7))]
    assert finalists(one_epoch(by_loss=True), trials) == {1, 2}  # no losses are known
    for each, loss in zip(trials, (0.2, 0.3, 0.4), strict=True):
        each.history[0]["validation_loss"] = loss
    assert finalists(one_epoch(), trials) == {1, 2}
    assert finalists(one_epoch(by_loss=True), trials) == {0, 1}


def test_with_several_aims_the_front_of_the_first_epochs_goes_on():
    trials = [trial(0, 0.5, 0.9), trial(1, 0.6), trial(2, 0.4), trial(3, 0.7)]
    for each, parameters in zip(trials, (9, 5, 4, 8), strict=True):
        each.num_parameters = parameters
    scheduler = one_epoch(more=[Metric("num_parameters")])
    assert finalists(scheduler, trials) == {1, 2, 3}
    trials[3].state = TrialState.FAILED  # later: who goes on was decided before
    trials[2].history.append({"validation_accuracy": 0.99})
    assert finalists(scheduler, trials) == {1, 2, 3}


def test_three_times_as_many_go_on_to_the_middle_and_the_finalists_are_ahead_there():
    scheduler = one_epoch(num_finalists=1, longest=4, by_loss=True)
    trials = [trial(number, 0.1) for number in range(5)]
    for each, loss in zip(trials, (0.5, 0.2, 0.3, 0.4, 0.6), strict=True):
        each.history[0]["validation_loss"] = loss
    standings = scheduler.standings(trials)
    assert (standings.limits, standings.are_final) == ({1: 2, 2: 2, 3: 2}, False)
    assert [scheduler.waits(each, standings) for each in trials] == [True, *[False] * 3, True]
    for number, score in ((2, 0.7), (3, 0.9)):
        trials[number].history.append({"validation_accuracy": score, "validation_loss": 0.1})
    assert scheduler.standings(trials) == standings
    assert scheduler.waits(trials[3], standings)
    trials[1].history.append({"validation_accuracy": 0.8, "validation_loss": 0.1})
    assert finalists(scheduler, trials) == {3}  # by the metric, not by the loss
    trials[3].history.append({"validation_accuracy": 0.1, "validation_loss": 9.0})
    assert finalists(scheduler, trials) == {3}  # what comes later does not count


def test_a_semifinal_does_not_wait_for_who_is_over_and_gives_no_place_to_who_is_out():
    scheduler = one_epoch(num_finalists=1, longest=4)
    trials = [trial(0, 0.5, 0.6), trial(1, 0.9, state=TrialState.FAILED), trial(2, 0.3, 0.9)]
    trials += [trial(3, 0.2), trial(4, 0.1)]
    assert scheduler.standings(trials).limits == {0: 2, 2: 2, 3: 2}
    trials[4].state = TrialState.STOPPED  # it lost
    trials[3].state = TrialState.DIVERGED
    assert finalists(scheduler, trials) == {2}
    trials[0].state = TrialState.STOPPED
    assert finalists(scheduler, trials) == {2}
    trials[2].state = TrialState.FINISHED  # its place stays taken
    assert finalists(scheduler, trials) == {2}


def test_further_trials_take_the_places_of_those_that_lost_before():
    scheduler = one_epoch(num_finalists=1, longest=4)
    lost = [trial(n, 0.9, 0.9, state=TrialState.STOPPED) for n in range(3)]
    won = trial(3, 0.8, 0.8, 0.8, 0.8, state=TrialState.FINISHED)
    new = [trial(4, 0.5, 0.95), trial(5, 0.4), trial(6, 0.3)]
    assert scheduler.standings([*lost, won, *new]).limits == {3: 2, 4: 2, 5: 2}
    new[1].history.append({"validation_accuracy": 0.1})
    assert finalists(scheduler, [*lost, won, *new]) == {4}


def test_each_trial_is_compared_in_the_middle_of_its_own_epochs():
    scheduler = one_epoch(num_finalists=1, longest=6)
    trials = [trial(0, 0.5, 0.6), trial(1, 0.5, 0.6, 0.7), trial(2, 0.9), trial(3, 0.9)]
    for each, epochs in zip(trials, (4, 6, 1, 6), strict=True):
        each.epochs = epochs  # one alone has no use for a place
    standings = scheduler.standings(trials)
    assert (standings.limits, standings.are_final) == ({0: 2, 1: 3, 3: 3}, False)
    trials[3].history += [{"validation_accuracy": 0.8}] * 2
    assert scheduler.standings(trials).limits == {3: 6}


@pytest.mark.parametrize(
    ("num", "longest", "least", "num_trials", "expected"),
    [
        (None, 6, 1, 32, (6, 2)),
        (None, 6, 1, 7, (3, 1)),
        (None, None, 1, 32, (3, 3)),
        (None, 2, 1, 32, (3, 3)),
        (5, 6, 1, 32, (15, 5)),
        (5, None, 1, 32, (5, 5)),
        (None, 6, 10, 32, (10, 10)),
        (None, 6, 4, 32, (6, 4)),
    ],
)
def test_as_many_go_on(num, longest, least, num_trials, expected):
    scheduler = one_epoch(num_finalists=num, longest=longest, least=least)
    assert scheduler.num_going_on(num_trials) == expected


def test_there_is_no_semifinal_that_nobody_loses():
    trials = [trial(number, 0.5) for number in range(4)]
    for num, least in ((4, 1), (1, 4)):
        scheduler = one_epoch(num_finalists=num, least=least, longest=4)
        assert finalists(scheduler, trials) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("longest", "num_trials", "expected"),
    [
        (6, 31, (3, 3)),
        (6, 32, (6, 2)),
        (6, 48, (9, 3)),
        (12, 41, (3, 1)),
        (12, 101, (9, 3)),
        (20, 41, (3, 3)),  # not even one semifinal fits
        (20, 101, (6, 2)),
    ],
)
def test_in_limited_time_no_more_go_on_than_come_to_their_end(longest, num_trials, expected):
    scheduler = one_epoch(num_finalists=None, longest=longest, is_timed=True)
    assert scheduler.num_going_on(num_trials) == expected
