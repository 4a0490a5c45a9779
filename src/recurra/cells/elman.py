"""The simple recurrent network of Elman."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.cells.norm import draw_with_norms, normalise
from recurra.errors import ConfigError, unknown


class ElmanState(NamedTuple):
    """h (B, hidden_size)."""

    h: Tensor


@dataclass(frozen=True)
class Elman(Cell):
    """Simple recurrent network, one step.

    h' = φ(W x + b + U h + c),  φ = tanh or relu
    h' = φ(α ⊙ N(W x + U h) + b + c)  with layer_norm, N(a) = (a − mean) / √(variance + 1e-5)

    Shapes: x (B, input_size), h (B, hidden_size). One gate, called h.
    b is `bias_ih`, c is `bias_hh`: two because torch has two; only their sum matters. α is `norm_h`
    (hidden_size).
    Raises: ConfigError for an activation other than "tanh" and "relu".

    >>> cell = Elman(3, 5)
    >>> cell.parameter_shapes()["weight_hh"]
    (5, 5)

    Source: Elman 1990, "Finding structure in time"; h is the context layer there, the output of
    this cell is h itself. Normalisation: Ba, Kiros and Hinton 2016, "Layer normalization".
    """

    activation: Literal["tanh", "relu"] = "tanh"
    bias: bool = True
    layer_norm: bool = False

    name: ClassVar[str] = "Elman"
    structure: ClassVar[Structure] = "dense"
    gates: ClassVar[tuple[str, ...]] = ("h",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ("tanh", "relu"):
            raise ConfigError(unknown("activation", self.activation, ["tanh", "relu"]))

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (size, self.input_size),
            "weight_hh": (size, size),
        }
        if self.bias:
            shapes |= {"bias_ih": (size,), "bias_hh": (size,)}
        if self.layer_norm:
            shapes["norm_h"] = (size,)
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {"h": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return ElmanState(*parts)

    def project(self, x: Tensor, params: Params) -> Tensor:
        return F.linear(x, params["weight_ih"], None if self.layer_norm else self._bias(params))

    def _bias(self, params: Params) -> Tensor | None:
        return params["bias_ih"] + params["bias_hh"] if self.bias else None

    def draw(self, params: Params) -> None:
        draw_with_norms(super().draw, params)

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        u = params["weight_hh"].t()
        activation = torch.tanh if self.activation == "tanh" else torch.relu

        gain, bias = params.get("norm_h"), self._bias(params)

        def step(projected_t: Tensor, state: ElmanState) -> tuple[Tensor, State]:
            a = torch.addmm(projected_t, masks.drop(state[0]), u)
            h = activation(a if gain is None else normalise(a, gain, bias))
            return h, ElmanState(h)

        return step
