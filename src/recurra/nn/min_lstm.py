"""minLSTM as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch

from recurra.cells.min_lstm import MinLSTM as Cell
from recurra.nn.arguments import cells_for
from recurra.nn.options import Options
from recurra.nn.recurrent import Recurrent


class MinLSTM(Recurrent):
    """minLSTM over sequences: forget and input gate share one whole, without a look at the state.

    The equations and the gate order f i n are those of `recurra.cells.MinLSTM`. The state is h
    alone; there is no c.

    positive=True keeps candidates above 0, as the log-space form of the paper does; positive=False
    leaves them as they are. A state passed in should be 0 or more with positive=True.

    Other arguments, keywords, shapes, lengths and resets are those of `recurra.nn.GRU`, but there
    are no recurrent weights: `init` and `recurrent_dropout` have nothing to act on and are refused.
    The whole sequence is one scan (backend "scan"); `layer.stream(batch_size)` steps by the
    reference.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = MinLSTM(3, 6, num_layers=2, bidirectional=True)
    >>> output, h_n = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, h_n.shape
    (torch.Size([7, 2, 12]), torch.Size([4, 2, 6]))
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
        positive: bool = True,
        **options: Unpack[Options],
    ) -> None:
        def make(inputs: int, hidden: int) -> Cell:
            return Cell(inputs, hidden, bias=bias, positive=positive)

        super().__init__(
            cells_for("MinLSTM", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.positive = positive
