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
from recurra.nn.stream import Stream
from recurra.tasks.translation.batches import Rows, pad
from recurra.tasks.translation.network import TranslationNetwork

ROWS_A_BATCH = 160
"""Sentences times beams that are decoded side by side."""
_MOST = 1_000_000
_FEW = 0.7
"""Below this share of the sentences held, those that are done are given up."""


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
        for name, least in (("beam_size", 1), ("count", 1), ("rows", 1), ("extra", 0)):
            value = getattr(self, name)
            is_right = type(value) is int and least <= value <= _MOST
            _check(name, value, is_right, f"a whole number of at least {least}")
        _check("count", self.count, self.count <= self.beam_size, "at most beam_size")
        for name, most in (("length_penalty", 10), ("coverage", _MOST), ("max_ratio", 1000)):
            value = getattr(self, name)
            is_right = isinstance(value, (int, float)) and 0 <= value <= most
            _check(name, value, is_right, f"0 to {most}")

    def longest(self, source_length: int) -> int:
        """Most tokens of a translation of so many."""
        return max(1, int(self.max_ratio * source_length) + self.extra)


class NetworkStepper:
    """One network, or several whose probabilities are averaged, in the middle of some sentences."""

    def __init__(
        self, networks: Sequence[TranslationNetwork], source: Tensor, lengths: Tensor, beams: int
    ) -> None:
        self._decoders = [_Decoder(network, source, lengths, beams) for network in networks]

    def step(self, last: Tensor) -> tuple[Tensor, Tensor]:
        steps = [decoder.step(last) for decoder in self._decoders]
        if len(steps) == 1:
            return steps[0]
        log_probs, attentions = zip(*steps, strict=True)
        together = torch.stack(log_probs).logsumexp(0) - math.log(len(steps))
        return together, torch.stack(attentions).mean(0)

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        for decoder in self._decoders:
            decoder.select(rows, sentences)


class _Decoder:
    """The decoder of one network, stepping through rows of sentences that are held.

    Its layers are streams: weights are packed once, states lie in place. Both are made for a number
    of rows, and the memories are large, so a sentence that is done stays among those held until
    many are.

    Shapes: B sentences are left of H that are held, K rows each; places (B,) says which these are.
    """

    def __init__(
        self, network: TranslationNetwork, source: Tensor, lengths: Tensor, beams: int
    ) -> None:
        self._network = network
        self._beams = beams
        self._source = network.read(source, lengths)
        self._places = torch.arange(len(source))
        self._output, self._logits = network.heads()
        self._fed: Tensor | None = None
        self._begun = False
        self._streams = self._make_streams(None)

    def step(self, last: Tensor) -> tuple[Tensor, Tensor]:
        rows = self._rows()
        tokens = torch.zeros(len(self._source.start) * self._beams, dtype=torch.long)
        tokens[rows] = last
        e = self._network.embed(tokens[:, None], None if self._begun else self._source)
        if self._network.settings.input_feeding and self._fed is None:
            self._fed = torch.zeros_like(e[:, 0])
        o, weights = self._network.attend(e, self._source, self._run, self._output, self._fed)
        self._begun = True
        if self._fed is not None:
            self._fed = o[:, 0]
        logits = self._logits(o[rows, 0])
        return torch.log_softmax(logits, 1), weights[rows, 0]

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        chosen = self._rows()[rows]
        if sentences is not None:
            self._places = self._places[sentences]
        held = len(self._source.start)
        if len(self._places) <= _FEW * held:
            self._source = self._source.take(self._places)
            self._places = torch.arange(len(self._places))
            self._streams = self._make_streams(chosen)
            self._fed = None if self._fed is None else self._fed[chosen]
            return
        order = torch.arange(held * self._beams)
        order[self._rows()] = chosen
        for stream in self._streams:
            for part in (part for parts in stream.parts for part in parts):
                part.copy_(part.index_select(0, order))
        self._fed = None if self._fed is None else self._fed[order]

    def _rows(self) -> Tensor:
        """The rows of the sentences that are left, among those that are held."""
        return (self._places[:, None] * self._beams + torch.arange(self._beams)).flatten()

    def _run(self, k: int, x: Tensor) -> Tensor:
        return self._streams[k].push(x[:, 0])[:, None]

    def _make_streams(self, rows: Tensor | None) -> list[Stream]:
        """Streams for what is held now; with the states of these rows of the streams before."""
        size = len(self._source.start) * self._beams
        made: list[Stream] = [layer.stream(size) for layer in self._network.decoder]  # type: ignore[operator]
        if rows is not None:
            for new, old in zip(made, self._streams, strict=True):
                for parts, before in zip(new.parts, old.parts, strict=True):
                    for part, value in zip(parts, before, strict=True):
                        part.copy_(value.index_select(0, rows))
        return made


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
