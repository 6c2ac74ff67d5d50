"""The replay of searches: what it says of a table follows from the table."""

import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def replay(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    yield __import__("replay")
    for name in ("replay", "replay_methods", "replay_surfaces"):
        sys.modules.pop(name, None)


def test_regrets_follow_from_the_table_and_the_seed(replay):
    curves = replay.read_table()["sst2"]
    few, again = (
        replay.replay_all(curves, "random+oneepoch", 4, 3, by_time=False) for _ in range(2)
    )
    assert few == again
    assert all(0 <= value <= curves.best for value in few.values)
    assert len(set(few.values)) > 1
    whole = len(curves.values)
    all_seen = replay.replay_all(curves, "random", whole, 2, by_time=False)
    assert all_seen.values == (0.0, 0.0)  # every configuration was trained to its end


def test_a_replay_spends_its_budget_and_no_more(replay):
    methods = __import__("replay_methods")
    curves = replay.read_table()["ag_news"]
    names = ["random", "tpe+asha", "tpe-budget+hyperband", "random+oneepoch", "surface+promote"]
    for name in [*names, "default+surface+thaw", "cqr+promote"]:
        search = replay.Replay(curves, methods.make(name, 4, curves.num_epochs), 0, 24.0)
        regret = search.run()
        assert search.num_epochs == 24
        assert regret == pytest.approx(curves.best - max(score for _, score in search.history))
        assert len(set(search.rows)) == len(search.rows)
    assert np.all(np.diff([spent for spent, _ in search.history]) > 0)


def test_the_semifinal_is_that_of_tune(replay):
    methods = __import__("replay_methods")
    curves = replay.read_table()["banking77"]
    budget = 50.0  # 32 first epochs, 12 to the third, 6 to the sixth
    search = replay.Replay(curves, methods.make("default+random+semifinal", 8, 6), 0, budget)
    search.run()
    epochs = [len(trial.history) for trial in search.trials]
    assert [epochs.count(number) for number in (6, 3)] == [2, 4]
    assert len(epochs) == 32
    scores = [trial.history[0]["validation_loss"] for trial in search.trials]
    least = sorted(range(len(scores)), key=scores.__getitem__)[:6]
    assert sorted(n for n, count in enumerate(epochs) if count > 1) == sorted(least)
