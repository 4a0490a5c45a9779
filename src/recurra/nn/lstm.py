"""Long short-term memory as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.cells.lstm import LSTM as Cell
from recurra.nn.arguments import cells_for, check_flags
from recurra.nn.options import GatedOptions
from recurra.nn.recurrent import Recurrent


class LSTM(Recurrent):
    """Long short-term memory over sequences: torch.nn.LSTM, with lengths, resets, sizes per layer.

    The equations and the gate order i f g o are those of `recurra.cells.LSTM`.

    Arguments, weights and results are those of torch.nn.LSTM. By keyword only: hidden_size as a
    list gives each layer its own size, and h_n and c_n are then tuples with one tensor for each
    layer; `backend` ("auto", "cudnn", "cpu", "reference") chooses who computes; `init` ("torch",
    "orthogonal", "chrono" with chrono_length = longest memory in steps) and `forget_bias` how
    weights are drawn, see `recurra.nn.initialise`.

    Against overfitting, also by keyword and active in training only: `recurrent_dropout`, one mask
    on h for a whole sequence, before the recurrent product; `variational_dropout`, one mask on each
    layer's input, the same at every step; `zoneout`, the chance that a unit of the state stays as
    it was at a step, one number or a pair for (h, c), with its expectation in evaluation. See
    `recurra.nn.dropouts`.

    Inside the cell, by keyword: `peephole`, `coupled`, `layer_norm`, see `recurra.cells.LSTM`. What
    all layers take besides is in `recurra.nn.options`.

    `layer.stream(batch_size)` runs the layer one step at a time, see `recurra.nn.Stream`.

    Shapes, batch_first=False: x (T, B, input_size), h_0 and h_n (num_layers * D, B, P), c_0 and c_n
    (num_layers * D, B, hidden_size), output (T, B, D * P); D = 2 when bidirectional, else 1;
    P = proj_size, or hidden_size when that is 0. batch_first=True: x and output are (B, T, ·).
    Without batch axis: x (T, input_size), and no B elsewhere. A PackedSequence gives a
    PackedSequence.
    lengths (B,) int: real steps of each row, 0 allowed; outputs after them are 0. None: all real.
    reset (B, T) bool: True puts the row back to zeros before that step. None: never.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = LSTM(3, [8, 5], batch_first=True, forget_bias=1.0)
    >>> output, (h_n, c_n) = layer(torch.zeros(2, 7, 3), lengths=torch.tensor([7, 0]))
    >>> output.shape, [h.shape for h in h_n]
    (torch.Size([2, 7, 5]), [torch.Size([1, 2, 8]), torch.Size([1, 2, 5])])
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
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        **options: Unpack[GatedOptions],
    ) -> None:
        def make(inputs: int, hidden: int) -> Cell:
            return Cell(
                inputs,
                hidden,
                bias=bias,
                proj_size=proj_size,
                peephole=peephole,
                coupled=coupled,
                layer_norm=layer_norm,
            )

        check_flags("LSTM", peephole=peephole, coupled=coupled, layer_norm=layer_norm)

        super().__init__(
            cells_for("LSTM", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.proj_size = proj_size
        self.peephole = peephole
        self.coupled = coupled
        self.layer_norm = layer_norm
        self.mode = "LSTM"

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Any, Any] | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Any, tuple[Any, Any]]:
        """(output, (h_n, c_n)) of x, which torch calls input; hx None means zeros."""
        return self._run(input, hx, lengths, reset)
