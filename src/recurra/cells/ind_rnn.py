"""The independently recurrent network: every unit remembers only itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.errors import ConfigError, unknown


class IndRNNState(NamedTuple):
    """h (B, hidden_size)."""

    h: Tensor


@dataclass(frozen=True)
class IndRNN(Cell):
    """Independently recurrent network, one step.

    h' = φ(W x + b + u ⊙ h),  φ = relu or tanh

    Shapes: x (B, input_size), h (B, hidden_size); u is `weight_hh` (hidden_size,). One gate, h.

    With relu a signal that a unit holds is multiplied by u at every step, and so is its gradient.
    u is therefore drawn from U(0, 2^(1/T)) for memories of up to T = memory_length steps: over them
    neither grows beyond 2. None is the limit of a long memory, U(0, 1). The paper also clips u to
    ±2^(1/T) after every step of training, which is the training loop's business:
    `layer.weight_hh_l0.clamp_(-limit, limit)` inside torch.no_grad().
    W is uniform on ±1/√input_size and b is 0, on which the paper leaves the choice.
    Raises: ConfigError for an activation other than "relu" and "tanh", and for a memory_length
    that is not a positive integer.

    >>> IndRNN(3, 5).parameter_shapes()
    {'weight_ih': (5, 3), 'weight_hh': (5,), 'bias_ih': (5,)}

    Source: Li, Li, Cook, Zhu and Gao 2018, "Independently recurrent neural network (IndRNN):
    building a longer and deeper RNN".
    """

    activation: Literal["relu", "tanh"] = "relu"
    bias: bool = True
    memory_length: int | None = None

    name: ClassVar[str] = "IndRNN"
    structure: ClassVar[Structure] = "diagonal"
    gates: ClassVar[tuple[str, ...]] = ("h",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ("relu", "tanh"):
            raise ConfigError(unknown("activation", self.activation, ["relu", "tanh"]))
        steps = self.memory_length
        if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool)):
            raise ConfigError(
                f"IndRNN: memory_length is {steps!r}, but must be None or an integer."
            )
        if steps is not None and steps < 1:
            raise ConfigError(
                f"IndRNN: memory_length is {steps}, but must be at least 1 time step, or None for "
                "a memory without end."
            )

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (size, self.input_size),
            "weight_hh": (size,),
        }
        if self.bias:
            shapes["bias_ih"] = (size,)
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {"h": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return IndRNNState(*parts)

    def draw(self, params: Params) -> None:
        bound = 1 / math.sqrt(self.input_size)
        params["weight_ih"].uniform_(-bound, bound)
        largest = 1.0 if self.memory_length is None else 2.0 ** (1 / self.memory_length)
        params["weight_hh"].uniform_(0, largest)
        if self.bias:
            params["bias_ih"].zero_()

    def project(self, x: Tensor, params: Params) -> Tensor:
        return F.linear(x, params["weight_ih"], params.get("bias_ih"))

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        u = params["weight_hh"]
        activation = torch.relu if self.activation == "relu" else torch.tanh

        def step(projected_t: Tensor, state: IndRNNState) -> tuple[Tensor, State]:
            h = activation(torch.addcmul(projected_t, masks.drop(state[0]), u))
            return h, IndRNNState(h)

        return step
