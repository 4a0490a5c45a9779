"""How surprising texts are to a model: nats per token, with the state carried over all of a text.

Every token counts, the first one too: it follows the end of a line, as in training. Texts are
independent of each other. They are read side by side and in pieces, and the numbers depend on
neither: bit for bit on the `cpu` backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recurra.nn.language import LanguageNetwork
from recurra.training.nested import map_tensors

CHUNK = 512
"""Tokens of each text that are read at once."""


@dataclass
class Tally:
    """Nats of some texts, and what they are divided by."""

    nats: float = 0.0
    tokens: int = 0
    characters: int = 0
    bytes: int = 0

    def metrics(self) -> dict[str, float | None]:
        """The numbers that are reported; None where a text has no characters to divide by."""
        each = self.nats / max(1, self.tokens)
        per_char = self.nats / self.characters if self.characters else None
        return {
            "perplexity": math.exp(each) if each < 700 else math.inf,
            "bits_per_char": None if per_char is None else per_char / math.log(2),
            "bits_per_byte": self.nats / self.bytes / math.log(2) if self.bytes else None,
            "nats_per_char": per_char,
        }


@dataclass(frozen=True)
class Piece:
    """Nats (T,) of the tokens of one text from `begin` on."""

    text: int
    begin: int
    nats: Tensor = field(repr=False)


@torch.no_grad()
def score(
    network: LanguageNetwork, texts: Sequence[Tensor], start_id: int, *, batch_size: int = 32
) -> Iterator[Piece]:
    """The nats of every token of texts of ids (n,), piece by piece; each text in order.

    start_id     what the first token of a text follows
    batch_size   texts that are read side by side
    """
    order = sorted(range(len(texts)), key=lambda k: (-len(texts[k]), k))
    for first in range(0, len(order), batch_size):
        group = order[first : first + batch_size]
        state = None
        for begin in range(0, len(texts[group[0]]), CHUNK):
            # Those that have ended stand last, the longest text being first.
            rows = [k for k in group if len(texts[k]) > begin]
            state = map_tensors(state, _first_rows(len(rows)))
            width = min(CHUNK, len(texts[rows[0]]) - begin)
            inputs = torch.full((len(rows), width), start_id)
            targets = torch.zeros((len(rows), width), dtype=torch.long)
            sizes = []
            for row, k in enumerate(rows):
                part = texts[k][begin : begin + width].long()
                sizes.append(len(part))
                targets[row, : len(part)] = part
                before = texts[k][max(0, begin - 1) : begin + len(part) - 1].long()
                inputs[row, len(part) - len(before) : len(part)] = before
            # A text that ends in this piece has padding after it, whose state nobody reads.
            features, state = network(inputs, state)
            nats = network.nll(features, targets)
            for row, k in enumerate(rows):
                yield Piece(k, begin, nats[row, : sizes[row]])


def _first_rows(count: int) -> Callable[[Tensor], Tensor]:
    return lambda part: part[:, :count].contiguous()


@torch.no_grad()
def score_windows(
    network: LanguageNetwork, ids: Tensor, start_id: int, window: int, *, batch_size: int = 64
) -> Iterator[Tensor]:
    """Nats of every token where each `window` of them is read from the initial state.

    A window is given the one token before it; the last window may be shorter.
    """
    last = torch.tensor([start_id])
    for begin in range(0, len(ids), window * batch_size):
        targets = ids[begin : begin + window * batch_size].long()
        inputs = torch.cat([last, targets[:-1]])
        last = targets[-1:]
        whole = len(targets) // window * window
        for part, width in ((slice(0, whole), window), (slice(whole, None), len(targets) - whole)):
            if len(targets[part]):
                features, _ = network(inputs[part].view(-1, width))
                yield network.nll(features, targets[part].view(-1, width)).flatten()
