"""Gated recurrent unit, in both forms that are in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure


class GRUState(NamedTuple):
    """h (B, hidden_size)."""

    h: Tensor


@dataclass(frozen=True)
class GRU(Cell):
    """Gated recurrent unit, one step.

    r = σ(W_r x + b_r + U_r h + c_r);  z = σ(W_z x + b_z + U_z h + c_z)
    n = tanh(W_n x + b_n + r ⊙ (U_n h + c_n))      reset_after=True, as in torch and cuDNN
    n = tanh(W_n x + b_n + U_n (r ⊙ h) + c_n)      reset_after=False, the original form
    h' = (1 − z) ⊙ n + z ⊙ h

    Shapes: x (B, input_size), h (B, hidden_size). Weights are stacked in the order r z n.

    >>> GRU(3, 5).parameter_shapes()["weight_ih"]
    (15, 3)

    Source: Cho et al. 2014, "Learning phrase representations using RNN encoder–decoder for
    statistical machine translation", eq. 5–8, for reset_after=False; version 1 of arXiv:1406.1078
    has the reset after the product. The papers' biases are one vector; b and c are torch's two.
    """

    bias: bool = True
    reset_after: bool = True

    name: ClassVar[str] = "GRU"
    structure: ClassVar[Structure] = "dense"
    gates: ClassVar[tuple[str, ...]] = ("r", "z", "n")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        stacked = 3 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (stacked, self.input_size),
            "weight_hh": (stacked, self.hidden_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (stacked,), "bias_hh": (stacked,)}
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {"h": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return GRUState(*parts)

    def project(self, x: Tensor, params: Params) -> Tensor:
        if not self.bias:
            return F.linear(x, params["weight_ih"])
        recurrent = params["bias_hh"]
        if self.reset_after:
            # c_n is multiplied by r, so it cannot be added before the state is known.
            recurrent = F.pad(recurrent[: 2 * self.hidden_size], (0, self.hidden_size))
        return F.linear(x, params["weight_ih"], params["bias_ih"] + recurrent)

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        size = self.hidden_size
        u_rz, u_n = (block.t() for block in params["weight_hh"].split_with_sizes([2 * size, size]))
        c_n = params["bias_hh"][2 * size :] if self.bias and self.reset_after else None

        def step(projected_t: Tensor, state: GRUState) -> tuple[Tensor, State]:
            p_rz, p_n = projected_t.split_with_sizes([2 * size, size], dim=1)
            h = state[0]
            dropped = masks.drop(h)
            r, z = torch.sigmoid(torch.addmm(p_rz, dropped, u_rz)).chunk(2, dim=1)
            if not self.reset_after:
                n = torch.tanh(torch.addmm(p_n, r * dropped, u_n))
            elif c_n is None:
                n = torch.tanh(torch.addcmul(p_n, r, dropped @ u_n))
            else:
                n = torch.tanh(torch.addcmul(p_n, r, torch.addmm(c_n, dropped, u_n)))
            h = torch.lerp(n, h, z)
            return h, GRUState(h)

        return step
