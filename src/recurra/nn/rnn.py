"""The Elman network as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import torch

from recurra.cells.elman import Elman
from recurra.nn.arguments import cells_for, check_flags
from recurra.nn.options import GatedOptions
from recurra.nn.recurrent import Recurrent


class RNN(Recurrent):
    """Elman network over sequences: torch.nn.RNN, with lengths, resets and sizes per layer.

    h_t = φ(W x_t + b + U h_{t−1} + c),  φ = tanh or relu (nonlinearity); see `recurra.cells.Elman`.

    Arguments, weights and results are those of torch.nn.RNN. By keyword only: hidden_size as a list
    gives each layer its own size, and h_n is then a tuple with one tensor for each layer; `backend`
    ("auto", "cudnn", "cpu", "reference") chooses who computes; `init` ("torch", "orthogonal") how
    weights are drawn, see `recurra.nn.initialise`.

    Against overfitting, also by keyword and active in training only: `recurrent_dropout`, one mask
    on h for a whole sequence, before the recurrent product; `variational_dropout`, one mask on each
    layer's input, the same at every step; `zoneout`, the chance that a unit of the state stays as
    it was at a step, with its expectation in evaluation. See `recurra.nn.dropouts`.

    `layer_norm` normalises inside the cell. What all layers take besides is in
    `recurra.nn.options`.

    `layer.stream(batch_size)` runs the layer one step at a time, see `recurra.nn.Stream`.

    Shapes, batch_first=False: x (T, B, input_size), h_0 and h_n (num_layers * D, B, hidden_size),
    output (T, B, D * hidden_size), D = 2 when bidirectional, else 1. batch_first=True: x and output
    are (B, T, ·). Without batch axis: x (T, input_size), and no B elsewhere. A PackedSequence gives
    a PackedSequence.
    lengths (B,) int: real steps of each row, 0 allowed; outputs after them are 0. None: all real.
    reset (B, T) bool: True puts the row back to zeros before that step. None: never.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = RNN(3, 5, batch_first=True)
    >>> output, h_n = layer(torch.zeros(2, 7, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, h_n.shape
    (torch.Size([2, 7, 5]), torch.Size([1, 2, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        **options: Unpack[GatedOptions],
    ) -> None:
        def make(inputs: int, hidden: int) -> Elman:
            return Elman(inputs, hidden, activation=nonlinearity, bias=bias, layer_norm=layer_norm)

        check_flags("RNN", layer_norm=layer_norm)

        super().__init__(
            cells_for("RNN", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.nonlinearity = nonlinearity
        self.layer_norm = layer_norm
        self.mode = f"RNN_{nonlinearity.upper()}"
