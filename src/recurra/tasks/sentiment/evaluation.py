"""Scores of a classifier on labelled texts, beside what needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recurra.report.results import make_result
from recurra.tasks.sentiment.calibration import expected_calibration_error, reliability
from recurra.tasks.sentiment.examples import (
    Examples,
    check_labels,
    describe_balance,
    fingerprints,
)
from recurra.tasks.sentiment.fitted import Fitted
from recurra.tasks.sentiment.words import written_words

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """What was found on N labelled texts.

    rows           each model's probabilities (N, C), ours under "recurra"
    uncalibrated   ours without the temperature
    """

    labels: tuple[str, ...]
    targets: Labels
    rows: dict[str, Probabilities]
    uncalibrated: Probabilities
    min_confidence: float | None
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of the texts whose likeliest label is the true one."""
        return float(np.mean(self.rows["recurra"].argmax(1) == self.targets))

    def results(self) -> list[dict[str, Any]]:
        """A row of metrics for each model."""
        results = [make_result(name, score(rows, self.targets)) for name, rows in self.rows.items()]
        if self.min_confidence is not None:
            results.append(
                make_result(f"recurra, at least {self.min_confidence:g} sure", self._answered())
            )
        return results

    def _answered(self) -> dict[str, float | None]:
        """Scores over the texts that are answered, and how many these are."""
        ours = self.rows["recurra"]
        sure = ours.max(1) >= self.min_confidence
        metrics = score(ours[sure], self.targets[sure]) if sure.any() else {}
        return {**metrics, "answered": float(sure.mean())}

    def details(self) -> dict[str, Any]:
        """Confusions, calibration and the counts of each label, for the report."""
        predicted = self.rows["recurra"].argmax(1)
        size = len(self.labels)
        confusion = np.bincount(self.targets * size + predicted, minlength=size * size)
        return {
            "labels": list(self.labels),
            "confusion": confusion.reshape(size, size).tolist(),
            "reliability": reliability(self.rows["recurra"], self.targets),
        }


def score(probabilities: Probabilities, targets: Labels) -> dict[str, float]:
    """accuracy, macro_f1, ece as fractions, and nll in nats.

    macro_f1 is the mean over labels that are true or predicted somewhere.

    >>> score(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))["accuracy"]
    0.5
    """
    predicted = probabilities.argmax(1)
    f1 = []
    for label in np.union1d(predicted, targets):
        both = np.sum((predicted == label) & (targets == label))
        f1.append(2 * both / (np.sum(predicted == label) + np.sum(targets == label)))
    chosen = probabilities[np.arange(len(targets)), targets]
    return {
        "accuracy": float(np.mean(predicted == targets)),
        "macro_f1": float(np.mean(f1)),
        "ece": expected_calibration_error(probabilities, targets),
        "nll": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
    }


def evaluate(fitted: Fitted, examples: Examples, min_confidence: float | None = None) -> Evaluation:
    """Score a classifier on examples.

    min_confidence   also score only the texts whose likeliest label has this probability
    Raises: DataError for labels that were not trained.
    """
    check_labels(examples, fitted.labels)
    numbers = {label: k for k, label in enumerate(fitted.labels)}
    targets = np.array([numbers[label] for label in examples.labels], np.int64)
    logits = fitted.logits(examples.texts)
    uncalibrated = torch.softmax(logits.double(), dim=1).numpy()
    rows = {
        "majority": np.tile(
            (fitted.bayes.texts + 1) / (fitted.bayes.texts + 1).sum(), (len(targets), 1)
        ),
        "naive_bayes": _naive_bayes(fitted, examples.texts),
        "recurra": fitted.calibrated(logits),
    }
    seen = int(np.isin(fingerprints(examples.texts), fitted.seen).sum())
    notes = [
        f"labels: {describe_balance(examples.balance)}",
        f"{seen} of {len(targets)} texts are in the training table too"
        + (", up to case and blanks; they are scored like all others" if seen else ""),
        f"temperature {fitted.temperature:.3f}; without it the ece is "
        f"{expected_calibration_error(uncalibrated, targets):.4f}",
    ]
    return Evaluation(fitted.labels, targets, rows, uncalibrated, min_confidence, tuple(notes))


def _naive_bayes(fitted: Fitted, texts: Sequence[str]) -> Probabilities:
    rows = [fitted.bayes.log_posterior(written_words(text)) for text in texts]
    return np.exp(np.stack(rows))
