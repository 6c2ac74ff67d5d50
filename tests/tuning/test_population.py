"""Population based training over its journal: who copies whom, and what a kill at any write costs.

The trials here train one number with a learning rate, and keep it in real checkpoints.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnntune.cli.main import main
from rnntune.config.load import Config
from rnntune.errors import ConfigError, RunError, StorageError
from rnntune.training.checkpoint import Snapshot, State
from rnntune.training.recovery import CheckpointStore, read_checkpoint
from rnntune.tuning import population
from rnntune.tuning.aims import Aims
from rnntune.tuning.extension import Extension
from rnntune.tuning.importance import importance
from rnntune.tuning.journal import Journal, Trial, TrialState
from rnntune.tuning.journal_events import Copy, Stage
from rnntune.tuning.perturbation import (
    CHANGEABLE,
    changed_settings,
    changed_value,
    check_population,
    population_config,
)
from rnntune.tuning.population import choose_copies, schedule_of
from rnntune.tuning.reports import EpochReport, TrialSpec
from rnntune.tuning.results import journal_table
from rnntune.tuning.search import Search
from rnntune.tuning.space import Dimension
from rnntune.tuning.space_parser import parse_space
from rnntune.tuning.trial_loop import trial_store
from rnntune.tuning.warm_start import open_warm_start

RATE = "train.learning_rate"
SIZE = "model.hidden_size"
SPACE = {SIZE: {"choice": [8, 16, 32]}, RATE: {"loguniform": [0.001, 0.1]}}
EPOCHS = 6


def configured(**overrides) -> Config:
    given = {
        "tune.space": SPACE, "tune.scheduler": "pbt", "tune.num_trials": 8, "train.epochs": EPOCHS,
        "tune.grace_epochs": 2, "tune.metric": "validation_accuracy",
    }  # fmt: skip
    return Config.load(None, {**given, **overrides})


@pytest.fixture
def open_search(tmp_path, monkeypatch):
    """Gives the search in a folder as a new process would open it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # half of the time of these tests

    def make(folder: str = "one", concurrent: int = 2, **overrides) -> Search:
        config = configured(**overrides)
        Path(tmp_path, folder).mkdir(exist_ok=True)
        journal = Journal(str(tmp_path / folder / "trials.jsonl"))
        uri = str(tmp_path / folder / "search")
        search = Search(config, parse_space(config), journal, uri, concurrent)
        search.begin()
        return search

    return make


class Member:
    """A trial of a search: it trains one epoch at a time, as `fit_trial` would."""

    def __init__(self, search: Search, spec: TrialSpec) -> None:
        self.search, self.spec = search, spec
        assert spec.latency_ms in (None, spec.values[SIZE] / 10)  # of models of the same size
        self.store = trial_store(search.uri, spec.name)
        Path(self.store.uri).mkdir(parents=True, exist_ok=True)
        self.identity = {"data": "d", "values": json.loads(json.dumps(dict(spec.values)))}
        self.state, self.weight = State(), torch.zeros(1, dtype=torch.float64)
        if (checkpoint := self.store.latest()) is not None:
            snapshot = read_checkpoint(checkpoint, self.identity)
            self.state, self.weight = snapshot.state, snapshot.model["w"]
            for number, metrics in enumerate(self.state.history, 1):
                self._report(metrics, last=number == EPOCHS)

    @property
    def is_done(self) -> bool:
        until = self.spec.until_epoch or EPOCHS
        assert self.state.epoch <= until  # it never trains beyond the epoch of its copies
        return self.state.epoch == until

    def train_epoch(self) -> None:
        rate = self.spec.values[RATE]
        self.weight = self.weight + rate * (1 - self.weight) + 1e-6 * self.spec.values[SIZE]
        value = float(self.weight)
        self.state.epoch += 1
        self.state.step += 100 // self.spec.values[SIZE]  # so that copies may have fewer
        self.state.history.append({
            "epoch": self.state.epoch, "validation_accuracy": value, "validation_loss": 1 - value,
            "train_s": 1.0, "validation_s": 0.1,
        })  # fmt: skip
        self.store.save(
            Snapshot(
                state=self.state, model={"w": self.weight}, optimizer={}, best=None,
                identity=self.identity,
            )
        )  # fmt: skip
        self._report(self.state.history[-1], last=self.state.epoch == EPOCHS)

    def _report(self, metrics, *, last: bool) -> None:
        size = self.spec.values[SIZE]
        self.search.on_result(
            self.spec.number,
            EpochReport(
                metrics=metrics, is_complete=last, num_parameters=size, latency_ms=size / 10
            ),
        )


