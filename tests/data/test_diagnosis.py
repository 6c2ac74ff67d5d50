import dataclasses

import pytest

from rnntune.data.diagnosis import diagnose_data
from rnntune.data.prepared import PreparedDataset, Split

TRAIN = Split(
    files=(), file_rows=(), num_rows=1_000, num_tokens=9_000, num_known=9_000, num_cut=0,
    class_rows=(600, 400), length_rows=(0, 0, 1_000),
)  # fmt: skip
OTHER = dataclasses.replace(TRAIN, num_rows=100, num_tokens=900, num_known=880)
SOUND = PreparedDataset(
    uri="", fingerprint="f", classes=("a", "b"),
    splits={"train": TRAIN, "validation": OTHER, "test": OTHER},
    num_skipped=0, problems=(), num_words=5_000, num_trained_words=5_000, rows_per_s=1.0,
    clean=False, tokenizer="words",
)  # fmt: skip


def _changed(split: str, **values) -> PreparedDataset:
    changed = dataclasses.replace(SOUND.splits[split], **values)
    return dataclasses.replace(SOUND, splits={**SOUND.splits, split: changed})


def test_sound_data_has_no_line():
    assert diagnose_data(SOUND) == []


@pytest.mark.parametrize(
    ("prepared", "line"),
    [
        (_changed("train", class_rows=(997, 3)), "class 'b' has fewer than 5 training rows (3)"),
        (_changed("train", class_rows=(1, 2)), "class 'a' and 1 more classes have fewer"),
        (_changed("test", num_known=500), "44% of the words of the test rows are unknown"),
        (_changed("train", num_cut=120), "12% of the training texts are cut after 2 tokens"),
        (dataclasses.replace(SOUND, num_trained_words=40), "the vocabulary has 40 words"),
    ],
)
def test_each_fault_is_one_line_with_what_to_do(prepared, line):
    (found,) = diagnose_data(prepared)
    assert found.startswith(line)
    assert ":" in found
