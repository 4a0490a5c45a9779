"""Layer normalisation inside a cell.

Source: Ba, Kiros and Hinton 2016, "Layer normalization".
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import Params

EPSILON = 1e-5


def normalise(a: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    """gain ⊙ (a − mean) / √(variance + 1e-5) + bias over the features of a (..., F)."""
    return F.layer_norm(a, a.shape[-1:], gain, bias, EPSILON)


def draw_with_norms(draw: Callable[[Params], None], params: Params) -> None:
    """`draw`, but gains (`norm_*`) begin at 1 and their biases (`norm_*_bias`) at 0."""
    draw({name: value for name, value in params.items() if not name.startswith("norm_")})
    for name, value in params.items():
        if name.startswith("norm_"):
            value.fill_(0.0 if name.endswith("_bias") else 1.0)
