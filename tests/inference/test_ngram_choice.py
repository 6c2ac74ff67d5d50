import numpy as np

from rnntune.inference.ngram_choice import choose_features


def _weights():
    rng = np.random.default_rng(0)
    idf = rng.uniform(1, 8, 40).astype(np.float32)
    idf[[0, 1, 13, 27]] = 0  # never met
    return {"ngrams.table.weight": rng.normal(size=(40, 3)).astype(np.float32), "ngrams.idf": idf}


def test_all_that_training_met_is_kept_at_most():
    weights = _weights()
    found = choose_features(weights, [10, 25], 1.0)
    assert found.kept.tolist() == found.seen.tolist() == (weights["ngrams.idf"] > 0).tolist()
    np.testing.assert_array_equal(
        found.table[found.num_shared :], weights["ngrams.table.weight"][found.kept]
    )


def test_what_moves_the_scores_is_kept_and_the_rest_counts_in_the_length():
    weights = _weights()
    weights["ngrams.table.weight"][[5, 30]] += np.array([50, 0, -50])
    weights["ngrams.table.weight"][6] += 50  # of all classes alike: of no use
    found = choose_features(weights, [10, 25], 2 / 36)
    assert np.flatnonzero(found.kept).tolist() == [5, 30]
    assert not found.table[: found.num_shared].any()
    idf = weights["ngrams.idf"]
    words = [n for n in range(10) if n != 5 and idf[n] > 0]
    np.testing.assert_allclose(found.idf[:2], [0, idf[words].mean()], rtol=1e-6)
    np.testing.assert_array_equal(found.idf[found.num_shared :], idf[[5, 30]])
