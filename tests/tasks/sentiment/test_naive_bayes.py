from __future__ import annotations

import numpy as np
import pytest
from tests.tasks.sentiment.reviews import reviews

from recurra.tasks.sentiment.naive_bayes import NaiveBayes
from recurra.tasks.sentiment.words import written_words

TEXTS = [["good", "film"], ["good", "end"], ["bad", "film"], ["bad", "end"]]
LABELS = [0, 0, 1, 1]


def test_log_odds_are_those_of_the_formula() -> None:
    bayes = NaiveBayes.learn(TEXTS, LABELS, 2, 100)
    assert bayes.features == ["bad", "end", "film", "good"]  # each in two texts; pairs in one
    assert bayes.counts.tolist() == [[0, 2], [1, 1], [1, 1], [2, 0]]
    # n = 2 of N = 4 counts, F = 4 features: (2 + 1) / (4 + 4) against (0 + 1) / (4 + 4)
    assert bayes.log_odds[3, 0] == pytest.approx(np.log(3))
    assert bayes.score(["good", "film"])[0] == pytest.approx(np.log(3) / np.sqrt(2))


def test_a_training_text_is_scored_as_if_it_had_not_been_counted() -> None:
    examples = reviews(40)
    words = [written_words(text) for text in examples.texts]
    labels = [int(label == "pos") for label in examples.labels]
    bayes = NaiveBayes.learn(words, labels, 2, 1000)
    for k in range(5):
        counts = bayes.counts.copy()
        counts[bayes.find(words[k]), labels[k]] -= 1
        without = NaiveBayes(bayes.features, counts, bayes.texts)
        np.testing.assert_allclose(bayes.score(words[k], labels[k]), without.score(words[k]))
        assert not np.allclose(bayes.score(words[k], labels[k]), bayes.score(words[k]))


def test_contributions_sum_up_to_the_score() -> None:
    bayes = NaiveBayes.learn([*TEXTS, *TEXTS], LABELS * 2, 2, 100)
    words = ["good", "film", "new", "good", "film", "end"]
    shares = bayes.contributions(words)
    np.testing.assert_allclose(shares.sum(axis=0), bayes.score(words), rtol=1e-6)
    assert shares[2].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(shares[0], shares[3])


def test_the_posterior_is_that_of_counting() -> None:
    bayes = NaiveBayes.learn(TEXTS, LABELS, 2, 100)
    # equal priors; p(good | 0) = 3/8, p(good | 1) = 1/8
    assert np.exp(bayes.log_posterior(["good"])) == pytest.approx([0.75, 0.25])


def test_without_features_the_score_is_zero() -> None:
    bayes = NaiveBayes.learn(TEXTS, LABELS, 2, 0)
    assert bayes.score(["good"]).tolist() == [0.0, 0.0]
    assert bayes.contributions(["good"]).tolist() == [[0.0, 0.0]]
