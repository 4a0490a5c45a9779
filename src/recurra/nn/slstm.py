"""The sLSTM of xLSTM as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import torch

from recurra.cells.slstm import SLSTM as Cell
from recurra.nn.arguments import cells_for
from recurra.nn.options import Options
from recurra.nn.recurrent import Recurrent


class SLSTM(Recurrent):
    """Long short-term memory with exponential gates over sequences.

    The equations, the gate order i f z o and how weights are drawn are those of
    `recurra.cells.SLSTM`. num_heads divides hidden_size: units of different heads do not mix.
    forget_gate is "sigmoid" or "exp".

    Arguments and forward are those of `recurra.nn.LSTM`, with `lengths`, `reset`, hidden_size as a
    list and `stream`; further keywords are those of `recurra.nn.options.Options`.

    Shapes, batch_first=False: x (T, B, input_size), state (h, c, n, m), each (num_layers * D, B,
    hidden_size), output (T, B, D * hidden_size), D = 2 when bidirectional, else 1.
    batch_first=True: x and output are (B, T, ·). A state that is passed in must be one that a call
    has returned, or have n > 0, or zeros.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = SLSTM(3, 6, num_heads=2)
    >>> output, (h_n, c_n, n_n, m_n) = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, m_n.shape
    (torch.Size([7, 2, 6]), torch.Size([1, 2, 6]))

    Source: Beck et al. 2024, "xLSTM: extended long short-term memory".
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
        num_heads: int = 1,
        forget_gate: Literal["sigmoid", "exp"] = "sigmoid",
        **options: Unpack[Options],
    ) -> None:
        def make(inputs: int, hidden: int) -> Cell:
            return Cell(inputs, hidden, bias, num_heads, forget_gate)

        super().__init__(
            cells_for("SLSTM", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.num_heads = num_heads
        self.forget_gate = forget_gate
        self.mode = "SLSTM"
