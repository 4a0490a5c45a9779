"""The sLSTM of xLSTM: exponential gates, a normaliser, and heads that do not mix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.cells.heads import check_heads
from recurra.errors import ConfigError, unknown

ForgetGate = Literal["sigmoid", "exp"]
FORGET_GATES: tuple[ForgetGate, ...] = ("sigmoid", "exp")


class SLSTMState(NamedTuple):
    """h, c, n, m, each (B, hidden_size): output, memory, its normaliser ≥ 0, log of its scale."""

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor


@dataclass(frozen=True)
class SLSTM(Cell):
    """Long short-term memory with exponential gates, one step.

    ĩ, f̃, z̃, õ = W x + R h + b
    i = exp(ĩ);  f = σ(f̃) or exp(f̃);  z = tanh(z̃);  o = σ(õ)
    c' = f ⊙ c + i ⊙ z;  n' = f ⊙ n + i;  h' = o ⊙ c' / n'

    c and n are held as c exp(−m) and n exp(−m), so that no gate overflows; h does not depend on m:

    m' = max(log f + m, ĩ);  i becomes exp(ĩ − m'), f becomes exp(log f + m − m')

    Shapes: x (B, input_size), all states (B, hidden_size). Weights are stacked in the order i f z
    o. R mixes units within each of num_heads heads of d = hidden_size / num_heads units:
    `weight_hh` (4H, d), whose row g H + j holds the weights of gate g of unit j from the units of
    its own head. One head is a full matrix. forget_gate is "sigmoid" or "exp".

    The initial state is zeros. Where n is 0 nothing is held, so m' = ĩ there: the first step gives
    h = o ⊙ z however small its input gate is, and from then on n is at least 1.

    Weights are drawn as by default in the authors' code: W normal of variance 2 / (5 input_size),
    R = 0, biases 0 but for f: 5 − 12 (j / (d − 1))^0.3 for unit j of a head, a power law from
    memories of a hundred steps to none. With forget_gate="exp" it is log σ of that: the same gates.
    Raises: ConfigError when num_heads does not divide hidden_size, or for another forget_gate.

    >>> SLSTM(3, 6, num_heads=2).parameter_shapes()["weight_hh"]
    (24, 3)

    Source: Beck et al. 2024, "xLSTM: extended long short-term memory".
    """

    bias: bool = True
    num_heads: int = 1
    forget_gate: ForgetGate = "sigmoid"

    name: ClassVar[str] = "sLSTM"
    structure: ClassVar[Structure] = "block"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "z", "o")
    can_learn_start: ClassVar[bool] = False  # n must not be negative

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.name, self.num_heads, self.hidden_size)
        if self.forget_gate not in FORGET_GATES:
            raise ConfigError(unknown("forget_gate", self.forget_gate, FORGET_GATES))

    @property
    def head_size(self) -> int:
        """Units of one head."""
        return self.hidden_size // self.num_heads

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        stacked = 4 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (stacked, self.input_size),
            "weight_hh": (stacked, self.head_size),
        }
        if self.bias:
            shapes["bias_ih"] = (stacked,)
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return dict.fromkeys(("h", "c", "n", "m"), self.hidden_size)

    def make_state(self, *parts: Tensor) -> State:
        return SLSTMState(*parts)

    def draw(self, params: Params) -> None:
        params["weight_ih"].normal_(0, math.sqrt(2 / (5 * self.input_size)))
        params["weight_hh"].zero_()
        if self.bias:
            bias = params["bias_ih"].zero_()
            bias[self.hidden_size : 2 * self.hidden_size] = self._forget_bias().to(bias)

    def _forget_bias(self) -> Tensor:
        along = torch.linspace(0, 1, self.head_size, dtype=torch.float64)
        power_law = (5 - 12 * along**0.3).repeat(self.num_heads)
        return power_law if self.forget_gate == "sigmoid" else F.logsigmoid(power_law)

    def project(self, x: Tensor, params: Params) -> Tensor:
        return F.linear(x, params["weight_ih"], params.get("bias_ih"))

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        add_recurrent = self._recurrence(params["weight_hh"])
        is_sigmoid = self.forget_gate == "sigmoid"

        def step(projected_t: Tensor, state: SLSTMState) -> tuple[Tensor, State]:
            h, c, n, m = state
            i, f, z, o = add_recurrent(projected_t, masks.drop(h)).chunk(4, dim=1)
            kept = (F.logsigmoid(f) if is_sigmoid else f) + m
            m = torch.where(n == 0, i, torch.maximum(kept, i))
            i = torch.exp(i - m)
            # Above 0 only where n is 0, and f then multiplies nothing: inf times 0 would be NaN.
            f = torch.exp((kept - m).clamp(max=0))
            c = torch.addcmul(f * c, i, torch.tanh(z))
            n = torch.addcmul(i, f, n)
            h = torch.sigmoid(o) * c / n
            return h, SLSTMState(h, c, n, m)

        return step

    def join_heads(self, params: Params) -> tuple[SLSTM, Params]:
        """The same numbers as a cell of one head, whose R has zeros between units of two heads.

        Zeros do not hold back what is no number: with it, NaN in one head reaches the others.
        """
        heads, size = self.num_heads, self.head_size
        blocks = params["weight_hh"].reshape(4, heads, size, size).unbind(1)
        rest = self.hidden_size - size
        rows = [F.pad(own, (k * size, rest - k * size)) for k, own in enumerate(blocks)]
        joined = torch.stack(rows, 1).reshape(4 * self.hidden_size, self.hidden_size)
        return replace(self, num_heads=1), {**params, "weight_hh": joined}

    def _recurrence(self, weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(projected (B, 4H), h (B, H)) to their sum projected + R h."""
        heads, size = self.num_heads, self.head_size
        if heads == 1:
            u = weight.t()
            return lambda projected_t, h: torch.addmm(projected_t, h, u)
        blocks = weight.reshape(4, heads, size, size).permute(1, 3, 0, 2).flatten(2)

        def add(projected_t: Tensor, h: Tensor) -> Tensor:
            by_head = torch.bmm(h.reshape(-1, heads, size).transpose(0, 1), blocks)
            by_gate = by_head.reshape(heads, -1, 4, size).permute(1, 2, 0, 3)
            return projected_t + by_gate.flatten(1)

        return add
