"""Real-gated linear recurrent unit: a decay that its input can hold still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import Params
from recurra.cells.heads import check_heads
from recurra.cells.linear import LinearCell

# c of the paper: how much faster than its own decay a unit can forget.
SHARPNESS = 8.0
# Decays a^c at the start of training.
SLOWEST, FASTEST = 0.999, 0.9


@dataclass(frozen=True)
class RGLRU(LinearCell):
    """RG-LRU, one step, with the linear layer before it that makes its input hidden_size wide.

    u = W x + b
    r = σ(W_r u + b_r);  i = σ(W_i u + b_i)
    log a = −8 softplus(Λ) ⊙ r
    h' = a ⊙ h + √(1 − a²) ⊙ (i ⊙ u)

    The recurrence acts on each feature of u by itself, so u is as wide as h, and W is what Griffin
    has in front of it; with W = 1 and b = 0 this is the RG-LRU alone. W_r and W_i are
    block-diagonal: num_heads blocks, each over hidden_size / num_heads features of u.

    Shapes: x (B, input_size), h (B, hidden_size); weight_gate (2, num_heads, D, D) and bias_gate
    (2 · hidden_size,) in the order r i, D = hidden_size / num_heads; decay (hidden_size,) is Λ.
    Weights are drawn normal with variance 1 / inputs, biases 0, and Λ such that a^8 with an open
    recurrence gate is uniform on 0.9..0.999.
    Raises: ConfigError when num_heads does not divide hidden_size.

    >>> RGLRU(3, 6, num_heads=2).parameter_shapes()["weight_gate"]
    (2, 2, 3, 3)

    Source: De et al. 2024, "Griffin: mixing gated linear recurrences with local attention for
    efficient language models". The authors' code (recurrentgemma) differs in two points: it draws
    a, not a^8, on 0.9..0.999, and its first step has a factor of 1 in place of √(1 − a²).
    """

    bias: bool = True
    num_heads: int = 1

    name: ClassVar[str] = "RGLRU"
    gates: ClassVar[tuple[str, ...]] = ("r", "i", "u")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.name, self.num_heads, self.hidden_size)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        size, heads = self.hidden_size, self.num_heads
        block = size // heads
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (size, self.input_size),
            "weight_gate": (2, heads, block, block),
            "decay": (size,),
        }
        if self.bias:
            shapes |= {"bias_ih": (size,), "bias_gate": (2 * size,)}
        return shapes

    def draw(self, params: Params) -> None:
        for name in ("weight_ih", "weight_gate"):
            params[name].normal_(0, 1 / math.sqrt(params[name].shape[-1]))
        slowness = torch.empty_like(params["decay"]).uniform_(FASTEST, SLOWEST)
        params["decay"].copy_(torch.log(torch.expm1(-torch.log(slowness) / SHARPNESS)))
        if self.bias:
            params["bias_ih"].zero_()
            params["bias_gate"].zero_()

    def project(self, x: Tensor, params: Params) -> Tensor:
        u = F.linear(x, params["weight_ih"], params.get("bias_ih"))
        blocks = u.reshape(*u.shape[:-1], self.num_heads, self.hidden_size // self.num_heads)
        gates = torch.einsum("...ni,gnoi->...gno", blocks, params["weight_gate"]).flatten(-3)
        if self.bias:
            gates = gates + params["bias_gate"]
        return torch.cat([gates, u], -1)

    def coefficients(self, projected: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        r, i, u = projected.chunk(3, -1)
        # −softplus(Λ), with all digits also where torch's softplus takes a short cut.
        log_a = SHARPNESS * F.logsigmoid(-params["decay"]) * torch.sigmoid(r)
        share = _root(-torch.expm1(2 * log_a))
        return torch.exp(log_a), share * (torch.sigmoid(i) * u)


def _root(share: Tensor) -> Tensor:
    """√share, with a gradient of 0 at 0: a gate that is shut for good is left alone.

    Nothing else is clipped: towards 0 the gate's own gradient falls faster than this one rises.
    """
    shut = share == 0
    return torch.sqrt(share.masked_fill(shut, 1)).masked_fill(shut, 0)
