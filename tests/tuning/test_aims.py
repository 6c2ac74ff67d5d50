import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from rnntune.config.load import Config
from rnntune.config.metric import Metric
from rnntune.tuning.aims import Aims
from rnntune.tuning.journal import Trial, TrialState, best_trial

BOTH = Aims((Metric("validation_accuracy"), Metric("latency_ms")))


def trial(number: int, accuracy: float, latency_ms: float | None = 1.0, **more) -> Trial:
    epoch = {"epoch": 1, "validation_accuracy": accuracy, "validation_loss": 1 - accuracy}
    given = {"history": [epoch], "state": TrialState.FINISHED, **more}
    return Trial(number=number, values={}, latency_ms=latency_ms, **given)


def numbers(trials) -> list[int]:
    return [each.number for each in trials]


def test_the_front_of_accuracy_and_latency():
    trials = [
        trial(0, 0.90, 3.0),
        trial(1, 0.70, 1.0),
        trial(2, 0.60, 2.0),  # beaten by 1
        trial(3, 0.80, 2.0),
        trial(4, 0.90, 4.0),  # as accurate as 0, slower
        trial(5, 0.99, None),  # never measured
        trial(6, 0.99, 0.1, state=TrialState.FAILED),
        trial(7, math.nan, 0.1),
    ]
    assert numbers(BOTH.front(trials)) == [0, 3, 1]
    assert BOTH.values(trials[3]) == {"validation_accuracy": 0.80, "latency_ms": 2.0}


def test_of_equal_trials_the_one_with_the_lower_loss_is_on_the_front():
    one, two, three = (trial(n, 0.9) for n in range(3))
    two.history[0]["validation_loss"] = 0.05
    three.history[0]["validation_loss"] = 0.05
    assert numbers(BOTH.front([one, two, three])) == [1]


def test_the_knee_is_farthest_beyond_the_line_through_the_extremes():
    front = [trial(0, 0.90, 4.0), trial(1, 0.88, 2.0), trial(2, 0.80, 1.5), trial(3, 0.70, 1.0)]
    assert BOTH.knee(front).number == 1

    def distance(x: float, y: float) -> float:  # from the line x + y = 1
        return (x + y - 1) / math.sqrt(2)

    distances = [distance((t.history[0]["validation_accuracy"] - 0.7) / 0.2,
                          (4 - t.latency_ms) / 3) for t in front]  # fmt: skip
    assert distances.index(max(distances)) == 1
    assert BOTH.knee(front[:1]).number == 0
    assert BOTH.knee([front[0], front[3]]).number == 0  # both are extremes: the more accurate
    assert BOTH.knee([]) is None


def test_with_one_aim_the_front_is_the_best_trial():
    one = Aims.of(Config().tune)
    assert one.names == ("validation_accuracy",)
    trials = [trial(0, 0.8), trial(1, 0.9), trial(2, 0.9), trial(3, 0.5)]
    assert one.front(trials) == [trials[1]]
    assert one.chosen(trials) is trials[1] is best_trial(trials, one.first)
    assert one.chosen([]) is None


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30))
def test_the_front_is_what_no_other_beats_however_trials_come(points):
    names = ("validation_accuracy", "latency_ms", "num_parameters")
    aims = Aims(tuple(map(Metric, names)))
    trials = [
        trial(n, accuracy / 10, float(latency), num_parameters=size)
        for n, (accuracy, latency, size) in enumerate(points)
    ]
    front = aims.front(trials)
    worth = {t.number: (points[t.number][0], -points[t.number][1], -points[t.number][2])
             for t in trials}  # fmt: skip

    def beats(one: Trial, other: Trial) -> bool:
        a, b = worth[one.number], worth[other.number]
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    unbeaten = {worth[t.number] for t in trials if not any(beats(other, t) for other in trials)}
    assert {worth[t.number] for t in front} == unbeaten
    assert len(front) == len(unbeaten)
    scores = [worth[t.number][0] for t in front]
    assert scores == sorted(scores, reverse=True)
    kept: list[Trial] = []
    for each in trials:  # a checkpoint that was deleted is never wanted again
        kept = aims.front([*kept, each])
    assert numbers(kept) == numbers(front)


def test_the_knee_of_three_aims():
    aims = Aims(tuple(map(Metric, ("validation_accuracy", "latency_ms", "num_parameters"))))
    trials = [
        trial(0, 0.9, 5.0, num_parameters=500),
        trial(1, 0.85, 1.5, num_parameters=150),
        trial(2, 0.5, 1.0, num_parameters=100),
    ]
    for order in itertools.permutations(trials):
        assert aims.chosen(order) is trials[1]
