import numpy as np

from rnntune.report.class_figures import class_section
from rnntune.report.run_contents import DataFigures, Predictions


def _predictions(label, predicted) -> Predictions:
    ones = np.ones(len(label))
    return Predictions(
        row=np.arange(len(label)), label=np.array(label), predicted=np.array(predicted),
        probability=ones, calibrated=ones, text=[None] * len(label),
    )  # fmt: skip


def _section(label, predicted):
    data = DataFigures(
        fingerprint="f", classes=("a", "b"), num_words=9, splits={}, telling_words=()
    )
    return class_section(data, _predictions(label, predicted))


def test_sets_of_labels_have_scores_of_each_class_and_no_matrix():
    label = [[True, False], [True, True], [False, False], [True, False]]
    given = [[True, False], [False, True], [False, True], [True, False]]
    section = _section(label, given)
    assert not section.figures
    (table,) = section.tables
    assert table.rows == [["a", 1.0, 2 / 3, 0.8, 3, 2], ["b", 0.5, 1.0, 2 / 3, 1, 2]]
    assert section.text == (
        "Over 4 test rows; a row has 1.00 labels in the mean, 1.00 are predicted.",
    )
    assert _predictions(label, given).right.tolist() == [True, False, False, True]


def test_one_class_a_row_has_the_same_scores_of_a_matrix():
    section = _section([0, 0, 1, 1], [0, 1, 1, 1])
    assert section.figures[0].key == "confusion"
    assert section.tables[0].rows == [["a", 1.0, 0.5, 2 / 3, 2, 1], ["b", 2 / 3, 1.0, 0.8, 2, 3]]
