"""The translator's network: an encoder in both directions, a decoder that attends to it.

    encoder    y = the recurrent layers, both directions, over the source;  m = W y, the memory
    decoder    h = layer_1(e);  c = attention(h, m);  h = layer_2([h, c])
               h = h + layer_k(h) for k > 2
               c' = attention'(h, m), or c where there is one layer
               o = tanh(W [h, c', e]);  p(next token) = softmax(E o + b)

e are the embedded target tokens, the first one with a map of the memory's mean added to it. E is
the embedding of the target, and of the source where both have the same tokens.

Nothing that a layer reads comes from a later layer of the step before, so in training each layer
runs over the whole sentence in one call; what was attended to is carried on by the second layer's
state. With `input_feeding`, o of the step before is read by the first layer too (Luong et al. 2015,
section 3.3), and training has to go step by step as decoding does.

Deep output: Bahdanau et al. 2015; attention from the first layer's output, context to the layers
above: Wu et al. 2016, "Google's neural machine translation system", section 3; label smoothing:
Szegedy et al. 2016; tying: Press and Wolf 2017.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.kernels.linear import linear
from recurra.kernels.pointwise import pointwise
from recurra.nn.attention import Attention, Memory
from recurra.nn.dropouts import lock_input
from recurra.nn.language import CELLS
from recurra.nn.linear import Linear
from recurra.tasks.translation.settings import TranslationSettings
from recurra.training.nested import map_tensors


class Source(NamedTuple):
    """Sentences that were read: what each attention looks at, and the first input (B, E)."""

    memories: tuple[Memory, ...]
    start: Tensor

    def take(self, rows: Tensor) -> Source:
        """Some sentences, in this order."""
        memories = tuple(memory.take(rows) for memory in self.memories)
        return Source(memories, self.start.index_select(0, rows))


class DecoderState(NamedTuple):
    """Where targets stand: the state of each layer; o of the last step with input feeding."""

    layers: list[Any]
    fed: Tensor | None


class TranslationNetwork(nn.Module):
    """p(target token | target so far, source).

    Shapes: source (B, S), lengths (B,) at least 1, target tokens (N, T) where N is a multiple of B:
    rows 0 … N/B − 1 belong to sentence 0, and so on.
    Raises: ConfigError for what the recurrent layers refuse.
    """

    def __init__(self, source_size: int, target_size: int, settings: TranslationSettings) -> None:
        super().__init__()
        options = {
            name: getattr(settings, name)
            for name in ("weight_drop", "recurrent_dropout", "zoneout")
            if getattr(settings, name)
        }
        cell, hidden, embedded = (
            CELLS[settings.cell],
            settings.hidden_size,
            settings.embedding_size,
        )
        self.settings = settings
        self.embedding = _embedding(target_size, embedded)
        # Both languages share the table where they share the tokens.
        self.source_embedding = None if settings.joint else _embedding(source_size, embedded)
        sizes = [embedded] + [2 * hidden] * (settings.encoder_layers - 1)
        self.encoder = nn.ModuleList(
            cell(size, hidden, batch_first=True, bidirectional=True, **options) for size in sizes
        )
        self.memory = Linear(2 * hidden, hidden)
        self.start = Linear(hidden, embedded)
        sizes = [embedded * (2 if settings.input_feeding else 1)]
        sizes += [2 * hidden, *[hidden] * settings.decoder_layers][: settings.decoder_layers - 1]
        self.decoder = nn.ModuleList(
            cell(size, hidden, batch_first=True, **options) for size in sizes
        )
        hops = min(2, settings.decoder_layers)
        self.attentions = nn.ModuleList(
            Attention(hidden, hidden, settings.attention) for _ in range(hops)
        )
        self.output = Linear(2 * hidden + embedded, embedded)
        self.bias = nn.Parameter(torch.zeros(target_size))
        self._scale = math.sqrt(embedded)

    def read(self, source: Tensor, lengths: Tensor) -> Source:
        """The source sentences, as the decoder attends to them."""
        table = self.embedding if self.source_embedding is None else self.source_embedding
        x = self._embed(table, source)
        for k, layer in enumerate(self.encoder):
            x = self._lock(x, self.settings.hidden_dropout) if k else x
            x, _ = layer(x, lengths=lengths)
        values = self.memory(self._lock(x, self.settings.hidden_dropout))
        mask = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        hops = range(len(self.attentions))
        memories = tuple(self._attention(k).prepare(values, mask) for k in hops)
        return Source(memories, self.start(memories[0].total / lengths[:, None]))

    def decode(
        self, tokens: Tensor, source: Source, state: DecoderState | None = None
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """(o (N, T, E), state after, weights of the last attention (N, T, S)) of target tokens.

        state   where these targets stand; None at their beginning
        """
        e = self._embed(self.embedding, tokens)
        if state is None:
            e = torch.cat([e[:, :1] + self._per_row(source.start, len(e))[:, None], e[:, 1:]], 1)
        if not self.settings.input_feeding:
            o, layers, weights = self._run(e, source, None if state is None else state.layers)
            return o, DecoderState(layers, None), weights
        if state is None:
            state = DecoderState([None] * len(self.decoder), torch.zeros_like(e[:, 0]))
        steps = []
        for t in range(tokens.shape[1]):
            assert state.fed is not None
            o, layers, weights = self._run(e[:, t : t + 1], source, state.layers, state.fed)
            state = DecoderState(layers, o[:, 0])
            steps.append((o, weights))
        return torch.cat([o for o, _ in steps], 1), state, torch.cat([w for _, w in steps], 1)

    def logits(self, o: Tensor) -> Tensor:
        """Logits (M, V) of rows o (M, E), dropout and all."""
        return linear(o, self.embedding.weight, self.bias)

    def loss(self, o: Tensor, targets: Tensor) -> Tensor:
        """−log p (M,) of targets (M,) in nats, smoothed, of rows o (M, E).

        With all targets the mixture's cross entropy is log Σ exp z − (1 − ε) z_y − ε mean z, and
        the mean of z is o · mean E + mean b: the logits are only needed for the first term.
        """
        smoothing = self.settings.label_smoothing if self.training else 0.0
        table = self.embedding.weight
        chosen = (o * F.embedding(targets, table)).sum(1) + self.bias[targets]
        loss = torch.logsumexp(self.logits(o), 1) - (1 - smoothing) * chosen
        if smoothing:
            loss = loss - smoothing * (o @ table.mean(0) + self.bias.mean())
        return loss

    def _run(
        self, e: Tensor, source: Source, states: list[Any] | None, fed: Tensor | None = None
    ) -> tuple[Tensor, list[Any], Tensor]:
        """o, states and weights over inputs e (N, T, E); fed (N, E) with T = 1."""
        drop = self.settings.hidden_dropout
        x = e if fed is None else torch.cat([e, fed[:, None]], -1)
        after = []
        context = weights = x
        for k, layer in enumerate(self.decoder):
            x = torch.cat([x, context], -1) if k == 1 else x
            before = self._lock(x, drop) if k else x
            y, state = layer(before, None if states is None else states[k])
            x = x + y if k > 1 else y
            after.append(state)
            if k in (0, len(self.decoder) - 1):
                context, weights = self._attend(min(k, 1), x, source)
        joined = torch.cat([x, context], -1)
        o = torch.cat([self._lock(joined, drop), e], -1)
        o = pointwise(torch.tanh, self.output(o))
        return F.dropout(o, self.settings.output_dropout, self.training), after, weights

    def _attend(self, k: int, x: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        memory = source.memories[k]
        rows, time, size = x.shape
        sentences = len(memory.mask)
        context, weights = self._attention(k)(x.reshape(sentences, -1, size), memory)
        return context.view(rows, time, -1), weights.view(rows, time, -1)

    def _attention(self, k: int) -> Attention:
        attention = self.attentions[k]
        assert isinstance(attention, Attention)
        return attention

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        x = table(tokens) * self._scale
        if self.training and self.settings.word_dropout:
            # Not scaled: a word that is left out is one that is not known.
            kept = torch.rand(*tokens.shape, 1, device=x.device) >= self.settings.word_dropout
            x = x * kept
        return self._lock(x, self.settings.input_dropout)

    def _lock(self, x: Tensor, p: float) -> Tensor:
        return lock_input(x, p, True) if self.training and p > 0 else x

    def _per_row(self, x: Tensor, rows: int) -> Tensor:
        return x.repeat_interleave(rows // len(x), 0) if rows != len(x) else x


def select(state: DecoderState, rows: Tensor, batch_axis: int = 1) -> DecoderState:
    """The state of these rows, in this order, some maybe twice."""
    layers = map_tensors(state.layers, lambda part: part.index_select(batch_axis, rows))
    return DecoderState(layers, None if state.fed is None else state.fed.index_select(0, rows))


def _embedding(size: int, features: int) -> nn.Embedding:
    """A table whose rows are small enough for an output; inputs are scaled up."""
    table = nn.Embedding(size, features)
    nn.init.normal_(table.weight, std=1 / math.sqrt(features))
    return table
