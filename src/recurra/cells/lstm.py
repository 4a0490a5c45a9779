"""Long short-term memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.errors import ConfigError


class LSTMState(NamedTuple):
    """h (B, output_size), c (B, hidden_size)."""

    h: Tensor
    c: Tensor


@dataclass(frozen=True)
class LSTM(Cell):
    """Long short-term memory with input, forget and output gates, one step.

    i = σ(W_i x + b_i + U_i h + c_i);  f = σ(W_f x + b_f + U_f h + c_f)
    g = tanh(W_g x + b_g + U_g h + c_g);  o = σ(W_o x + b_o + U_o h + c_o)
    c' = f ⊙ c + i ⊙ g;  h' = o ⊙ tanh(c'), or R (o ⊙ tanh(c')) with proj_size

    Shapes: x (B, input_size), h (B, proj_size or hidden_size), c (B, hidden_size);
    R = `weight_hr` (proj_size, hidden_size). Weights are stacked in the order i f g o.
    proj_size 0 means no projection.
    Raises: ConfigError when proj_size is negative or not smaller than hidden_size.

    >>> LSTM(3, 5, proj_size=2).parameter_shapes()["weight_hh"]
    (20, 2)

    Source: Hochreiter and Schmidhuber 1997, "Long short-term memory"; the forget gate is from Gers,
    Schmidhuber and Cummins 2000, "Learning to forget"; the projection from Sak, Senior and Beaufays
    2014, "Long short-term memory recurrent neural network architectures for large scale acoustic
    modeling", eq. 7–13, without their peepholes and non-recurrent projection.
    """

    bias: bool = True
    proj_size: int = 0

    name: ClassVar[str] = "LSTM"
    structure: ClassVar[Structure] = "dense"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.proj_size < self.hidden_size:
            raise ConfigError(
                f"LSTM: proj_size is {self.proj_size}, but must be 0 (no projection) or smaller "
                f"than hidden_size, which is {self.hidden_size}."
            )

    @property
    def output_size(self) -> int:
        return self.proj_size or self.hidden_size

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        stacked = 4 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (stacked, self.input_size),
            "weight_hh": (stacked, self.output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (stacked,), "bias_hh": (stacked,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {"h": self.output_size, "c": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return LSTMState(*parts)

    def project(self, x: Tensor, params: Params) -> Tensor:
        bias = params["bias_ih"] + params["bias_hh"] if self.bias else None
        return F.linear(x, params["weight_ih"], bias)

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        u = params["weight_hh"].t()
        projection = params["weight_hr"].t() if self.proj_size else None

        def step(projected_t: Tensor, state: LSTMState) -> tuple[Tensor, State]:
            h, c = state
            i, f, g, o = torch.addmm(projected_t, masks.drop(h), u).chunk(4, dim=1)
            c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
            h = torch.sigmoid(o) * torch.tanh(c)
            if projection is not None:
                h = h @ projection
            return h, LSTMState(h, c)

        return step
