"""Minimal LSTM: forget and input gate share one whole, and nothing looks at the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from recurra.cells.linear import MinimalCell


@dataclass(frozen=True)
class MinLSTM(MinimalCell):
    """minLSTM, one step.

    f = σ(W_f x + b_f);  i = σ(W_i x + b_i);  n = g(W_n x + b_n)
    h' = f / (f + i) ⊙ h + i / (f + i) ⊙ n

    g(v) = v + 0.5 where v ≥ 0 and σ(v) elsewhere    positive=True, so that h stays above 0
    g(v) = v                                         positive=False

    Shapes: x (B, input_size), h (B, hidden_size). Weights are stacked in the order f i n, and drawn
    as torch.nn.Linear draws them.

    >>> MinLSTM(3, 5).parameter_shapes()
    {'weight_ih': (15, 3), 'bias_ih': (15,)}

    Source: Feng et al. 2024, "Were RNNs all we needed?", with the gates normalised; positive=True
    is its log-space form, which also applies g to the initial state. Here that is taken as it is.
    """

    name: ClassVar[str] = "MinLSTM"
    gates: ClassVar[tuple[str, ...]] = ("f", "i", "n")

    def gate(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        f, i, v = projected.chunk(3, -1)
        # i / (f + i) = σ(log i − log f): no quotient of two numbers that are both nearly 0.
        return F.logsigmoid(i) - F.logsigmoid(f), v
