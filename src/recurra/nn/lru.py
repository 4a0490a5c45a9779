"""The linear recurrent unit as a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch

from recurra.cells.lru import LRU as Cell
from recurra.nn.arguments import cells_for
from recurra.nn.options import Options, refuse_keywords
from recurra.nn.recurrent import Recurrent


class LRU(Recurrent):
    """LRU over sequences: complex numbers that turn and decay, read out by a linear layer.

    The equations are those of `recurra.cells.LRU`. The layer is linear in x, so a nonlinearity
    belongs after it. h_n (num_layers * D, B, 2 * hidden_size) holds real parts, then imaginary
    ones. There are no biases.

    r_min, r_max and max_phase are the ring that λ is drawn on: memories of about 1 / (1 − r_max)
    steps, and angles from 0 to max_phase, which is best small for long sequences. With `zoneout`
    the reference runs it.

    Other arguments, keywords, shapes, lengths and resets are those of `recurra.nn.GRU`, but there
    are no recurrent weights: `init` and `recurrent_dropout` have nothing to act on and are refused.
    The whole sequence is one scan (backend "scan"); `layer.stream(batch_size)` steps by the
    reference.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> layer = LRU(3, 6, num_layers=2, bidirectional=True)
    >>> output, h_n = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> output.shape, h_n.shape
    (torch.Size([7, 2, 12]), torch.Size([4, 2, 12]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        **options: Unpack[Options],
    ) -> None:
        def make(inputs: int, hidden: int) -> Cell:
            return Cell(inputs, hidden, r_min=r_min, r_max=r_max, max_phase=max_phase)

        # What all other layers have, and what the constructor below is given.
        refuse_keywords(type(self), Recurrent, options.keys() & {"bias"})
        super().__init__(
            cells_for("LRU", make, input_size, hidden_size, num_layers, bidirectional),
            hidden_size=hidden_size,
            bias=False,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        del self.bias  # there is no such argument, and `repr` shows arguments
        self.r_min = r_min
        self.r_max = r_max
        self.max_phase = max_phase
