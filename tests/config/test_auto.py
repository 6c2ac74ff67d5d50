import pytest

from rnntune.config.auto import DataFacts, resolve, resolve_data, validation_share
from rnntune.config.load import Config, flatten
from rnntune.config.schema import AUTO, DataConfig

MACHINE = {
    "train.use_gpu",
    "train.precision",
    "data.format",
    "data.tokenizer",
    "data.encoding",
    "data.delimiter",
    "data.header",
    "data.multi_label",
}


def _facts(num_rows=5_000, length=12, classes=6, **others) -> DataFacts:
    lengths = [0] * length + [num_rows]
    return DataFacts(
        **{
            "num_rows": num_rows,
            "class_rows": (num_rows // classes,) * classes,
            "length_rows": tuple(lengths),
            "num_words": 8_000,
            "vector_coverage": 0.97,
            "mean_letters": 4.5,
            **others,
        }
    )


def _chosen(facts, **overrides) -> dict:
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    resolved, _ = resolve(Config.load(None, given), facts)
    return flatten(resolved.to_dict())


@pytest.mark.parametrize("num_rows", [600, 5_000, 66_000])
@pytest.mark.parametrize("coverage", [0.2, 0.97])
def test_nothing_of_the_data_stays_open(num_rows, coverage):
    config = Config.load(None, {"data.max_length": 9, "data.min_frequency": 1})
    resolved, choices = resolve(config, _facts(num_rows, vector_coverage=coverage))
    left = {name for name, value in flatten(resolved.to_dict()).items() if value == AUTO}
    assert left <= MACHINE | {"data.extra_words", "data.validation_fraction"}
    names = [choice.name for choice in choices]
    assert len(set(names)) == len(names)
    for choice in choices:
        assert flatten(resolved.to_dict())[choice.name] == choice.value
        assert choice.reason


def test_what_the_user_gives_stays():
    given = {"train.epochs": 2, "model.word_vectors": None, "batching.batch_rows": 7}
    resolved, choices = resolve(Config.load(None, given), _facts())
    flat = flatten(resolved.to_dict())
    assert {name: flat[name] for name in given} == given
    assert not set(given) & {choice.name for choice in choices}
    # and what follows from it follows: without vectors nothing of a word is dropped
    assert flat["model.row_dropout"] == 0.0
    assert flat["model.embedding_dim"] == 64


def test_a_large_corpus_keeps_the_settings_that_were_measured_on_ag_news():
    flat = _chosen(_facts(66_046, 43, 4))
    assert flat["train.epochs"] == 3
    assert flat["train.learning_rate"] == 0.003
    assert flat["batching.batch_rows"] == 64
    assert flat["model.ngrams"] == 2
    assert flat["model.letter_buckets"] == 0
    assert flat["model.ngram_buckets"] == 1 << 18
    assert flat["model.recurrent_weight"] == 1.0
    assert flat["train.ngram_learning_rate"] == 256.0
    assert flat["model.word_vectors"] == "glove.6B.50d"
    assert flat["model.row_dropout"] == 0.0
    assert flat["model.embedding_std"] == 0.1
    assert flat["model.embedding_dim"] == 64
    without = _chosen(_facts(66_046, 43, 4, vector_coverage=0.2))
    assert without["model.word_vectors"] is None
    assert without["train.learning_rate"] == 0.002
    assert without["model.embedding_std"] == 0.01


def test_small_data_gets_more_epochs_of_smaller_batches():
    small, large = _chosen(_facts(600)), _chosen(_facts(12_000))
    assert small["batching.batch_rows"] < large["batching.batch_rows"]
    assert small["train.epochs"] > large["train.epochs"]


def test_the_recurrent_branch_weighs_less_where_it_knows_less():
    def weight(**others) -> float:
        return _chosen(_facts(**others))["model.recurrent_weight"]

    assert weight() == 1.0
    assert weight(classes=20) == 0.5
    assert weight(length=300) == weight(length=300, classes=20) == 0.3
    assert weight(vector_coverage=0.1) == 0.3
    assert weight(vector_coverage=0.1, num_rows=600) == 0.1


def test_few_rows_give_more_of_them_to_validation_and_get_them_back():
    shares = [validation_share(num_rows).value for num_rows in (10, 600, 1_250, 2_500, 90_000)]
    assert shares == [0.15, 0.15, 0.1, 0.05, 0.05]
    assert _chosen(_facts(600))["train.refit"] is True
    assert _chosen(_facts(5_000))["train.refit"] is False
    assert _chosen(_facts(600), data__validation_source="v.csv")["train.refit"] is False


def test_many_long_texts_are_read_in_part_by_the_recurrent_layers():
    few, some, many = (
        _chosen(_facts(rows, 500))["model.recurrent_length"] for rows in (1_000, 4_000, 12_000)
    )
    assert few == some == 128
    assert many == 48
    assert _chosen(_facts(12_000, 40))["model.recurrent_length"] == 40


def test_few_very_long_texts_are_read_less_often():
    short, long = (_chosen(_facts(600, length))["train.epochs"] for length in (300, 2_000))
    assert short > long
    assert _chosen(_facts(600, 2_000), model__ngrams=0)["train.epochs"] > long


def test_long_texts_cost_no_more_tokens_than_short_ones():
    long = _chosen(_facts(5_000, 1_500))
    read = 5_000 * long["model.recurrent_length"] * long["train.epochs"]
    assert read < 3_000_000


def test_word_vectors_are_taken_where_they_know_the_words():
    assert _chosen(_facts(vector_coverage=0.95))["model.word_vectors"] == "glove.6B.50d"
    assert _chosen(_facts(vector_coverage=0.7))["model.word_vectors"] is None


def test_words_of_single_letters_have_no_letters_but_longer_phrases():
    flat = _chosen(_facts(mean_letters=1.1, vector_coverage=0.0))
    assert flat["model.letter_buckets"] == 0
    assert flat["model.ngrams"] == 3


@pytest.mark.parametrize("classes", [2, 77, 1_000])
def test_the_table_of_n_grams_is_bounded(classes):
    flat = _chosen(_facts(10_000, 200, classes, num_words=300_000))
    for name in ("model.ngram_buckets", "model.letter_buckets"):
        assert flat[name] * classes <= 1 << 25
        assert flat[name] & (flat[name] - 1) == 0


def test_preparation_keeps_every_word_of_little_data():
    chosen = {c.name: c.value for c in resolve_data(DataConfig(), 5_000, 60_000, 0.97)}
    assert chosen["data.min_frequency"] == 1
    assert chosen["data.extra_words"] > 0
    assert chosen["data.max_length"] == 10_000
    for rows, longest in ((500, 8_000), (2_000, 2_000), (12_000, 500)):
        many = {c.name: c.value for c in resolve_data(DataConfig(), rows, 3_000_000, 0.97)}
        assert many["data.max_length"] == longest
    large = {c.name: c.value for c in resolve_data(DataConfig(), 66_000, 2_800_000, 0.97)}
    assert large["data.min_frequency"] == 2
    assert large["data.extra_words"] == 0
    assert resolve_data(DataConfig(min_frequency=3, extra_words=0, max_length=9), 10, 99, 0.0) == ()


def test_sets_of_labels_are_compared_by_micro_f1():
    for multi_label, name in ((False, "validation_accuracy"), (True, "validation_micro_f1")):
        chosen = _chosen(_facts(multi_label=multi_label))
        assert chosen["train.metric"] == chosen["tune.metric"] == name
    assert _chosen(_facts(multi_label=True), tune__metric="validation_loss")["tune.metric"] == (
        "validation_loss"
    )
