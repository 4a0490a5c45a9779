"""torch.nn.Linear for the heads of models that stream."""

from __future__ import annotations

import torch
from torch import Tensor

from recurra.kernels import linear as kernel


class Linear(torch.nn.Linear):
    """y = x Wᵀ + b: torch.nn.Linear, whose inference has the same bits for a row in any batch.

    With torch's own, the bits of a row depend on how many rows are computed with it, so a stream
    and a batch differ in the last digit. Here, on a CPU and without a gradient to record, every
    output is one sum in ascending order; elsewhere, and in training, it is torch's.

    Arguments, parameters and `state_dict` are torch's. Shapes: x (..., in_features), y (...,
    out_features).

    >>> head = Linear(4, 2)
    >>> x = torch.randn(3, 4)
    >>> with torch.no_grad():
    ...     torch.equal(head(x)[:1], head(x[:1]))
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        """y for x; the argument has torch's name."""
        if input.dtype is not self.weight.dtype or input.shape[-1:] != (self.in_features,):
            return super().forward(input)  # torch's error, or autocast's own rules
        return kernel.linear(input, self.weight, self.bias)
