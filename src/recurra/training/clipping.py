"""Gradients: their norm, clipping by norm or by value, and the largest one for error messages.

Clipping by norm bounds the exploding gradient and keeps its direction: g ← g · min(1, limit / ‖g‖).
Source: Pascanu, Mikolov, Bengio 2013, algorithm 1; clipping each entry goes back to Mikolov 2012.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all entries of all gradients, a scalar on their device."""
    if not gradients:
        return torch.zeros(())
    return get_total_norm(gradients, foreach=True)


def clip_norm(gradients: Sequence[Tensor], norm: float, limit: float) -> None:
    """Scale the gradients, whose common norm is `norm`, in place to a norm of at most `limit`."""
    if norm > limit:
        torch._foreach_mul_(list(gradients), limit / norm)


def clip_value(gradients: Sequence[Tensor], limit: float) -> None:
    """Clamp every entry of the gradients in place to [-limit, limit]."""
    if gradients:
        torch._foreach_clamp_min_(list(gradients), -limit)
        torch._foreach_clamp_max_(list(gradients), limit)


def largest_gradient(parameters: Mapping[str, Tensor]) -> tuple[str, float]:
    """Name and size of the largest gradient entry; NaN counts as larger than infinity."""
    name, largest = "none", 0.0
    for candidate, parameter in parameters.items():
        if parameter.grad is None or parameter.grad.numel() == 0:
            continue
        size = parameter.grad.detach().abs().max().item()  # max passes NaN on
        if math.isnan(size):
            return candidate, size
        if size > largest or name == "none":
            name, largest = candidate, size
    return name, largest
