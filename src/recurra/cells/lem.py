"""Long expressive memory: two states, and time steps that are learned for each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.errors import ConfigError


class LEMState(NamedTuple):
    """y (B, hidden_size), which is the output, and z (B, hidden_size)."""

    y: Tensor
    z: Tensor


@dataclass(frozen=True)
class LEM(Cell):
    """Long expressive memory, one step.

    s = Δt σ(W_s y + V_s x + b_s);  t = Δt σ(W_t y + V_t x + b_t)
    z' = (1 − s) ⊙ z + s ⊙ tanh(W_z y + V_z x + b_z)
    y' = (1 − t) ⊙ y + t ⊙ tanh(W_y z' + V_y x + b_y)

    Shapes: x (B, input_size), y and z (B, hidden_size); the output is y'. `weight_ih` (4H, I) and
    `bias_ih` stack V and b in the order s t z y, `weight_hh` (3H, H) stacks the products with y,
    W_s W_t W_z, and `weight_hz` (H, H) is W_y, the product with z'. Dropout on h falls on y in the
    products with y. dt is Δt, the longest time step; the smaller, the longer the memory.
    Raises: ConfigError unless 0 < dt ≤ 1: the states are means of old and new only there.

    >>> LEM(3, 5).parameter_shapes()["weight_hh"]
    (15, 5)

    Source: Rusch, Mishra, Erichson and Mahoney 2022, "Long expressive memory for sequence
    modeling"; s and t are Δt_n and its barred twin there. All parameters are drawn uniform on
    ±1/√hidden_size, as in the authors' code.
    """

    bias: bool = True
    dt: float = 1.0

    name: ClassVar[str] = "LEM"
    structure: ClassVar[Structure] = "dense"
    gates: ClassVar[tuple[str, ...]] = ("s", "t", "z", "y")

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.dt, int | float) and not isinstance(self.dt, bool)
        if not number or not 0 < self.dt <= 1:
            raise ConfigError(
                f"LEM: dt is {self.dt!r}, but must be a number above 0 and at most 1."
            )

    @property
    def output_part(self) -> str:
        return "y"

    @property
    def recurrent_weights(self) -> tuple[str, ...]:
        return ("weight_hh", "weight_hz")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (4 * size, self.input_size),
            "weight_hh": (3 * size, size),
            "weight_hz": (size, size),
        }
        if self.bias:
            shapes["bias_ih"] = (4 * size,)
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {"y": self.hidden_size, "z": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return LEMState(*parts)

    def project(self, x: Tensor, params: Params) -> Tensor:
        return F.linear(x, params["weight_ih"], params.get("bias_ih"))

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        size, dt = self.hidden_size, self.dt
        u, w_y = params["weight_hh"].t(), params["weight_hz"].t()

        def step(projected_t: Tensor, state: LEMState) -> tuple[Tensor, State]:
            y, z = state
            p_stz, p_y = projected_t.split_with_sizes([3 * size, size], dim=1)
            p_st, p_z = torch.addmm(p_stz, masks.drop(y), u).split_with_sizes([2 * size, size], 1)
            s, t = (dt * torch.sigmoid(p_st)).chunk(2, dim=1)
            z = torch.lerp(z, torch.tanh(p_z), s)
            y = torch.lerp(y, torch.tanh(torch.addmm(p_y, z, w_y)), t)
            return y, LEMState(y, z)

        return step
