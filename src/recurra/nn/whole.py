"""Sums whose bits do not depend on the order in which they are added up.

A sum of float64 numbers that are whole, and stay below 2⁵³, is exact, and so is one of numbers that
are whole times a power of two. Products of matrices that hold such numbers have one result,
whatever library, batch, padding and threads compute it. What goes into a product is rounded to 20
binary places here; a product then has 40, and sums are exact below 2¹³ = 8192. Larger ones are
added up as float64 are, to 16 digits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PLACES = 2.0**20


def can_be_whole(x: Tensor) -> bool:
    """Whether sums over x are made exact: of float32 on a CPU, where no gradient is recorded."""
    return (
        x.is_cpu
        and x.dtype is torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def whole(x: Tensor) -> Tensor:
    """x in float64, rounded to 20 binary places."""
    return (x.double() * _PLACES).round_().mul_(1 / _PLACES)


class WholeLinear:
    """y = x Wᵀ + b with exact sums, of x, W and b rounded to 20 binary places.

    Shapes: x (..., input_size), weight (output_size, input_size), bias (output_size,) or None.

    >>> layer = WholeLinear(torch.eye(2), torch.ones(2))
    >>> layer(torch.tensor([[0.5, 2.0]]))
    tensor([[1.5000, 3.0000]])
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = whole(weight.detach())
        self._bias = None if bias is None else whole(bias.detach())

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(whole(x), self._weight, self._bias).to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b: with exact sums where that can be, else torch's."""
    if can_be_whole(x):
        return WholeLinear(weight, bias)(x)
    return F.linear(x, weight, bias)
