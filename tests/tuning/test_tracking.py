import pytest

from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.training.run_folder import RunFolder
from rnntune.training.tracked_run import epoch_metrics
from rnntune.tuning import tracking
from rnntune.tuning.journal import Trial, TrialState
from rnntune.tuning.journal_events import Stage
from rnntune.tuning.tracking import TrialTracking

EPOCHS = [
    {"epoch": n, "validation_accuracy": n / 10, "validation_loss": 1.0, "train_loss": 2.0}
    for n in (1, 2)
]


class _Kept:
    def __init__(self, *_):
        self.calls = []
        _Kept.last = self

    def add_trial(self, record):
        self.record = record
        self.calls.append((record.name, record.state, len(record.history), dict(record.scores)))

    def finish(self, result):
        self.calls.append(result)

    def close(self):
        self.calls.append("closed")


@pytest.fixture
def tracked(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "RunTrackers", _Kept)
    return TrialTracking(Config(), RunFolder(str(tmp_path)), Terminal(silent=True))


def test_trackers_are_given_trials_while_they_run(tracked):
    trial = Trial(number=3, values={"model.hidden_size": 8}, epochs=2)
    trial.history.append(EPOCHS[0])
    tracked.on_change(trial)
    trial.history.append(EPOCHS[1])  # what was given before stays as it was
    trial.state = TrialState.FINISHED
    tracked.on_change(trial)
    tracked.close()
    first, last, closed = _Kept.last.calls
    assert first == ("trial-0003", None, 1, {"validation_accuracy": 0.1, "validation_loss": 1.0})
    assert last == (
        "trial-0003", "finished", 2, {"validation_accuracy": 0.2, "validation_loss": 1.0}
    )  # fmt: skip
    assert closed == "closed"


def test_the_end_brings_what_an_earlier_attempt_did_not(tracked):
    trial = Trial(number=0, values={}, epochs=2)
    trial.state = TrialState.FAILED
    tracked.finish([trial], {"test_accuracy": 0.5})
    assert _Kept.last.calls == [("trial-0000", "failed", 0, {}), {"test_accuracy": 0.5}]


@pytest.mark.parametrize("scheduler", ["pbt", "one_epoch"])
def test_settings_that_change_in_training_are_figures_of_epochs(monkeypatch, tmp_path, scheduler):
    monkeypatch.setattr(tracking, "RunTrackers", _Kept)
    config = Config.load(None, {"tune.scheduler": scheduler})
    tracked = TrialTracking(config, RunFolder(str(tmp_path)), Terminal(silent=True))
    stages = [
        Stage(from_epoch=epoch, trial=1, values={"train.learning_rate": rate, "model.cell": "gru"})
        for epoch, rate in ((1, 0.5), (2, 0.25))
    ]
    trial = Trial(number=1, values=stages[-1].values, history=list(EPOCHS), stages=stages)
    tracked.on_change(trial)
    tracked.close()
    told = [epoch_metrics(metrics) for metrics in _Kept.last.record.history]
    rates = [metrics.get("settings/train.learning_rate") for metrics in told]
    assert rates == ([0.5, 0.25] if scheduler == "pbt" else [None, None])
    assert all("settings/model.cell" not in metrics for metrics in told)  # a name is no figure
    assert [metrics["validation_accuracy"] for metrics in told] == [0.1, 0.2]
