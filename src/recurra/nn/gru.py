"""The gated recurrent unit as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch

from recurra.cells.gru import GRU as Cell
from recurra.nn.arguments import cells_for, check_flags
from recurra.nn.options import GatedOptions
from recurra.nn.recurrent import Recurrent


class GRU(Recurrent):
    """Gated recurrent unit over sequences: torch.nn.GRU, with lengths, resets, sizes per layer.

    The equations and the gate order r z n are those of `recurra.cells.GRU`.

    Arguments, weights and results are those of torch.nn.GRU. By keyword only: hidden_size as a list
    gives each layer its own size, and h_n is then a tuple with one tensor for each layer;
    reset_after=False is the original form, with the reset gate before the product; `backend`
    ("auto", "cudnn", "cpu", "reference") chooses who computes; `init` ("torch", "orthogonal",
    "chrono" with chrono_length = longest memory in steps) and `forget_bias` (of z, which keeps the
    state) how weights are drawn, see `recurra.nn.initialise`.

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

    >>> layer = GRU(3, 5, num_layers=2, bidirectional=True)
    >>> output, h_n = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, h_n.shape
    (torch.Size([7, 2, 10]), torch.Size([4, 2, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset_after: bool = True,
        layer_norm: bool = False,
        **options: Unpack[GatedOptions],
    ) -> None:
        def make(inputs: int, hidden: int) -> Cell:
            return Cell(inputs, hidden, bias=bias, reset_after=reset_after, layer_norm=layer_norm)

        check_flags("GRU", reset_after=reset_after, layer_norm=layer_norm)

        super().__init__(
            cells_for("GRU", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.reset_after = reset_after
        self.layer_norm = layer_norm
        self.mode = "GRU"