def run(search: Search, fails: int | None = None) -> Search:
    """Run a search as Ray would, its members in turn; one of them may fail in its first epoch."""
    running: list[Member] = []
    while True:
        while (spec := search.next()) is not None:
            running.append(Member(search, spec))
        if not running:
            assert search.all_started()
            assert search.all_over()
            search.finish()
            return search
        member = running.pop(0)
        if member.spec.number == fails:
            search.end(fails, TrialState.FAILED, "no memory")
        elif member.is_done:
            search.on_complete(member.spec.number)
        else:
            member.train_epoch()
            running.append(member)


def outcome(search: Search) -> list:
    """What must be the same whatever happened on the way."""
    return [
        (t.number, t.state, t.values, t.stages, t.num_parameters, t.latency_ms, t.history)
        for t in search.journal.trials
    ]


def exchanges(search: Search) -> list[dict]:
    lines = map(json.loads, Path(search.journal._uri).read_text().splitlines())
    return [line for line in lines if line["event"] == "exchange"]


@pytest.mark.parametrize("concurrent", [1, 3, 8])
def test_members_behind_go_on_as_copies_whatever_their_order(open_search, concurrent):
    search = run(open_search(concurrent=concurrent))
    noted = exchanges(search)
    assert [each["epoch"] for each in noted] == [2, 4]
    assert [len(each["copies"]) for each in noted] == [2, 2]
    assert outcome(search) == outcome(run(open_search("other", concurrent=2)))
    assert {t.state for t in search.journal.trials} == {TrialState.FINISHED}
    copy = noted[-1]["copies"][0]
    trial = search.journal.trials[copy["trial"]]
    source = search.journal.trials[copy["source"]]
    assert trial.history[:4] == source.history[:4]
    assert trial.history[4:] != source.history[4:]
    assert trial.values == copy["values"]
    assert trial.values[SIZE] == source.values[SIZE] == trial.num_parameters
    assert trial.stages == [
        *source.stages, Stage(from_epoch=5, trial=trial.number, values=copy["values"])
    ]  # fmt: skip
    # A model is what its schedule of settings says.
    weight = torch.zeros(1, dtype=torch.float64)
    for epoch in range(1, EPOCHS + 1):
        stage = [s for s in schedule_of(trial) if s["from_epoch"] <= epoch][-1]["values"]
        weight = weight + stage[RATE] * (1 - weight) + 1e-6 * stage[SIZE]
    assert float(weight) == trial.history[-1]["validation_accuracy"]


class Killed(BaseException):
    """The end of the process."""


def dies_at(patch, point: int) -> list[str]:
    """End the process at a write: of the journal, of a checkpoint, or at a deletion."""
    done: list[str] = []

    def strike(owner, name: str) -> None:
        whole = getattr(owner, name)

        def call(*args, **kwargs):
            done.append(name)
            if len(done) == point:
                raise Killed
            return whole(*args, **kwargs)

        patch.setattr(owner, name, call)

    strike(Journal, "_write")
    strike(CheckpointStore, "_write")
    strike(CheckpointStore, "clear")
    return done


def test_killed_at_any_write_it_goes_on_to_the_same_copies_and_the_same_bits(
    open_search, monkeypatch
):
    with monkeypatch.context() as patch:
        done = dies_at(patch, 0)
        whole = outcome(run(open_search("whole")))
    assert done.count("clear") == 4 + 7  # of the copies, and of who did not win
    copies = range(done.index("clear"), done.index("clear") + 8)  # each write at an exchange
    for point in sorted({*range(1, len(done) + 1, 20), *copies}):
        with monkeypatch.context() as patch:
            dies_at(patch, point)
            with pytest.raises(Killed):
                run(open_search(f"point-{point}"))
        again = run(open_search(f"point-{point}"))
        assert outcome(again) == whole, done[point - 1]
        assert [each["epoch"] for each in exchanges(again)] == [2, 4]


