"""The speech network: log-mel frames in, logits of characters and the blank out, whole or streamed.

    x = GELU(LayerNorm(W [f_3t, f_3t+1, f_3t+2]))          frames stacked, so fewer steps
    x = look_ahead(x + dropout(LayerNorm(layer_k(x))))     for each recurrent layer
    logits = W_o x

The sum with x is left out where the sizes differ. Offline, layers are bidirectional and nothing
looks ahead. A streaming network has layers of one direction, each followed by

    look_ahead(x)_t = Σ_k w_k ⊙ x_{t+k},  k = 0 ... d,     zeros after the end

so that an answer waits for a fixed, small piece of the future: Σ d over the layers, in steps.
Source: Wang et al. 2016, "Lookahead convolution layer for unidirectional recurrent neural
networks" (there after the last layer only).

In inference on the compiled core the logits have the same bits for any batch and any pieces.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from recurra.kernels.pointwise import pointwise
from recurra.nn.language import CELLS
from recurra.nn.linear import Linear
from recurra.nn.recurrent import Recurrent


class LookAhead(nn.Module):
    """y_t = Σ_k w_k ⊙ x_{t+k} over `steps` steps of the future; it begins as y = x."""

    def __init__(self, size: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        weight = torch.zeros(steps + 1, size)
        weight[0] = 1
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T + steps, size) → (B, T, size): the last steps are only looked at."""
        time = x.shape[1] - self.steps
        y = x[:, :time] * self.weight[0]
        for k in range(1, self.steps + 1):
            y = y + x[:, k : k + time] * self.weight[k]
        return y


class Block(nn.Module):
    """One recurrent layer with its norm, its sum and, in a streaming network, its look ahead."""

    def __init__(self, layer: Recurrent, size: int, dropout: float, look_ahead: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)
        self.look_ahead = LookAhead(size, look_ahead) if look_ahead else None

    def forward(self, x: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """x and the result (B, T, ·), zero after each row's end; mask (B, T, 1), True is real."""
        y: Tensor = self.layer(x, lengths=lengths)[0]
        y = self.add(x, y).masked_fill(~mask, 0)
        if self.look_ahead is None:
            return y
        padding = y.new_zeros(len(y), self.look_ahead.steps, y.shape[-1])
        y = self.look_ahead(torch.cat([y, padding], 1))
        return y.masked_fill(~mask, 0)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The layer's input and its output y, put together."""
        y = self.dropout(self.norm(y))
        return x + y if x.shape == y.shape else y


class SpeechNetwork(nn.Module):
    """Logits of labels, label 0 the blank, for every `stacked` frames.

    look_ahead   steps of the future in all, shared among the layers; only where not bidirectional

    Shapes: features (B, T, bins), lengths (B,) in frames, logits (B, T // stacked, outputs) and
    their lengths. Frames at the end that fill no stack are left out.

    >>> network = SpeechNetwork(80, 28, hidden_size=16, num_layers=2)
    >>> logits, lengths = network(torch.zeros(2, 100, 80), torch.tensor([100, 31]))
    >>> logits.shape, lengths.tolist()
    (torch.Size([2, 33, 28]), [33, 10])
    """

    def __init__(
        self,
        bins: int,
        outputs: int,
        *,
        cell: str = "lstm",
        hidden_size: int,
        num_layers: int,
        bidirectional: bool = True,
        stacked: int = 3,
        look_ahead: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stacked = stacked
        self.bidirectional = bidirectional
        width = hidden_size * (2 if bidirectional else 1)
        self.entry = Linear(stacked * bins, hidden_size)
        self.entry_norm = nn.LayerNorm(hidden_size)
        self.activation = nn.GELU()
        self.blocks = nn.ModuleList()
        for number in range(num_layers):
            layer = CELLS[cell](
                width if number else hidden_size,
                hidden_size,
                batch_first=True,
                bidirectional=bidirectional,
            )
            # What cannot be shared evenly goes to the first layers.
            ahead = look_ahead // num_layers + (number < look_ahead % num_layers)
            self.blocks.append(Block(layer, width, dropout, ahead))
        self.head = Linear(width, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(logits, their lengths)."""
        x = self.enter(features)
        steps = lengths // self.stacked
        mask = (torch.arange(x.shape[1], device=x.device) < steps[:, None])[..., None]
        x = x.masked_fill(~mask, 0)
        for block in self.blocks:
            x = block(x, steps, mask)
        return self.head(x), steps

    def enter(self, features: Tensor) -> Tensor:
        """Frames (B, T, bins) as steps (B, T // stacked, hidden_size)."""
        steps = features.shape[1] // self.stacked
        x = features[:, : steps * self.stacked].reshape(
            len(features), steps, self.stacked * features.shape[2]
        )
        return pointwise(self.activation, self.entry_norm(self.entry(x)))

    def stream(self) -> NetworkStream:
        """A handle for one sound that comes in pieces. Raises: ConfigError when bidirectional."""
        return NetworkStream(self)


class NetworkStream:
    """A streaming network and where it stands in one sound; memory is constant.

    >>> network = SpeechNetwork(80, 28, hidden_size=16, num_layers=2, bidirectional=False)
    >>> stream = network.stream()
    >>> stream.push(torch.zeros(50, 80)).shape, stream.finish().shape
    (torch.Size([16, 28]), torch.Size([0, 28]))
    """

    def __init__(self, network: SpeechNetwork) -> None:
        self._network = copy.deepcopy(network).eval().requires_grad_(False)
        self._frames = torch.zeros(1, 0, self._network.entry.in_features // network.stacked)
        self._nothing = torch.zeros(0, self._network.head.out_features)
        self._stages = [_BlockStream(block) for block in self._network.blocks]  # type: ignore[arg-type]

    @torch.no_grad()
    def push(self, frames: Tensor) -> Tensor:
        """The logits (n, outputs) that these frames (T, bins) allow; often of earlier steps."""
        waiting = torch.cat([self._frames, frames[None]], 1)
        whole = waiting.shape[1] // self._network.stacked * self._network.stacked
        self._frames = waiting[:, whole:]
        if not whole:
            return self._nothing
        return self._run(self._network.enter(waiting[:, :whole]), ending=False)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """The logits of the last steps, for which no future is coming."""
        return self._run(self._network.enter(self._frames[:, :0]), ending=True)

    def _run(self, x: Tensor, ending: bool) -> Tensor:
        for stage in self._stages:
            x = stage.push(x, ending)
        logits: Tensor = self._network.head(x)
        return logits[0]


class _BlockStream:
    def __init__(self, block: Block) -> None:
        self._block = block
        self._layer: Any = block.layer.stream(1)
        self._waiting = torch.zeros(1, 0, block.norm.normalized_shape[0])

    def push(self, x: Tensor, ending: bool) -> Tensor:
        """Outputs for those steps whose future is there; at the end zeros stand for it."""
        y = self._waiting[:, :0]
        if x.shape[1]:
            y = self._block.add(x, self._layer.push_chunk(x))
        ahead = self._block.look_ahead
        if ahead is None:
            return y
        parts = [self._waiting, y]
        if ending:
            parts.append(self._waiting.new_zeros(1, ahead.steps, self._waiting.shape[-1]))
        known = torch.cat(parts, 1)
        time = max(0, known.shape[1] - ahead.steps)
        self._waiting = known[:, time:]
        answer: Tensor = ahead(known) if time else known[:, :0]
        return answer
