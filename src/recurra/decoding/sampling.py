"""Drawing the next token: what is cut off, what is made flatter, and what has been said before.

In this order, as most libraries have it:

    repetition  log p − ln(penalty) for each token among the last `window`
    temperature log p / T; T = 0 takes the likeliest token
    top_k       the k likeliest are kept
    top_p       the fewest whose probabilities sum to at least p (nucleus)
    min_p       those with at least min_p times the largest probability

Sources: Fan, Lewis and Dauphin 2018 (top-k); Holtzman et al. 2020, "The curious case of neural text
degeneration" (nucleus); Nguyen et al. 2024 (min-p); Keskar et al. 2019, CTRL, section 4.1
(repetition; here the probability of a repeated token is divided by the penalty).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from recurra.errors import ConfigError


class Sampler:
    """Draws tokens by the rules above; each rule is off by default.

    temperature         0 or more; 1 takes the model's own probabilities
    top_k               at least 1; None keeps all
    top_p, min_p        above 0 to 1, and from 0 to below 1
    repetition_penalty  1 or more; the probability of a token among the last `window` is divided
                        by it
    banned              ids that are never drawn
    seed                of the draws; the same one draws the same tokens

    Raises: ConfigError for a value out of range, and from a draw when no token is left.

    >>> sampler = Sampler(top_k=1)
    >>> sampler.draw(torch.tensor([0.2, 0.5, 0.3]).log())
    1
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        window: int = 64,
        banned: Iterable[int] = (),
        seed: int = 0,
    ) -> None:
        _check("temperature", temperature, 0 <= temperature < math.inf, "0 or more")
        _check("top_k", top_k, top_k is None or top_k >= 1, "at least 1, or None")
        _check("top_p", top_p, 0 < top_p <= 1, "above 0 and at most 1")
        _check("min_p", min_p, 0 <= min_p < 1, "from 0 to below 1")
        _check(
            "repetition_penalty",
            repetition_penalty,
            1 <= repetition_penalty < math.inf,
            "at least 1",
        )
        _check("window", window, window >= 1, "at least 1")
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.min_p = min_p
        self.repetition_penalty = repetition_penalty
        self._banned = sorted(set(banned))
        self._said: deque[int] = deque(maxlen=window)
        self._rng = torch.Generator().manual_seed(seed)

    def note(self, token: int) -> None:
        """Count a token that was read, not drawn, as said."""
        self._said.append(token)

    def draw(self, log_probs: Tensor) -> int:
        """One token by its log-probability (vocab_size,), in nats; it counts as said."""
        token = self._choose(log_probs.detach().to("cpu", torch.float32))
        self.note(token)
        return token

    def probabilities(self, log_probs: Tensor) -> Tensor:
        """What `draw` draws from: (vocab_size,), 0 where a rule cuts off. Needs a temperature."""
        scores = self._penalised(log_probs)
        # Less the largest, or a low temperature would overflow.
        scores = (scores - scores.max()) / self.temperature
        probs = torch.softmax(scores, 0)
        if self.top_k is not None and self.top_k < len(probs):
            probs[probs < probs.topk(self.top_k).values[-1]] = 0
        if self.top_p < 1:
            ordered, at = (probs / probs.sum()).sort(descending=True, stable=True)
            # A token is needed while those before it do not reach top_p.
            probs[at[ordered.cumsum(0) - ordered >= self.top_p]] = 0
        if self.min_p > 0:
            probs[probs < self.min_p * probs.max()] = 0
        return probs / probs.sum()

    def _choose(self, log_probs: Tensor) -> int:
        if self.temperature == 0:
            return int(self._penalised(log_probs).argmax())
        # By the sums up to each token: the first above the drawn share, so never one of p = 0.
        sums = self.probabilities(log_probs).double().cumsum(0)
        share = torch.rand(1, generator=self._rng, dtype=torch.float64) * sums[-1]
        return int(torch.searchsorted(sums, share, right=True).clamp(max=len(sums) - 1))

    def _penalised(self, log_probs: Tensor) -> Tensor:
        scores = log_probs.clone()
        if self.repetition_penalty > 1 and self._said:
            scores[sorted(set(self._said))] -= math.log(self.repetition_penalty)
        if self._banned:
            scores[self._banned] = -math.inf
        if not torch.isfinite(scores.max()):
            raise ConfigError(
                f"no token is left to draw: of {len(scores)} none has a probability and is not "
                f"banned ({len(self._banned)} are). Ban fewer."
            )
        return scores


def _check(name: str, value: object, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ConfigError(f"{name}={value!r}; expected {expected}.")