@pytest.mark.parametrize("first_lost", ["epoch", "exchange"])
def test_nobody_is_overwritten_while_the_journal_cannot_be_written(
    open_search, monkeypatch, first_lost
):
    """Storage fails from the last report before an exchange on; then the process is killed."""
    whole = outcome(run(open_search("whole")))
    with monkeypatch.context() as patch:
        whole_write, asleep = Journal._write, []

        def write(journal):
            if json.loads(journal._lines[-1])["event"] == first_lost and len(journal.order) == 16:
                asleep.append(True)
            if asleep:
                raise OSError(5, "asleep")
            whole_write(journal)

        patch.setattr(Journal, "_write", write)
        patch.setattr(population, "PATIENCE_S", 0.01)
        patch.setattr(population, "_RETRY_S", 0.01)
        if first_lost == "epoch":
            patch.setattr(CheckpointStore, "adopt", lambda *_: pytest.fail("too early"))
        with pytest.raises(StorageError, match="asleep"):
            run(open_search())
    assert outcome(run(open_search())) == whole


def test_storage_that_fails_for_a_while_changes_no_copy(open_search, monkeypatch):
    whole = outcome(run(open_search("whole")))
    adopt, failed = CheckpointStore.adopt, []

    def fails_twice(store, checkpoint, identity):
        failed.append(checkpoint)
        if len(failed) < 3:
            raise StorageError("asleep")
        adopt(store, checkpoint, identity)

    monkeypatch.setattr(CheckpointStore, "adopt", fails_twice)
    monkeypatch.setattr(population, "_RETRY_S", 0.01)
    assert outcome(run(open_search())) == whole
    assert len(failed) == 4 + 2


def test_a_damaged_source_is_not_copied(open_search, monkeypatch):
    def damaged(store, checkpoint, identity):
        raise RunError("truncated")

    monkeypatch.setattr(CheckpointStore, "adopt", damaged)
    search = run(open_search())
    assert [each["copies"] for each in exchanges(search)] == [[], []]
    assert {t.state for t in search.journal.trials} == {TrialState.FINISHED}


def test_a_member_that_fails_is_not_waited_for(open_search):
    search = run(open_search(), fails=3)
    assert search.journal.trials[3].state is TrialState.FAILED
    assert [len(each["copies"]) for each in exchanges(search)] == [1, 1]  # a quarter of seven
    assert {t.state for t in search.journal.trials if t.number != 3} == {TrialState.FINISHED}


def test_when_time_is_up_nothing_is_copied_and_nothing_waits(open_search, monkeypatch):
    search = open_search(**{"tune.time_budget_s": 100})
    monkeypatch.setattr(
        Search, "elapsed_s", property(lambda s: 101.0 if len(s.journal.order) == 16 else 1.0)
    )
    run_members = []
    while (spec := search.next()) is not None:
        run_members.append(Member(search, spec))
        for _ in range(2):
            run_members[-1].train_epoch()
        search.on_complete(spec.number)
    assert search.all_started()
    search.finish()
    assert {(t.state, t.reason) for t in search.journal.trials} == {
        (TrialState.STOPPED, "time is up")
    }
    assert exchanges(search) == []


# --- Decisions


def members(*scores: float, metric: str = "validation_accuracy") -> list[Trial]:
    return [
        Trial(number=n, values={SIZE: 8, RATE: 0.01}, history=[{metric: score}])
        for n, score in enumerate(scores)
    ]


def copied(trials, epoch: int = 1, **overrides) -> list[tuple[int, int]]:
    config = configured(**overrides)
    chosen = choose_copies(config.tune, parse_space(config), trials, epoch)
    return [(copy.trial, copy.source) for copy in chosen]


def test_the_last_quarter_copies_the_first():
    assert copied(members(0.3, 0.9, 0.5, 0.1)) == [(3, 1)]
    assert copied(members(0.3, 0.9, 0.5)) == []
    assert copied(members(0.3, 0.3, 0.3, 0.3)) == [(3, 0)]
    loss = members(0.3, 0.9, 0.5, 0.1, metric="validation_loss")
    assert copied(loss, **{"tune.metric": "validation_loss"}) == [(1, 3)]


