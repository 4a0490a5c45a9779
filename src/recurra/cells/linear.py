"""Linear recurrences: what the state is multiplied with, and what is added, knows no state.

    h' = a ⊙ h + b           a and b for all time steps at once, from the projection alone
    h' = a ⊙ e^(iθ) ⊙ h + b  where the cell is complex, with an angle θ that is constant in time

Every column is a recurrence of its own, so a whole sequence is one scan. A subclass writes
`coefficients`, and where it needs them `readout` and `angle`. Its step is derived from these, so a
scan over the same coefficients cannot be another recurrence.

A complex h lies in memory as its real parts followed by its imaginary parts, and so does b; a is
real. The initial state of every linear cell is zeros.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.errors import ConfigError


class LinearState(NamedTuple):
    """h (B, hidden_size), or (B, 2 · hidden_size) where it is complex, real parts first."""

    h: Tensor


@dataclass(frozen=True)
class LinearCell(Cell):
    """A recurrence h' = a ⊙ h + b; see the opening note."""

    structure: ClassVar[Structure] = "linear"
    has_recurrent_product: ClassVar[bool] = False
    is_complex: ClassVar[bool] = False

    def state_sizes(self) -> dict[str, int]:
        return {"h": 2 * self.hidden_size if self.is_complex else self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return LinearState(*parts)

    @abstractmethod
    def coefficients(self, projected: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """(a, b), each (..., width of h), of projected (..., len(gates) * hidden_size)."""

    def angle(self, params: Params) -> Tensor:
        """θ (hidden_size,) in radians, of a complex cell alone.

        float64 whatever the parameters are, because it is multiplied by the number of steps.
        """
        raise NotImplementedError

    def readout(self, h: Tensor, projected: Tensor, params: Params) -> Tensor:
        """The output (..., output_size) from the new h and the projection; here h itself.

        A cell with another one has an output_part of None.
        """
        return h

    @final
    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        if masks.h is not None:
            raise ConfigError(
                f"{self.name}: a dropout mask on h is given, but it acts in the product of h with "
                "recurrent weights, and there is none. Leave it out."
            )
        rotation: tuple[Tensor, ...] = ()
        if self.is_complex:
            angle = self.angle(params)
            dtype = next(iter(params.values())).dtype
            rotation = torch.cos(angle).to(dtype), torch.sin(angle).to(dtype)

        def step(projected_t: Tensor, state: LinearState) -> tuple[Tensor, State]:
            a, b = self.coefficients(projected_t, params)
            before = turn(state[0], *rotation) if rotation else state[0]
            h = a * before + b
            return self.readout(h, projected_t, params), LinearState(h)

        return step


@dataclass(frozen=True)
class MinimalCell(LinearCell):
    """What minGRU and minLSTM share: h moves towards a candidate by a share of the way.

    h' = (1 − σ(k)) ⊙ h + σ(k) ⊙ g(v)

    g(v) = v + 0.5 where v ≥ 0 and σ(v) elsewhere when positive is True; g(v) = v when it is False.
    A subclass gives k and v.

    Source: Feng et al. 2024, "Were RNNs all we needed?"; g is that of the log-space forms, which
    need candidates above 0.
    """

    bias: bool = True
    positive: bool = True

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        stacked = len(self.gates) * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (stacked, self.input_size)}
        if self.bias:
            shapes["bias_ih"] = (stacked,)
        return shapes

    def draw(self, params: Params) -> None:
        """As torch.nn.Linear, which the paper is content with: uniform on ±1/√input_size."""
        bound = 1 / math.sqrt(self.input_size)
        for value in params.values():
            value.uniform_(-bound, bound)

    def project(self, x: Tensor, params: Params) -> Tensor:
        return F.linear(x, params["weight_ih"], params.get("bias_ih"))

    @abstractmethod
    def gate(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """(k, v), each (..., hidden_size), of projected (..., len(gates) * hidden_size)."""

    def coefficients(self, projected: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        k, v = self.gate(projected)
        candidate = torch.where(v < 0, torch.sigmoid(v), v + 0.5) if self.positive else v
        return torch.sigmoid(-k), torch.sigmoid(k) * candidate


def turn(h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """A complex h (..., 2H), real parts first, times cos + i sin, each (..., H)."""
    real, imaginary = h.chunk(2, -1)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)
