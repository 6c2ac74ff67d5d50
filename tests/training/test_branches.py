import dataclasses

import numpy as np
import torch
from models import PLAIN
from strategies import coded_rows

from rnntune.config.schema import BatchingConfig, ModelConfig, TrainConfig
from rnntune.data.batching import EncodedRows, collate
from rnntune.data.loader import Shard, TrainBatches, scoring_batches
from rnntune.data.task import Task
from rnntune.data.vocabulary import UNKNOWN
from rnntune.model.network import Classifier
from rnntune.training.branches import choose_branch_weights
from rnntune.training.loop import fit, sum_losses
from rnntune.training.targets import targets_of

CPU = torch.device("cpu")


def _branches(rows: int):
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (rows,), generator=random)
    right = torch.nn.functional.one_hot(labels, 3).float() * 3
    noise = torch.randn(rows, 3, generator=random) * 3
    return labels, right, noise


def test_the_branch_that_is_right_is_heard():
    labels, right, noise = _branches(400)
    recurrent, linear = choose_branch_weights(torch.stack([right, noise]), labels, 0.3)
    assert recurrent > 2 * linear
    recurrent, linear = choose_branch_weights(torch.stack([noise, right]), labels, 1.0)
    assert linear > 5 * recurrent


def test_a_few_rows_do_not_overrule_what_is_expected():
    labels, right, noise = _branches(4)
    recurrent, linear = choose_branch_weights(torch.stack([right, noise]), labels, 0.3)
    assert recurrent <= linear


def _rows(num_rows: int, seed: int) -> EncodedRows:
    lengths = np.random.default_rng(seed).integers(2, 9, num_rows).astype(np.int32)
    rows = coded_rows(lengths)
    ids = np.random.default_rng(seed + 1).integers(2, 28, len(rows.ids)).astype(np.int32)
    labels = (ids[rows.starts] < 15).astype(np.int64)
    return EncodedRows(ids=ids, lengths=lengths, labels=labels)


def test_the_labels_of_every_branch_are_smoothed():
    batch = collate(_rows(6, 0), np.arange(6))
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    targets = targets_of(Task.SINGLE_LABEL)
    alone = sum_losses(targets, logits[None], batch, 0.1)
    both = sum_losses(targets, torch.stack([logits, logits]), batch, 0.1)
    torch.testing.assert_close(both, 2 * alone)
    assert not torch.isclose(alone, sum_losses(targets, logits[None], batch, 0.0))


def _train(config: TrainConfig, num_trained_words: int | None = None, **options):
    torch.manual_seed(0)
    settings = {**PLAIN, "ngrams": 2, "ngram_buckets": 64, "letter_buckets": 0}
    model = ModelConfig(**settings, embedding_dim=6, hidden_size=5, recurrent_weight=1.0)
    net = Classifier(model, 28, 2, num_trained_words=num_trained_words, sparse=True)
    rows, held_out = _rows(90, 0), _rows(40, 7)
    state = fit(
        net,
        TrainBatches([Shard(num_rows=90, load=lambda: rows)], BatchingConfig(batch_rows=8), seed=0),
        lambda: scoring_batches([Shard(num_rows=40, load=lambda: held_out)]),
        config,
        device=CPU,
        report=options.pop("report", lambda _: None),
        **options,
    )
    return net, state


CONFIG = TrainConfig(
    epochs=6,
    patience=0,
    learning_rate=0.02,
    ngram_learning_rate=5.0,
    warmup_fraction=0.05,
    label_smoothing=0.0,
    average_weights=True,
)


def test_the_last_epoch_takes_the_mean_of_the_weights():
    kept = []

    def report(event):
        if event.kind == "epoch":
            kept.append({n: v.clone() for n, v in event.snapshot().model.items()})

    net, state = _train(CONFIG, report=report)
    assert state.best_epoch == 6
    assert state.history[-1]["averaged"]
    alone, _ = _train(dataclasses.replace(CONFIG, average_weights=False))
    name = "rnn.weight_hh_l0"
    assert not torch.allclose(dict(net.named_parameters())[name], kept[-2][name])
    assert torch.equal(net.state_dict()[name], kept[-1][name])
    assert not torch.equal(net.state_dict()[name], alone.state_dict()[name])
    # the mean of the epochs before the last moves it towards them
    before = torch.stack([kept[3][name], kept[4][name]]).mean(dim=0)
    assert (net.state_dict()[name] - before).norm() < (kept[4][name] - kept[2][name]).norm()


def test_a_run_that_goes_on_while_it_averages_ends_in_the_same_bits():
    snapshots = []

    def report(event):
        if event.kind == "epoch":
            found = event.snapshot()
            copied = {
                name: None if getattr(found, name) is None else
                {key: value.clone() for key, value in getattr(found, name).items()}
                for name in ("model", "optimizer", "best", "average")
            }  # fmt: skip
            state = dataclasses.replace(found.state, history=[*found.state.history])
            snapshots.append(dataclasses.replace(found, state=state, **copied))

    whole, _ = _train(CONFIG, report=report)
    again, _ = _train(CONFIG, resume=snapshots[4])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_rows_of_a_class_that_weighs_nothing_are_not_learned():
    weighed, _ = _train(CONFIG, class_weights=(2.0, 1e-6))
    batch = next(iter(scoring_batches([Shard(num_rows=40, load=lambda: _rows(40, 7))])))
    logits = weighed.eval()(batch.ids, batch.lengths)
    assert (logits.argmax(dim=1) == 0).all()


def test_n_grams_are_learned():
    net, state = _train(CONFIG)
    assert net.ngrams.table.weight.abs().sum() > 0
    assert net.ngrams.idf.max() > 1
    assert state.history[-1]["train_accuracy"] > 0.75


def test_words_without_trained_rows_are_counted_as_the_unknown_word():
    net, _ = _train(CONFIG, num_trained_words=20)  # of 28 that the rows hold
    counted = net.ngrams.idf.clone()
    batches = scoring_batches([Shard(num_rows=90, load=lambda: _rows(90, 0))])
    known = [(torch.where(b.ids < 20, b.ids, UNKNOWN), b.lengths) for b in batches]
    net.ngrams.set_idf(net.ngrams.count_texts(known))
    assert torch.equal(net.ngrams.idf, counted)
