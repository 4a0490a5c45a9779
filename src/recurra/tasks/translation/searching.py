"""Sentences in, token sequences out: batches of like lengths, in any number and order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurra.data.tokenizer import Ids
from recurra.decoding.batched import Choose, Found, Rules, beam_decode, decode
from recurra.errors import ConfigError
from recurra.tasks.translation.batches import Rows, pad
from recurra.tasks.translation.network import DecoderState, Source, TranslationNetwork, select

ROWS_A_BATCH = 320
"""Sentences times beams that are decoded side by side."""


@dataclass(frozen=True)
class Search:
    """How to decode.

    beam_size        1 is greedy
    count            sequences for each sentence, at most beam_size
    length_penalty   above 0 favours longer ones, see `decoding/batched.py`
    coverage         above 0 favours those that looked at all of the source
    max_ratio, extra a translation has at most max_ratio · S + extra tokens, S those of the source
    rows             sentences times beams side by side; it changes the speed, never the tokens

    Raises: ConfigError for a value out of range.
    """

    beam_size: int = 5
    count: int = 1
    length_penalty: float = 1.0
    coverage: float = 0.0
    max_ratio: float = 2.0
    extra: int = 10
    rows: int = ROWS_A_BATCH

    def __post_init__(self) -> None:
        for name in ("beam_size", "count", "rows"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("count", self.count, self.count <= self.beam_size, "at most beam_size")
        for name in ("length_penalty", "coverage", "max_ratio", "extra"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < math.inf, "0 or more")

    def longest(self, source_length: int) -> int:
        """Most tokens of a translation of so many."""
        return max(1, int(self.max_ratio * source_length) + self.extra)


class NetworkStepper:
    """One network, or several whose probabilities are averaged, in the middle of some sentences."""

    def __init__(
        self, networks: Sequence[TranslationNetwork], source: Tensor, lengths: Tensor, beams: int
    ) -> None:
        self._networks = networks
        self._sources: list[Source] = [network.read(source, lengths) for network in networks]
        self._states: list[DecoderState | None] = [None] * len(networks)
        self._beams = beams

    def step(self, last: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, attentions = [], []
        for k, network in enumerate(self._networks):
            o, self._states[k], weights = network.decode(
                last[:, None], self._sources[k], self._states[k]
            )
            log_probs.append(torch.log_softmax(network.logits(o[:, 0]), 1))
            attentions.append(weights[:, 0])
        if len(self._networks) == 1:
            return log_probs[0], attentions[0]
        count = len(self._networks)
        together = torch.stack(log_probs).logsumexp(0) - math.log(count)
        return together, torch.stack(attentions).mean(0)

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        self._states = [None if one is None else select(one, rows) for one in self._states]
        if sentences is not None:
            self._sources = [source.take(sentences) for source in self._sources]


def search(
    networks: Sequence[TranslationNetwork],
    sources: Sequence[Ids],
    end_id: int,
    how: Search,
    *,
    prefixes: Sequence[Ids] | None = None,
    banned: Sequence[int] = (),
    choose: Callable[[Rows], Choose] | None = None,
) -> list[list[Found]]:
    """The best sequences for each source (token ids with their end), best first.

    prefixes   ids that each translation begins with
    choose     makes, for the numbers of the sentences of a batch, what chooses each token; None for
               the likeliest, or by beams
    """
    found: list[list[Found]] = [[] for _ in sources]
    order = np.argsort([-len(one) for one in sources], kind="stable")
    per_batch = max(1, how.rows // how.beam_size)
    for begin in range(0, len(order), per_batch):
        rows = order[begin : begin + per_batch]
        tokens, lengths = pad([sources[k] for k in rows])
        longest = torch.tensor([how.longest(len(sources[k])) for k in rows])
        forced = None
        if prefixes is not None:
            forced = _forced([prefixes[k] for k in rows])
            longest = torch.maximum(longest, torch.tensor([len(prefixes[k]) for k in rows]))
        rules = Rules(
            end_id,
            longest,
            torch.arange(tokens.shape[1]) < lengths[:, None],
            forced,
            banned,
            how.length_penalty,
            how.coverage,
        )
        with torch.no_grad():
            beams = how.beam_size if choose is None else 1
            stepper = NetworkStepper(networks, tokens, lengths, beams)
        if beams > 1:
            results = beam_decode(stepper, end_id, rules, beams, how.count)
        elif choose is None:
            results = [[one] for one in decode(stepper, end_id, rules)]
        else:
            results = [[one] for one in decode(stepper, end_id, rules, choose(rows))]
        for k, result in zip(rows, results, strict=True):
            found[k] = result
    return found


def _forced(prefixes: Sequence[Ids]) -> Tensor:
    width = max(len(prefix) for prefix in prefixes)
    forced = torch.full((len(prefixes), width), -1)
    for k, prefix in enumerate(prefixes):
        forced[k, : len(prefix)] = torch.from_numpy(prefix.astype(np.int64))
    return forced


def _check(name: str, value: Any, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ConfigError(f"{name}={value!r}; expected {expected}.")
