"""What a search refuses before its first trial, without a cluster."""

import pytest

from rnntune.cluster.resources import Resources
from rnntune.config.load import Config
from rnntune.console import Terminal
from rnntune.data.prepared import PreparedDataset, Split
from rnntune.errors import ConfigError, DataError
from rnntune.training.run_folder import RunFolder
from rnntune.tuning import plan, session
from rnntune.tuning.plan import check_folds, plan_search
from rnntune.tuning.session import SearchSession
from rnntune.tuning.space_parser import parse_space
from rnntune.tuning.trial_loop import dataset_key


def prepared(train: tuple[int, ...], validation: tuple[int, ...]) -> PreparedDataset:
    def split(class_rows: tuple[int, ...]) -> Split:
        rows = sum(class_rows)
        return Split(
            files=(), file_rows=(), num_rows=rows, num_tokens=rows, num_known=rows, num_cut=0,
            class_rows=class_rows, length_rows=(0, rows),
        )  # fmt: skip

    splits = {"train": split(train), "validation": split(validation), "test": split((1, 1))}
    return PreparedDataset(
        uri="u", fingerprint="f", classes=("a", "b"), splits=splits, num_skipped=0, problems=(),
        num_words=4, num_trained_words=4, rows_per_s=1.0, clean=False, tokenizer="words",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("train", "validation", "folds", "remedy"),
    [((9, 4), (2, 2), 7, "at most 6"), ((9, 1), (2, 0), 2, "leave tune.folds out")],
)
def test_a_class_with_fewer_rows_than_folds_is_refused(train, validation, folds, remedy):
    config = Config.load(None, {"tune.folds": folds, "data.source": "a.csv"})
    with pytest.raises(
        DataError, match=f"tune.folds is {folds}, but class 'b' of a.csv .*{remedy}"
    ):
        check_folds(config, prepared(train, validation))


def test_folds_that_fit_are_taken_and_none_ask_for_nothing():
    check_folds(Config.load(None, {"tune.folds": 6}), prepared((9, 4), (2, 2)))
    check_folds(Config(), prepared((9, 1), (2, 0)))


@pytest.mark.parametrize("folds", [1, 0, -3])
def test_too_few_folds_are_refused(folds):
    with pytest.raises(ConfigError, match=r"tune\.folds: .*greater than or equal to 2, not"):
        Config.load(None, {"tune.folds": folds})


def test_folds_are_not_for_trials_of_several_workers():
    with pytest.raises(ConfigError, match="folds: a trial of 2 workers trains on one split"):
        Config.load(None, {"tune.folds": 3, "tune.workers_per_trial": 2})


@pytest.mark.parametrize(("store_bytes", "fits"), [(2_300, False), (4_600, True)])
def test_all_variants_of_the_data_must_fit_the_object_store(
    store_bytes, fits, monkeypatch, tmp_path
):
    """Each of the two takes 752 bytes: a third of 2,300 holds one of them, not both."""
    from rnntune.training import shared_dataset

    resources = Resources(nodes=({"CPU": 1.0},), object_store_bytes=store_bytes)
    for module in (plan, shared_dataset):
        monkeypatch.setattr(module, "cluster_resources", lambda: resources)
    asked = []
    monkeypatch.setattr(
        session,
        "share_dataset",
        lambda *given, in_store: asked.append(in_store) or shared_dataset.hold_dataset(*given),
    )
    config = Config.load(
        None,
        {
            "tune.space": {"data.max_length": {"choice": [8, 16]}},
            "model.word_vectors": None,
            "model.ngrams": 0,
        },
    )
    variants = {dataset_key({"data.max_length": n}): prepared((30, 9), (2, 4)) for n in (8, 16)}
    assert [each.encoded_bytes for each in variants.values()] == [752, 752]
    told = []
    terminal = Terminal(silent=True)
    terminal.line = told.append
    space = parse_space(config)
    SearchSession(config, RunFolder(str(tmp_path)), space, variants, terminal)
    assert asked == [fits, fits]
    planned = plan_search(config, space, variants)
    assert planned.object_store_bytes == (2 * 45 * 16 if fits else 0)
    assert [line for line in told if "2 variants" in line] == told[: 0 if fits else 1]
