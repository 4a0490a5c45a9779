"""Dropout inside a recurrence: what one call of a layer draws.

All draws come from torch's global generator, on the device of x, and before a backend is chosen:
the same seed gives the same masks in every backend.

* variational: one mask on the input of a layer, the same at every step; "locked" dropout in Merity,
  Keskar and Socher 2017, "Regularizing and optimizing LSTM language models"
* recurrent: one mask on h for a whole sequence, for each layer and direction, before the recurrent
  product; Gal and Ghahramani 2016, see `recurra.cells.cell.Masks`
* weight drop: entries of the recurrent weights are 0 for a whole sequence (DropConnect); Merity,
  Keskar and Socher 2017
* zoneout: each step keeps units of the state as they were, drawn afresh; evaluation takes the
  expectation; Krueger et al. 2016, see `recurra.kernels.sequence.Zoneout`

What the first three keep is scaled by 1 / (1 − p), as in torch.nn.Dropout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import Cell, Masks, Params
from recurra.kernels.sequence import Zoneout


def lock_input(x: Tensor, p: float, batch_first: bool) -> Tensor:
    """x (B, T, I), or (T, B, I), times one mask of each row, the same at all its steps."""
    batch, size = x.shape[0 if batch_first else 1], x.shape[2]
    ones = x.new_ones((batch, 1, size) if batch_first else (1, batch, size))
    return x * F.dropout(ones, p)


def draw_masks(cell: Cell, x: Tensor, p: float, batch_first: bool) -> Masks:
    """A mask (B, output_size) on h, with the dtype of x."""
    batch = x.shape[0 if batch_first else 1]
    return Masks(F.dropout(x.new_ones(batch, cell.output_size), p))


def drop_weights(cell: Cell, params: Params, p: float) -> Params:
    """The parameters, entries of the recurrent weights dropped, the same in all rows and steps."""
    dropped = {name: F.dropout(params[name], p) for name in cell.recurrent_weights}
    return {**params, **dropped}


def zoneout_parts(zoneout: float | tuple[float, ...], cell: Cell) -> tuple[float, ...]:
    """The probability of each part of the state; one number is that of all parts."""
    return zoneout if isinstance(zoneout, tuple) else (zoneout,) * len(cell.state_sizes())


def draw_zoneout(cell: Cell, x: Tensor, parts: tuple[float, ...], training: bool) -> Zoneout | None:
    """Fresh choices for every step in the layout of x when training, else their expectation.

    None when no part is ever kept.
    """
    if not any(parts):
        return None
    if not training:
        return Zoneout(parts)
    return Zoneout(
        tuple(
            _draw_kept(x, size, p) if p > 0 else 0.0
            for p, size in zip(parts, cell.state_sizes().values(), strict=True)
        )
    )


def _draw_kept(x: Tensor, size: int, p: float) -> Tensor:
    # In float32 whatever x is: a bfloat16 draw is too coarse to be compared with p.
    drawn = torch.rand(*x.shape[:2], size, dtype=torch.float32, device=x.device)
    return (drawn < p).to(x.dtype)