def test_what_is_no_number_is_copied_by_nobody():
    nan = float("nan")
    assert copied(members(nan, 0.2, 0.3, 0.4)) == [(0, 3)]
    assert copied(members(nan, nan, nan, nan)) == []


def test_a_member_that_is_over_neither_copies_nor_is_copied():
    trials = members(0.3, 0.9, 0.5, 0.1, 0.4, 0.2)
    trials[1].state, trials[3].state = TrialState.STOPPED, TrialState.DIVERGED
    assert copied(trials) == [(5, 2)]


@given(
    scores=st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=20),
    seed=st.integers(0, 9),
)
def test_sources_are_ahead_of_copies_and_the_same_again(scores, seed):
    pairs = copied(members(*scores), **{"tune.seed": seed})
    assert pairs == copied(members(*scores), **{"tune.seed": seed})
    assert len({trial for trial, _ in pairs}) == len(pairs) <= len(scores) // 4
    assert not {trial for trial, _ in pairs} & {source for _, source in pairs}
    finite = {n: score for n, score in enumerate(scores) if score == score}
    for trial, source in pairs:
        assert source in finite
        assert finite.get(trial, -1.0) <= finite[source]
        assert sum(score > finite[source] for score in finite.values()) < len(scores) // 4


# --- How settings change


