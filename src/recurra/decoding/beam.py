"""Beam search: the likeliest sequences that can be found by keeping a few at every step.

A beam is K sequences and the recurrent state of each. At every step all their continuations are
scored by log p of the whole sequence, and the K best are kept; one that ends with `end_id` leaves
the beam. What ended is compared by score / ((5 + n) / 6)^α, n tokens long.

Source: Wu et al. 2016, "Google's neural machine translation system", eq. 14, without coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurra.errors import ConfigError

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""(last tokens (K,), state of K rows) → (log p (K, vocab_size) of the next, state after)."""
Select = Callable[[Any, Tensor], Any]
"""(state, rows (K,)) → the state of these rows, in this order, some maybe twice."""


@dataclass(frozen=True)
class Hypothesis:
    """A sequence that was found: its tokens and log p of them all, in nats."""

    tokens: tuple[int, ...]
    log_prob: float
    ended: bool

    def score(self, length_penalty: float) -> float:
        """log p, made comparable between lengths."""
        return self.log_prob / float(((5 + len(self.tokens)) / 6) ** length_penalty)


def beam_search(
    step: Step,
    select: Select,
    last: int,
    state: Any,
    *,
    beam_size: int,
    length: int,
    end_id: int | None = None,
    banned: Sequence[int] = (),
    length_penalty: float = 0.0,
) -> list[Hypothesis]:
    """The best sequences after the token `last`, at most `beam_size`, best first.

    state            of one row, before `last` was read
    length           most tokens of a sequence; without `end_id`, all have as many
    banned           ids that no sequence has
    length_penalty   α above; 0 compares by log p, more favours longer sequences

    Ties go to the earlier sequence and the smaller id, so the result is the same every time.
    Raises: ConfigError for a size or length below 1.

    >>> table = torch.tensor([[0.1, 0.6, 0.3], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05]]).log()
    >>> find = lambda size: beam_search(
    ...     lambda last, state: (table[last], state), lambda state, rows: state, 0, None,
    ...     beam_size=size, length=2)[0].tokens
    >>> find(1), find(2)
    ((1, 0), (2, 0))
    """
    for name, value in (("beam_size", beam_size), ("length", length)):
        if value < 1:
            raise ConfigError(f"{name}={value}; expected at least 1.")
    tokens: list[tuple[int, ...]] = [()]
    scores = torch.zeros(1, dtype=torch.float64)
    lasts = torch.tensor([last])
    found: list[Hypothesis] = []
    for _ in range(length):
        log_probs, state = step(lasts, state)
        total = scores[:, None] + log_probs.to("cpu", torch.float64)
        if banned:
            total[:, list(banned)] = -torch.inf
        rows, ids, best = _best(total, beam_size)
        ended = [end_id is not None and token == end_id for token in ids]
        sequences = [(*tokens[row], token) for row, token in zip(rows, ids, strict=True)]
        found += [
            Hypothesis(sequences[k], best[k], True) for k, is_over in enumerate(ended) if is_over
        ]
        kept = [k for k, is_over in enumerate(ended) if not is_over]
        if not kept or _is_settled(
            found, [best[k] for k in kept], beam_size, length_penalty, length
        ):
            tokens = []
            break
        tokens = [sequences[k] for k in kept]
        scores = torch.tensor([best[k] for k in kept], dtype=torch.float64)
        lasts = torch.tensor([ids[k] for k in kept])
        state = select(state, torch.tensor([rows[k] for k in kept]))
    found += [
        Hypothesis(sequence, score, False)
        for sequence, score in zip(tokens, scores.tolist(), strict=False)
    ]
    found.sort(key=lambda one: -one.score(length_penalty))  # stable: ties stay in order
    return found[:beam_size]


def _best(total: Tensor, count: int) -> tuple[list[int], list[int], list[float]]:
    """Rows, ids and scores of the `count` best continuations that are possible at all."""
    values, at = total.flatten().sort(descending=True, stable=True)
    possible = int((values[:count] > -torch.inf).sum())
    values, at = values[:possible], at[:possible]
    width = total.shape[1]
    return (at // width).tolist(), (at % width).tolist(), values.tolist()


def _is_settled(
    found: Sequence[Hypothesis],
    open_scores: Sequence[float],
    beam_size: int,
    length_penalty: float,
    length: int,
) -> bool:
    """Whether no open sequence can come before the `beam_size` that have ended."""
    if len(found) < beam_size:
        return False
    ranked = sorted((one.score(length_penalty) for one in found), reverse=True)
    # log p only falls from here on, and no sequence is divided by more than the longest.
    reachable = max(open_scores) / float(((5 + length) / 6) ** length_penalty)
    return ranked[beam_size - 1] >= reachable
