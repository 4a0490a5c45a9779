"""Functions of single numbers whose bits do not depend on where in a tensor a number lies.

torch runs the body of a tensor with vector instructions and its end without, and the two round
differently: GELU of one number has other bits alone than among a hundred. Here every number is in
the body.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Numbers that one pass of torch's vector loop takes at most: two vectors of 64 bytes, float32.
PASS = 32
# Below torch's least share of a thread, so that no pass is cut by sharing.
PIECE = 16384


def pointwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), for a function of each number by itself; a number's bits depend on it alone.

    Where a gradient is recorded, in a graph being compiled and off the CPU it is called as it is.
    """
    if torch.is_grad_enabled() or not x.is_cpu or torch.compiler.is_compiling():
        return function(x)
    count = x.numel()
    padded = x.new_zeros(-(-count // PASS) * PASS)
    padded[:count] = x.reshape(-1)
    y = torch.cat([function(piece) for piece in torch.split(padded, PIECE)]) if count else padded
    return y[:count].view(x.shape)
