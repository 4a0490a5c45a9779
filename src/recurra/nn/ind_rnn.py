"""The independently recurrent network as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import torch

from recurra.cells.ind_rnn import IndRNN as Cell
from recurra.nn.arguments import cells_for
from recurra.nn.options import Options
from recurra.nn.recurrent import Recurrent


class IndRNN(Recurrent):
    """Independently recurrent network over sequences.

    h_t = φ(W x_t + b + u ⊙ h_{t−1}),  φ = relu or tanh (activation)

    The equation and how u is drawn are those of `recurra.cells.IndRNN`: memory_length is the
    longest memory in time steps, None one without end. Units of one layer do not see each other, so
    two layers or more are usual. Nothing clips u while training; the paper does, see there.

    Arguments and forward are those of `recurra.nn.RNN`, with `lengths`, `reset`, hidden_size as a
    list and `stream`; further keywords are those of `recurra.nn.options.Options`.

    Shapes, batch_first=False: x (T, B, input_size), h_0 and h_n (num_layers * D, B, hidden_size),
    output (T, B, D * hidden_size), D = 2 when bidirectional, else 1. batch_first=True: x and output
    are (B, T, ·).
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = IndRNN(3, 5, num_layers=2, memory_length=100)
    >>> output, h_n = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, h_n.shape
    (torch.Size([7, 2, 5]), torch.Size([2, 2, 5]))

    Source: Li et al. 2018, "Independently recurrent neural network (IndRNN): building a longer and
    deeper RNN".
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
        activation: Literal["relu", "tanh"] = "relu",
        memory_length: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        def make(inputs: int, hidden: int) -> Cell:
            return Cell(inputs, hidden, activation, bias, memory_length)

        super().__init__(
            cells_for("IndRNN", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.activation = activation
        self.memory_length = memory_length
        self.mode = "IndRNN"
