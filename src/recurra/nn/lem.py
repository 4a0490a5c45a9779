"""Long expressive memory as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch

from recurra.cells.lem import LEM as Cell
from recurra.nn.arguments import cells_for
from recurra.nn.options import Options
from recurra.nn.recurrent import Recurrent


class LEM(Recurrent):
    """Long expressive memory over sequences.

    Two states, y and z, each moved a learned part of the way to its new value at every step; the
    output is y. The equations and the order of weights are those of `recurra.cells.LEM`. dt, above
    0 and at most 1, is the longest time step: the smaller, the longer the memory.

    Arguments and forward are those of `recurra.nn.LSTM`, with `lengths`, `reset`, hidden_size as a
    list and `stream`; further keywords are those of `recurra.nn.options.Options`.

    Shapes, batch_first=False: x (T, B, input_size), state (y, z), each (num_layers * D, B,
    hidden_size), output (T, B, D * hidden_size), D = 2 when bidirectional, else 1.
    batch_first=True: x and output are (B, T, ·).
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = LEM(3, 5, dt=0.5)
    >>> output, (y_n, z_n) = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, z_n.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))

    Source: Rusch et al. 2022, "Long expressive memory for sequence modeling".
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
        dt: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        def make(inputs: int, hidden: int) -> Cell:
            return Cell(inputs, hidden, bias, dt)

        super().__init__(
            cells_for("LEM", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.dt = dt
        self.mode = "LEM"
