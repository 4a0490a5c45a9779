"""The classifier's network: word vectors, recurrent layers in both directions, pooling, a head.

    e_t = E[word_t] + mean_g G[gram_g of word_t]
    y   = the recurrent layers over e, each forward half with its state carried on
    p   = [max_t y_t, mean_t y_t, …];   logits = W p + b + s ⊙ z

z is the naive-Bayes score of the text (`naive_bayes.py`), s a learned scale for each label.

A text is read in chunks of `chunk` words. The forward half of a layer goes through all of it; the
reverse half begins anew at the end of each chunk, so that a text of any length is read in bounded
memory, and a stream needs to read only its last chunk again. What pooling needs of finished chunks
is a few vectors. A text of at most one chunk is read as by any bidirectional network.

Concatenated pooling: Howard and Ruder 2018, "Universal language model fine-tuning for text
classification", section 3.3; attention: Yang et al. 2016, "Hierarchical attention networks".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.nn.dropouts import lock_input
from recurra.nn.language import CELLS
from recurra.nn.linear import Linear
from recurra.tasks.sentiment.batches import Batch
from recurra.tasks.sentiment.settings import SentimentSettings
from recurra.training.nested import list_tensors, replace_tensors

_LOWEST = -1e30  # below every output; −inf would make NaN of differences


class Pools(NamedTuple):
    """What was read so far, in numbers that do not grow.

    Shapes: highest, total, attended and last (B, D); words, peak and mass (B, 1).
    """

    highest: Tensor
    total: Tensor
    words: Tensor
    attended: Tensor
    peak: Tensor
    mass: Tensor
    last: Tensor


class Reading(NamedTuple):
    """Where texts stand at the end of a chunk: the state of each layer, and the pools."""

    states: list[Any]
    pools: Pools


class SentimentNetwork(nn.Module):
    """Logits of the labels of a batch of texts.

    words      numbers that words have, the unknown among them
    labels     number of labels

    Raises: ConfigError for what the recurrent layers refuse.
    """

    def __init__(self, words: int, labels: int, settings: SentimentSettings) -> None:
        super().__init__()
        options = {
            name: getattr(settings, name)
            for name in ("weight_drop", "recurrent_dropout", "zoneout")
            if getattr(settings, name)
        }
        self.settings = settings
        self.directions = 2 if settings.bidirectional else 1
        self.width = settings.hidden_size * self.directions
        self.embedding = nn.Embedding(words, settings.embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.grams: nn.Embedding | None = None
        if settings.buckets:
            self.grams = nn.Embedding(settings.buckets, settings.embedding_size)
            nn.init.normal_(self.grams.weight, std=0.1)
        sizes = [settings.embedding_size] + [self.width] * (settings.num_layers - 1)
        self.layers = nn.ModuleList(
            CELLS[settings.cell](
                size,
                settings.hidden_size,
                batch_first=True,
                bidirectional=settings.bidirectional,
                **options,
            )
            for size in sizes
        )
        self.attention = Linear(self.width, 1) if "attention" in settings.pooling else None
        self.head = Linear(self.width * len(settings.pooling), labels)
        self.lexical_scale = nn.Parameter(torch.ones(labels))

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C), not yet divided by a temperature."""
        vectors = self.vectors(batch.numbers, batch.buckets, batch.offsets)
        reading = None
        for begin in range(0, batch.tokens.shape[1], self.settings.chunk):
            part = batch.tokens[:, begin : begin + self.settings.chunk]
            reading = self.read(F.embedding(part, vectors), batch.lengths - begin, reading)
        assert reading is not None
        return self.logits(reading.pools, batch.lexical)

    def vectors(self, numbers: Tensor, buckets: Tensor, offsets: Tensor) -> Tensor:
        """The vectors (U, E) of distinct words."""
        vectors: Tensor = self.embedding(numbers)
        if self.grams is not None:
            vectors = vectors + F.embedding_bag(buckets, self.grams.weight, offsets, mode="mean")
        return vectors

    def read_embedded(self, x: Tensor) -> Pools:
        """The pools of whole texts of equal length whose word vectors are x (B, T, E)."""
        reading = None
        for begin in range(0, x.shape[1], self.settings.chunk):
            part = x[:, begin : begin + self.settings.chunk]
            lengths = torch.full((len(x),), part.shape[1], device=x.device)
            reading = self.read(part, lengths, reading)
        assert reading is not None
        return reading.pools

    def read(self, x: Tensor, left: Tensor, before: Reading | None) -> Reading:
        """One more chunk: x (B, T, E), of which row b has left_b words, none when not above 0.

        before   what the chunks before gave; None at the beginning
        """
        lengths = left.clamp(0, x.shape[1])
        states = []
        x = self._drop_words(x)
        for k, layer in enumerate(self.layers):
            x = self._drop(x, self.settings.hidden_dropout if k else self.settings.input_dropout)
            start = None if before is None else self._restart(layer, x, before.states[k])
            x, final = layer(x, start, lengths=lengths)
            states.append(final)
        return Reading(states, self._pool(x, lengths, None if before is None else before.pools))

    def logits(self, pools: Pools, lexical: Tensor) -> Tensor:
        """Logits (B, C) out of the pools and the naive-Bayes scores (B, C)."""
        parts = {
            "max": pools.highest,
            "mean": pools.total / pools.words,
            "attention": pools.attended / pools.mass,
            "last": pools.last,
        }
        features = torch.cat([parts[name] for name in self.settings.pooling], dim=1)
        logits: Tensor = self.head(self._drop_output(features))
        return logits + self.lexical_scale * lexical

    def _restart(self, layer: nn.Module, x: Tensor, state: Any) -> Any:
        """The state to begin a chunk with: the forward half goes on, the reverse half is new."""
        if self.directions == 1:
            return state
        _, initial = layer(x[:, :0])
        halves = zip(list_tensors(state), list_tensors(initial), strict=True)
        return replace_tensors(state, [torch.cat([old[:1], new[1:]]) for old, new in halves])

    def _pool(self, y: Tensor, lengths: Tensor, before: Pools | None) -> Pools:
        """Pools with outputs y (B, T, D) added, of which lengths (B,) are real."""
        mask = torch.arange(y.shape[1], device=y.device) < lengths[:, None]
        if before is None:
            none, one = y.new_zeros(len(y), self.width), y.new_zeros(len(y), 1)
            before = Pools(none + _LOWEST, none, one, none, one + _LOWEST, one, none)
        scores = y.new_zeros(y.shape[:2]) if self.attention is None else self.attention(y)[..., 0]
        scores = scores.masked_fill(~mask, _LOWEST)
        # The soft-max over words so far, kept relative to its largest exponent.
        peak = torch.maximum(before.peak, scores.amax(1, keepdim=True))
        share = torch.exp(scores - peak) * mask
        fade = torch.exp(before.peak - peak)
        highest = y.masked_fill(~mask[..., None], _LOWEST).amax(1)
        return Pools(
            torch.maximum(before.highest, highest),
            before.total + y.sum(1),  # outputs past the end are 0
            before.words + lengths[:, None],
            before.attended * fade + (share[..., None] * y).sum(1),
            peak,
            before.mass * fade + share.sum(1, keepdim=True),
            torch.where(lengths[:, None] > 0, self._ends(y, lengths), before.last),
        )

    def _ends(self, y: Tensor, lengths: Tensor) -> Tensor:
        """The output of the forward half at its last word, of the reverse half at its last, too."""
        at = (lengths - 1).clamp(min=0)
        ahead = y[torch.arange(len(y), device=y.device), at]
        if self.directions == 1:
            return ahead
        half = self.settings.hidden_size
        return torch.cat([ahead[:, :half], y[:, 0, half:]], dim=1)

    def _drop_words(self, x: Tensor) -> Tensor:
        p = self.settings.word_dropout
        if not self.training or p == 0:
            return x
        # Not scaled: a word that is left out is one that is not known.
        return x * (torch.rand(*x.shape[:2], 1, device=x.device) >= p)

    def _drop(self, x: Tensor, p: float) -> Tensor:
        return lock_input(x, p, True) if self.training and p > 0 else x

    def _drop_output(self, features: Tensor) -> Tensor:
        return F.dropout(features, self.settings.output_dropout, self.training)
