"""The contract of a recurrence.

A cell is a value: sizes and options, no tensors. Its parameters come in as a mapping under torch's
names, without the layer's suffix (`weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`, `weight_hr`).

    project(x, params)               everything that does not need the state, all time steps at once
    step(projected_t, state, params) one time step: (output, new state)
    initial_state(batch, params)     where a sequence starts, and what a reset goes back to

A subclass writes `step` as `bind(params, masks)`, which returns the step as a function of what
changes over time alone. Slices and transposes of weights are then made once a sequence instead of
once a step, and the reference loop pays for the arithmetic only. `step` follows from `bind`, so
there is one definition. Lengths, resets and directions are no business of a cell: `kernels`
applies them, once, for all cells.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from recurra.errors import ConfigError

State = tuple[Tensor, ...]
Params = Mapping[str, Tensor]
Step = Callable[[Tensor, Any], tuple[Tensor, State]]
Structure = Literal["dense", "block", "diagonal", "linear", "matrix"]


class Masks(NamedTuple):
    """Dropout masks, already scaled by 1 / (1 − p).

    h (B, output_size) is multiplied onto h before the recurrent product (Gal and Ghahramani 2016,
    "A theoretically grounded application of dropout in recurrent neural networks", eq. 7);
    None leaves h alone. What the state carries over to the next step is not masked.

    A cell sees one step's mask. To `kernels` h (B, output_size) is the same mask at every step, and
    h (B, T, output_size), or (T, B, output_size) as x is laid out, a fresh one at each.
    """

    h: Tensor | None = None

    def drop(self, h: Tensor) -> Tensor:
        """h as the recurrent product sees it."""
        return h if self.h is None else h * self.h


NO_MASKS = Masks()


@dataclass(frozen=True)
class Cell(ABC):
    """One recurrence: its equation, parameters and state. Frozen and hashable.

    name is how messages call it, structure says how state units mix (it decides which kernels can
    exist), gates lists the blocks of the stacked weights in order. has_recurrent_product says
    whether h is multiplied by weights at the next step, which is where dropout masks act, and
    can_learn_start whether any initial state is a valid one.
    Raises: ConfigError when a size is not a positive integer.
    """

    input_size: int
    hidden_size: int

    name: ClassVar[str]
    structure: ClassVar[Structure]
    gates: ClassVar[tuple[str, ...]]
    has_recurrent_product: ClassVar[bool] = True
    can_learn_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for label in ("input_size", "hidden_size"):
            value = getattr(self, label)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(
                    f"{self.name}: {label} is {value!r}, but must be an integer of at least 1."
                )

    @property
    def output_size(self) -> int:
        """Features of the output of one step."""
        return self.hidden_size

    @property
    def output_part(self) -> str | None:
        """The part of the state that the output is, h where there is one; None: no part of it."""
        return "h" if "h" in self.state_sizes() else None

    @property
    def recurrent_weights(self) -> tuple[str, ...]:
        """The matrices that multiply the state, which DropConnect acts on."""
        return ("weight_hh",) if self.structure in ("dense", "block") else ()

    @abstractmethod
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter, in torch's order of registration."""

    @abstractmethod
    def state_sizes(self) -> dict[str, int]:
        """Features of each part of the state, in the order of the state's named tuple."""

    @abstractmethod
    def make_state(self, *parts: Tensor) -> State:
        """The state's named tuple, from its parts."""

    @abstractmethod
    def project(self, x: Tensor, params: Params) -> Tensor:
        """x (..., input_size) to (..., len(gates) * hidden_size), for all time steps at once."""

    @abstractmethod
    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        """The step as a function of (projected_t, state) alone; see the opening note."""

    def step(
        self, projected_t: Tensor, state: State, params: Params, masks: Masks | None = None
    ) -> tuple[Tensor, State]:
        """One time step: projected_t (B, len(gates) * hidden_size) to (output, new state)."""
        return self.bind(params, NO_MASKS if masks is None else masks)(projected_t, state)

    def gate_values(
        self, projected_t: Tensor, state: State, params: Params, masks: Masks = NO_MASKS
    ) -> dict[str, Tensor]:
        """The gates of one step that open and close, by name: (B, hidden_size), from 0 to 1.

        What `step` multiplies by, computed by the same code; empty for a cell without such gates.
        """
        return {}

    def draw(self, params: Params) -> None:
        """Draw the parameters in place from torch's generator, as the cell's paper or torch does.

        Here: uniform on ±1/√hidden_size, in the order of `parameter_shapes`.
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for value in params.values():
            value.uniform_(-bound, bound)

    def initial_state(self, batch: int, params: Params) -> State:
        """Each part of the state (batch, size), with the parameters' dtype and device.

        Zeros, or where params has a learned start, `h_0` (size,) for a part h, that in every row.
        """
        like = next(iter(params.values()))
        parts = []
        for name, size in self.state_sizes().items():
            learned = params.get(f"{name}_0")
            if learned is None:
                parts.append(torch.zeros(batch, size, dtype=like.dtype, device=like.device))
            else:
                parts.append(learned.expand(batch, size))
        return self.make_state(*parts)
