import pytest

from rnntune.errors import ConfigError
from rnntune.training.class_weights import class_weights, positive_weights

CLASSES, ROWS = ("ham", "spam"), (90, 10)


def test_without_a_setting_all_rows_count_alike():
    assert class_weights(None, CLASSES, ROWS) is None


def test_balanced_classes_count_alike():
    ham, spam = class_weights("balanced", CLASSES, ROWS)
    assert ham * 90 == pytest.approx(spam * 10)
    assert ham * 90 + spam * 10 == pytest.approx(100)


def test_a_mapping_names_some_classes():
    ham, spam = class_weights({"spam": 3.0}, CLASSES, ROWS)
    assert spam == pytest.approx(3 * ham)
    assert ham * 90 + spam * 10 == pytest.approx(100)


def test_a_name_that_is_no_class_is_refused():
    with pytest.raises(ConfigError, match=r"no class 'Spam'; classes: ham, spam"):
        class_weights({"Spam": 3.0}, CLASSES, ROWS)


def test_of_sets_of_labels_a_weight_is_that_of_the_rows_with_the_class():
    assert positive_weights(None, CLASSES, (50, 1), 100) is None
    even, rare = positive_weights("balanced", CLASSES, (50, 1), 100)
    assert even == pytest.approx(1)
    assert rare == pytest.approx((99.5 / 1.5) ** 0.5)
    assert positive_weights({"spam": 3.0}, CLASSES, (50, 1), 100) == (1.0, 3.0)
    with pytest.raises(ConfigError, match="no class 'Spam'"):
        positive_weights({"Spam": 3.0}, CLASSES, (50, 1), 100)
