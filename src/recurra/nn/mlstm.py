"""The mLSTM of xLSTM as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import torch

from recurra.cells.mlstm import MLSTM as Cell
from recurra.nn.arguments import cells_for
from recurra.nn.options import Options
from recurra.nn.recurrent import Recurrent


class MLSTM(Recurrent):
    """Long short-term memory with a matrix for a memory over sequences.

    The equations, the order of weights q k v o i f and how they are drawn are those of
    `recurra.cells.MLSTM`. num_heads divides hidden_size; each head of d = hidden_size / num_heads
    units has a memory of d × d. forget_gate is "sigmoid" or "exp". No step reads the output of the
    one before, so whole chunks of time are computed at once, by the backend "chunkwise".

    Arguments and forward are those of `recurra.nn.LSTM`, with `lengths`, `reset`, hidden_size as a
    list and `stream`; further keywords are those of `recurra.nn.options.Options`, but for
    recurrent_dropout, which has nothing to act on.

    Shapes, batch_first=False: x (T, B, input_size), state (c, n, m): c (num_layers * D, B,
    hidden_size * d), n (num_layers * D, B, hidden_size), m (num_layers * D, B, num_heads), output
    (T, B, D * hidden_size), D = 2 when bidirectional, else 1. batch_first=True: x and output are
    (B, T, ·).
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = MLSTM(3, 6, num_heads=2)
    >>> output, (c_n, n_n, m_n) = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, c_n.shape, m_n.shape
    (torch.Size([7, 2, 6]), torch.Size([1, 2, 18]), torch.Size([1, 2, 2]))

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
            cells_for("MLSTM", make, input_size, hidden_size, num_layers, bidirectional),
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
        self.mode = "MLSTM"
