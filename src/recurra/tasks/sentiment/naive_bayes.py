"""Naive Bayes over words and pairs of words: the lexical shortcut, and a baseline.

    r_fc = log (n_fc + 1) / (N_c + F) − log (n_f¬c + 1) / (N_¬c + F)
    z_c  = Σ_f r_fc / √n      over the n distinct features f of a text

n_fc counts the training texts of label c that have the feature, N_c = Σ_f n_fc, ¬c is every other
label. A training text is scored without its own counts, else the network would learn to trust
scores that have seen the answer.

Source: Wang and Manning 2012, "Baselines and bigrams: simple, good sentiment and topic
classification"; the leaving out and √n are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from recurra.tasks.sentiment.words import Ids

Scores = npt.NDArray[np.float32]
_LEAST = 2  # texts that a feature is in: fewer says nothing about a text it was not counted in


class NaiveBayes:
    """Counts of features by label.

    features   by number; a pair is two words with a blank between
    counts     (F, C) training texts of each label that have the feature
    texts      (C,) training texts of each label

    >>> bayes = NaiveBayes.learn([["good"], ["good"], ["bad"], ["bad"]], [0, 0, 1, 1], 2, 10)
    >>> bayes.features, bool(bayes.score(["so", "good"])[0] > 0)
    (['bad', 'good'], True)
    """

    def __init__(self, features: Sequence[str], counts: Ids, texts: Ids) -> None:
        self.features = list(features)
        self.counts = counts
        self.texts = texts
        self._numbers = {feature: k for k, feature in enumerate(self.features)}
        self._totals = counts.sum(axis=0)
        self.log_odds = _log_odds(counts, self._totals, len(self.features))

    @classmethod
    def learn(
        cls, texts: Sequence[Sequence[str]], labels: Sequence[int], num_labels: int, most: int
    ) -> NaiveBayes:
        """Count the `most` frequent features in texts (words) with labels 0 to num_labels - 1."""
        spread: Counter[str] = Counter()
        for words in texts:
            spread.update(set(feature_names(words)))
        ranked = sorted(spread, key=lambda feature: (-spread[feature], feature))
        features = [feature for feature in ranked if spread[feature] >= _LEAST][:most]
        numbers = {feature: k for k, feature in enumerate(features)}
        counts = np.zeros((len(features), num_labels), np.int64)
        for words, label in zip(texts, labels, strict=True):
            found = {numbers[name] for name in feature_names(words) if name in numbers}
            counts[sorted(found), label] += 1
        return cls(features, counts, np.bincount(labels, minlength=num_labels))

    def find(self, words: Sequence[str]) -> Ids:
        """The distinct known features of a text, sorted."""
        known = self._numbers
        found = {known[name] for name in feature_names(words) if name in known}
        return np.array(sorted(found), np.int64)

    def score(self, words: Sequence[str], label: int | None = None) -> Scores:
        """z (C,) of a text; with the label of a training text, without that text's counts."""
        found = self.find(words)
        if not len(found):
            return np.zeros(len(self.texts), np.float32)
        odds = self.log_odds[found]
        if label is not None:
            counts, totals = self.counts[found], self._totals.copy()
            counts[:, label] -= 1
            totals[label] -= len(found)
            odds = _log_odds(counts, totals, len(self.features))
        return np.asarray(odds.sum(axis=0) / np.sqrt(len(found)), np.float32)

    def log_posterior(self, words: Sequence[str]) -> npt.NDArray[np.float64]:
        """log p(label | text) (C,) of naive Bayes by itself."""
        likelihood = np.log((self.counts + 1) / (self._totals + len(self.features)))
        joint = np.log((self.texts + 1) / (self.texts + 1).sum())
        joint = joint + likelihood[self.find(words)].sum(axis=0)
        return np.asarray(joint - np.logaddexp.reduce(joint), np.float64)

    def contributions(self, words: Sequence[str]) -> Scores:
        """What each word of a text adds to z, (n, C): a pair's share is halved between its words.

        A feature that occurs several times counts once, shared out among all its places.
        """
        shares = np.zeros((len(words), len(self.texts)))
        places: dict[int, list[tuple[int, ...]]] = {}
        for name, at in _places(words):
            if name in self._numbers:
                places.setdefault(self._numbers[name], []).append(at)
        for number, several in places.items():
            for at in several:
                for k in at:
                    shares[k] += self.log_odds[number] / (len(several) * len(at))
        return np.asarray(shares / np.sqrt(max(1, len(places))), np.float32)


def feature_names(words: Sequence[str]) -> Iterator[str]:
    """The names of a text's features: its words and neighbouring pairs, in lower case."""
    return (name for name, _ in _places(words))


def _places(words: Iterable[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    before = None
    for k, word in enumerate(words):
        lower = word.lower()
        yield lower, (k,)
        if before is not None:
            yield f"{before} {lower}", (k - 1, k)
        before = lower


def _log_odds(counts: Ids, totals: Ids, features: int) -> npt.NDArray[np.float64]:
    others, other_totals = counts.sum(axis=1, keepdims=True) - counts, totals.sum() - totals
    return np.asarray(
        np.log((counts + 1) / (totals + features))
        - np.log((others + 1) / (other_totals + features)),
        np.float64,
    )
