"""Minimal GRU: a gate and a candidate that do not look at the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from recurra.cells.linear import MinimalCell


@dataclass(frozen=True)
class MinGRU(MinimalCell):
    """minGRU, one step.

    z = σ(W_z x + b_z);  n = g(W_n x + b_n)
    h' = (1 − z) ⊙ h + z ⊙ n

    g(v) = v + 0.5 where v ≥ 0 and σ(v) elsewhere    positive=True, so that h stays above 0
    g(v) = v                                         positive=False

    Shapes: x (B, input_size), h (B, hidden_size). Weights are stacked in the order z n, and drawn
    as torch.nn.Linear draws them.

    >>> MinGRU(3, 5).parameter_shapes()
    {'weight_ih': (10, 3), 'bias_ih': (10,)}

    Source: Feng et al. 2024, "Were RNNs all we needed?"; positive=True is its log-space form, which
    also applies g to the initial state. Here that is taken as it is, so a state can be handed on.
    """

    name: ClassVar[str] = "MinGRU"
    gates: ClassVar[tuple[str, ...]] = ("z", "n")

    def gate(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        k, v = projected.chunk(2, -1)
        return k, v
