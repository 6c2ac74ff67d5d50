import pickle

import numpy as np
import yaml
from models import texts, write_random_ensemble, write_random_model

from rnntune.inference.classifier import load


def test_a_model_splits_texts_as_its_training_did(tmp_path):
    """The tokenizer is part of the model folder; folders of before it stand for basic_english."""
    words = load(write_random_model(tmp_path / "words", tokenizer="words"))
    english = load(write_random_model(tmp_path / "english"))
    joined, apart = ["the-cup", "final"], ["the - cup", "final"]
    np.testing.assert_array_equal(words.predict_proba(joined), words.predict_proba(apart))
    assert np.abs(english.predict_proba(joined) - english.predict_proba(apart))[0].max() > 0.01
    file = tmp_path / "english" / "config.yaml"
    content = yaml.safe_load(file.read_text())
    assert content.pop("tokenizer") == "basic_english"
    file.write_text(yaml.safe_dump(content))
    old = load(str(tmp_path / "english"))
    np.testing.assert_array_equal(old.predict_proba(joined), english.predict_proba(joined))


def test_an_ensemble_predicts_with_the_mean_of_its_networks(tmp_path):
    settings = [(3, {"hidden_size": 4}), (1, {"cell": "gru", "packed": False})]
    folder = write_random_ensemble(tmp_path / "model", settings)
    rows = [*texts(60), ""]
    alone = [load(f"{folder}-{number}").predict_proba(rows) for number in range(2)]
    found = load(folder)
    expected = np.average(alone, axis=0, weights=[3, 1])
    np.testing.assert_allclose(found.predict_proba(rows), expected, rtol=0, atol=1e-6)
    copied = pickle.loads(pickle.dumps(found))
    assert copied.predict(rows) == found.predict(rows)