@given(
    kind=st.sampled_from(["uniform", "loguniform", "quniform", "choice"]),
    quantile=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_a_changed_value_is_one_of_the_space_and_near(kind, quantile, seed):
    args = {"quniform": (0.1, 0.5, 0.05), "choice": (0.5, 0.1, 0.2)}.get(kind, (0.1, 0.5))
    dimension = Dimension(name=RATE, kind=kind, args=args)
    value = dimension.quantile(quantile)
    resampled = np.random.default_rng(seed).random() < 0.25
    changed = changed_value(dimension, value, np.random.default_rng(seed))
    assert dimension.holds(changed)
    if not resampled and dimension.is_list:
        ordered = sorted(args)
        assert abs(ordered.index(changed) - ordered.index(value)) <= 1
    elif not resampled:
        step = dimension.step or 0.0
        near = {0.8 * value, 1.2 * value, value - step, value + step}
        assert any(abs(changed - dimension.nearest(each)) <= step + 1e-12 for each in near)


def test_what_shapes_the_network_stays():
    space = parse_space(configured())
    for seed in range(20):
        random = np.random.default_rng(seed)
        values = changed_settings(space, {SIZE: 16, RATE: 0.01}, random)
        assert values[SIZE] == 16
        assert values[RATE] != 0.01


def test_what_may_change_changes_no_tensor_of_a_checkpoint():
    from rnntune.model.network import Classifier

    config = configured(**{
        "model.embedding_dim": 4, "model.hidden_size": 4, "model.num_layers": 2,
        "model.embedding_std": 0.1, "model.ngrams": 2, "model.ngram_buckets": 8,
        "model.letter_buckets": 0, "model.recurrent_weight": 0.5, "model.recurrent_length": 9,
        "model.row_dropout": 0.1, "model.word_dropout": 0.1, "model.dropout": 0.1,
        "model.embedding_dropout": 0.1, "model.word_vectors": None,
    })  # fmt: skip
    changed = config.override(dict.fromkeys((n for n in CHANGEABLE if "model." in n), 0.3))
    shapes = [
        {name: value.shape for name, value in Classifier(c.model, 9, 3).state_dict().items()}
        for c in (config, changed)
    ]
    assert shapes[0] == shapes[1]


# --- Settings that make no sense


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tune.metric": ["validation_accuracy", "latency_ms"]}, "tune.metric: .* one metric"),
        ({"tune.folds": 3}, "tune.folds: pbt"),
        ({"tune.ensemble": 3}, "tune.ensemble: pbt"),
        ({"tune.refit": True}, "tune.refit: pbt"),
        ({"train.refit": True}, "train.refit: pbt"),
        ({"train.patience": 2}, "train.patience: pbt"),
        ({"tune.reduction_factor": 2}, "tune.reduction_factor: pbt has none"),
        ({"tune.finalists": 2}, "tune.finalists: pbt has none"),
        ({"tune.num_trials": 3}, "tune.num_trials: pbt needs at least 4 members, not 3"),
        ({"tune.grace_epochs": 6}, "tune.grace_epochs: pbt .* 6 epochs, and train.epochs is 6"),
        ({"tune.space": {SIZE: {"choice": [8, 16]}}}, "tune.space: pbt needs a setting"),
        (
            {"tune.space": {**SPACE, "train.epochs": {"choice": [4, 8]}}},
            "tune.space: train.epochs: pbt",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(overrides, message):
    config = configured(**overrides)
    with pytest.raises(ConfigError, match=message) as raised:
        check_population(config, parse_space(config))
    assert "\n" not in str(raised.value)
    other = config.override({"tune.scheduler": "none"})
    check_population(other, parse_space(other))


def test_what_was_a_default_before_is_no_mistake():
    config = configured(**{"tune.finalists": 3})  # as `config.yaml` of such a search has it
    check_population(config, parse_space(config))


@pytest.mark.parametrize("more", [["--tune.num_trials=3"], ["--tune.folds=2", "--dry-run"]])
def test_what_makes_no_sense_is_one_line_and_status_2(tmp_path, capsys, more):
    run = str(tmp_path / "run")
    assert main(["tune", "--output", run, "--tune.scheduler=pbt", *more]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path(run).exists()


def test_what_says_how_settings_changed_and_what_leaves_such_trials_out(open_search, tmp_path):
    search = run(open_search())
    trials, aims = search.journal.trials, Aims.of(search.config.tune)
    table = journal_table(search.config, trials).set_index("trial")
    last = exchanges(search)[-1]["copies"][0]
    assert table["copied"][last["trial"]].endswith(f"{last['source']} after 4")
    fixed = [trial for trial in trials if not trial.has_changed]
    assert list(table["copied"][[trial.number for trial in fixed]]) == [""] * len(fixed)
    names = list(SPACE)
    assert importance(trials, names, aims.first, 0) == importance(fixed, names, aims.first, 0)
    (tmp_path / "one" / "config.yaml").write_text(search.config.to_yaml())
    config = configured(**{"tune.warm_start": str(tmp_path / "one"), "tune.scheduler": "none"})
    warm = open_warm_start(config, parse_space(config), None)
    assert [t.values for s in warm.searches for t in s.trials] == [t.values for t in fixed]


def test_auto_becomes_what_a_population_needs():
    config = configured(**{"train.epochs": "auto"})
    check_population(config, parse_space(config))  # the number of epochs is checked later
    config = population_config(config)
    assert (config.train.patience, config.train.refit) == (0, False)
    other = configured(**{"tune.scheduler": "asha"})
    assert population_config(other) == other


@pytest.mark.parametrize("more", [Extension(num_trials=4), Extension(time_budget_s=9.0)])
def test_a_population_gets_no_further_members(more):
    with pytest.raises(ConfigError, match=r"^tune\.\w+: the members of a population"):
        more.extend(configured(**{"tune.time_budget_s": 9}))


# --- The journal


def test_an_exchange_that_cannot_have_been_is_refused(tmp_path):
    uri = tmp_path / "trials.jsonl"
    journal = Journal(str(uri))
    for number in range(2):
        journal.start(number, {RATE: 0.1}, 4)
        journal.epoch(number, {"epoch": 1, "validation_accuracy": 0.5})
    before = uri.read_text()
    good = Copy(trial=1, source=0, values={RATE: 0.2})
    journal.exchange(1, [good])
    assert Journal(str(uri)).trials == journal.trials
    assert Journal(str(uri)).exchanged_epoch == 1
    for epoch, copies in (
        (2, [good]), (1, [Copy(trial=1, source=7, values={})]),
        (1, [Copy(trial=1, source=1, values={})]), (0, []), (1, "x"),
    ):  # fmt: skip
        event = {"event": "exchange", "epoch": epoch, "copies": copies}
        line = json.dumps(event, default=lambda copy: vars(copy))
        uri.write_text(f"{before}{line}\n")
        with pytest.raises(RunError, match=r"trials\.jsonl:5: damaged"):
            Journal(str(uri))
