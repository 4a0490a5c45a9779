"""Why a text has its label: what each word adds to the margin of that label over the others.

    margin    = logit_c − mean of the other logits
    network_t = Σ_e x_te · mean_k ∂margin/∂x_te at x · (k − ½) / K       k = 1 … K
    lexical_t = the word's share of the naive-Bayes score (exact, it is linear)

Integrated gradients along the line from vectors of 0 to those of the text: the words' values sum
up to the margin less the margin of no words, up to the sum's error, which is told as `gap`. One
step at the end of the line is gradient × input.

Source: Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", eq. 1 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from recurra.errors import ConfigError, unknown
from recurra.tasks.sentiment.batches import collate
from recurra.tasks.sentiment.fitted import Fitted
from recurra.tasks.sentiment.words import NO_WORDS, WordTable, split_words

Method = Literal["integrated", "gradient"]
METHODS = ("integrated", "gradient")
_STEPS = 32
_WORDS_AT_ONCE = 4096


@dataclass(frozen=True)
class Explanation:
    """A text by its words, and what each of them adds.

    label    the label that the values speak for, which is the likeliest one
    pieces   the text in pieces: words, and what stands between them with a value of 0
    values   of each piece, in nats of the margin before calibration
    gap      the part of the margin that the values do not account for
    """

    label: str
    probabilities: dict[str, float]
    pieces: tuple[str, ...]
    values: tuple[float, ...]
    gap: float

    def to_json(self) -> dict[str, Any]:
        """The explanation as a JSON object; words with their values only."""
        return {
            "label": self.label,
            "probabilities": self.probabilities,
            "words": [
                {"word": piece, "value": round(value, 4)}
                for piece, value in zip(self.pieces, self.values, strict=True)
                if piece.strip()
            ],
            "gap": round(self.gap, 4),
        }

    def to_report(self) -> dict[str, Any]:
        """The whole text by its pieces, as the report draws it."""
        return {
            "label": self.label,
            "confidence": round(self.probabilities[self.label], 6),
            "pieces": list(self.pieces),
            "values": [round(value, 4) for value in self.values],
        }


def explain(fitted: Fitted, text: str, method: Method = "integrated") -> Explanation:
    """Explain the likeliest label of a text.

    method   "integrated" gradients, or "gradient" × input, which takes one pass instead of 32

    The network's states for the whole text are held in memory, as in training.
    Raises: ConfigError for an unknown method.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    words = split_words(text)
    written = [word.text for word in words] or [NO_WORDS]
    network, table = fitted.network, WordTable(fitted.vocabulary)
    lexical = torch.from_numpy(fitted.bayes.score(written))[None]
    batch = collate(table, [table.add(written)], lexical)
    with torch.no_grad():
        vectors = network.vectors(batch.numbers, batch.buckets, batch.offsets)
        x = vectors[batch.tokens[0]]  # (T, E)
        logits = network.logits(network.read_embedded(x[None]), lexical)
        empty = network.logits(network.read_embedded(torch.zeros_like(x)[None]), 0 * lexical)
    at = int(logits.argmax())
    direction = torch.full_like(logits[0], -1 / (logits.shape[1] - 1))
    direction[at] = 1.0
    values = (x * _mean_gradient(fitted, x, direction, method)).sum(1)
    shares = torch.from_numpy(fitted.bayes.contributions(written))
    values = values + shares @ (network.lexical_scale.detach() * direction)
    pieces, spread = _spread(text, [word[1:] for word in words], values.tolist())
    probabilities = fitted.calibrated(logits)[0]
    return Explanation(
        fitted.labels[at],
        {name: float(p) for name, p in zip(fitted.labels, probabilities, strict=True)},
        pieces,
        spread,
        float(((logits - empty)[0] @ direction) - values.sum()),
    )


def _mean_gradient(fitted: Fitted, x: Tensor, direction: Tensor, method: Method) -> Tensor:
    """The gradient (T, E) of the network's margin, averaged along the line; at its end only."""
    steps = 1 if method == "gradient" else _STEPS
    places = torch.ones(1) if steps == 1 else (torch.arange(steps) + 0.5) / steps
    at_once = max(1, _WORDS_AT_ONCE // len(x))
    network = fitted.network
    none = torch.zeros(1, len(direction))
    total = torch.zeros_like(x)
    for part in torch.split(places, at_once):
        scaled = (part[:, None, None] * x).requires_grad_()
        with torch.enable_grad():
            margin = (network.logits(network.read_embedded(scaled), none) @ direction).sum()
            (gradient,) = torch.autograd.grad(margin, scaled)
        total += gradient.sum(0)
    return total / steps


def _spread(
    text: str, spans: list[tuple[int, int]], values: list[float]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The whole text in pieces: words with their values, and what lies between them with 0."""
    pieces: list[str] = []
    spread: list[float] = []
    done = 0
    for (begin, end), value in zip(spans, values, strict=False):
        if begin > done:
            pieces.append(text[done:begin])
            spread.append(0.0)
        pieces.append(text[begin:end])
        spread.append(value)
        done = end
    if done < len(text):
        pieces.append(text[done:])
        spread.append(0.0)
    return tuple(pieces), tuple(spread)
