"""Probabilities that mean what they say: temperature scaling, and how far off they are.

    p = softmax(logits / T),   T the temperature with the least mean −log p(true) on N texts
    ECE = Σ_b n_b / N · |accuracy_b − confidence_b|   over 15 equal bins of the confidence

A share 1 / (N + 2) of each text counts for labels drawn evenly, so that a few texts that are all
right do not make a model sure of everything.

Source: Guo et al. 2017, "On calibration of modern neural networks"; the share: Platt 1999,
"Probabilistic outputs for support vector machines", section 2.2.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

Numbers = npt.NDArray[np.float64]
BINS = 15
_RANGE = (math.log(0.05), math.log(20.0))


def nll(logits: Tensor, targets: Tensor, temperature: float = 1.0, smoothing: float = 0.0) -> float:
    """Mean −log p of the targets (N,) under logits (N, C), in nats."""
    scaled = logits.double() / temperature
    return float(F.cross_entropy(scaled, targets, label_smoothing=smoothing))


def find_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature with the least nll; between 0.05 and 20.

    >>> import torch
    >>> logits = torch.tensor([[4.0, 0.0]] * 4000)  # sure of itself, and right three times of four
    >>> round(find_temperature(logits, torch.tensor([0, 0, 0, 1] * 1000)), 2)
    3.64
    """
    low, high = _RANGE
    smoothing = 1 / (len(targets) + 2)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(40):  # the nll is convex in 1 / T, so it has one lowest point in log T too
        left, right = high - golden * (high - low), low + golden * (high - low)
        losses = [nll(logits, targets, math.exp(at), smoothing) for at in (left, right)]
        if losses[0] <= losses[1]:
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def reliability(probabilities: Numbers, targets: npt.NDArray[np.int64]) -> list[dict[str, float]]:
    """For each bin of the confidence that is not empty: n, confidence and accuracy."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "n": int((bins == k).sum()),
            "confidence": float(confidence[bins == k].mean()),
            "accuracy": float(right[bins == k].mean()),
        }
        for k in np.unique(bins)
    ]


def expected_calibration_error(probabilities: Numbers, targets: npt.NDArray[np.int64]) -> float:
    """ECE of probabilities (N, C), a fraction.

    >>> expected_calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))
    0.4
    """
    rows = reliability(probabilities, targets)
    apart = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows)
    return round(apart / len(targets), 12)
