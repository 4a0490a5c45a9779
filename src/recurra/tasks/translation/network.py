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
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.kernels.pointwise import pointwise
from recurra.nn.attention import Attention, Memory
from recurra.nn.dropouts import lock_input
from recurra.nn.language import CELLS
from recurra.nn.whole import WholeLinear, linear
from recurra.tasks.translation.settings import TranslationSettings


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
        self.memory = nn.Linear(2 * hidden, hidden)
        self.start = nn.Linear(hidden, embedded)
        sizes = [embedded * (2 if settings.input_feeding else 1)]
        sizes += [2 * hidden, *[hidden] * settings.decoder_layers][: settings.decoder_layers - 1]
        self.decoder = nn.ModuleList(
            cell(size, hidden, batch_first=True, **options) for size in sizes
        )
        hops = min(2, settings.decoder_layers)
        self.attentions = nn.ModuleList(
            Attention(hidden, hidden, settings.attention) for _ in range(hops)
        )
        self.output = nn.Linear(2 * hidden + embedded, embedded)
        self.bias = nn.Parameter(torch.zeros(target_size))
        self._scale = math.sqrt(embedded)

    def read(self, source: Tensor, lengths: Tensor) -> Source:
        """The source sentences, as the decoder attends to them."""
        table = self.embedding if self.source_embedding is None else self.source_embedding
        x = self._embed(table, source)
        for k, layer in enumerate(self.encoder):
            x = self._lock(x, self.settings.hidden_dropout) if k else x
            x, _ = layer(x, lengths=lengths)
        x = self._lock(x, self.settings.hidden_dropout)
        values = linear(x, self.memory.weight, self.memory.bias)
        mask = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        hops = range(len(self.attentions))
        memories = tuple(self._attention(k).prepare(values, mask) for k in hops)
        mean = memories[0].total / lengths[:, None]
        return Source(memories, linear(mean, self.start.weight, self.start.bias))

    def decode(
        self, tokens: Tensor, source: Source, state: DecoderState | None = None
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """(o (N, T, E), state after, weights of the last attention (N, T, S)) of target tokens.

        state   where these targets stand; None at their beginning
        """
        e = self.embed(tokens, source if state is None else None)
        layers = [None] * len(self.decoder) if state is None else list(state.layers)

        def run(k: int, x: Tensor) -> Tensor:
            y, layers[k] = self.decoder[k](x, layers[k])
            return y  # type: ignore[no-any-return]

        if not self.settings.input_feeding:
            o, weights = self.attend(e, source, run)
            return o, DecoderState(layers, None), weights
        fed = torch.zeros_like(e[:, 0]) if state is None or state.fed is None else state.fed
        steps = []
        for t in range(tokens.shape[1]):
            o, weights = self.attend(e[:, t : t + 1], source, run, fed=fed)
            fed = o[:, 0]
            steps.append((o, weights))
        o, weights = (torch.cat(parts, 1) for parts in zip(*steps, strict=True))
        return o, DecoderState(layers, fed), weights

    def embed(self, tokens: Tensor, start: Source | None) -> Tensor:
        """Inputs (N, T, E) of the decoder; `start` is the source where targets begin."""
        e = self._embed(self.embedding, tokens)
        if start is None:
            return e
        rows = start.start.repeat_interleave(len(e) // len(start.start), 0)
        return torch.cat([e[:, :1] + rows[:, None], e[:, 1:]], 1)

    def attend(
        self,
        e: Tensor,
        source: Source,
        run: Callable[[int, Tensor], Tensor],
        output: Callable[[Tensor], Tensor] | None = None,
        fed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(o (N, T, E), weights (N, T, S)) of inputs e (N, T, E).

        run      (k, x) → the output of layer k, which goes on from where it stands
        output   the last linear map, where it is kept prepared
        fed      (N, E) o of the step before, with T = 1
        """
        drop = self.settings.hidden_dropout
        x = e if fed is None else torch.cat([e, fed[:, None]], -1)
        context = weights = x
        for k in range(len(self.decoder)):
            x = torch.cat([x, context], -1) if k == 1 else x
            y = run(k, self._lock(x, drop) if k else x)
            x = x + y if k > 1 else y
            if k in (0, len(self.decoder) - 1):
                context, weights = self._attend(min(k, 1), x, source)
        o = torch.cat([self._lock(torch.cat([x, context], -1), drop), e], -1)
        output = output or (lambda x: linear(x, self.output.weight, self.output.bias))
        o = pointwise(torch.tanh, output(o))
        return F.dropout(o, self.settings.output_dropout, self.training), weights

    def logits(self, o: Tensor) -> Tensor:
        """Logits (M, V) of rows o (M, E)."""
        return linear(o, self.embedding.weight, self.bias)

    def heads(self) -> tuple[WholeLinear, WholeLinear]:
        """(output, logits), prepared for many steps without a gradient."""
        output = WholeLinear(self.output.weight, self.output.bias)
        return output, WholeLinear(self.embedding.weight, self.bias)

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


def _embedding(size: int, features: int) -> nn.Embedding:
    """A table whose rows are small enough for an output; inputs are scaled up."""
    table = nn.Embedding(size, features)
    nn.init.normal_(table.weight, std=1 / math.sqrt(features))
    return table
