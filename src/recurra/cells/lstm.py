"""Long short-term memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.cells.norm import draw_with_norms, normalise
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

    peephole    i, f and o see the cell: p_i ⊙ c and p_f ⊙ c are added inside σ, and p_o ⊙ c' in o
    coupled     no input gate: i = 1 − f, and the weights are stacked in the order f g o
    layer_norm  W x, U h and what goes into tanh(c') are normalised over their features, with gains
                α: (i f g o) from α_x ⊙ N(W x) + b + α_h ⊙ N(U h) + c;  tanh(α_c ⊙ N(c') + β_c)

    Shapes: x (B, input_size), h (B, proj_size or hidden_size), c (B, hidden_size);
    R = `weight_hr` (proj_size, hidden_size). Weights are stacked in the order i f g o.
    proj_size 0 means no projection. p = `weight_peephole` (3 * hidden_size), in the order i f o, or
    f o when coupled; α_x and α_h are `norm_ih` and `norm_hh` (4 * hidden_size), α_c and β_c are
    `norm_c` and `norm_c_bias` (hidden_size). N(a) = (a − mean) / √(variance + 1e-5).
    Raises: ConfigError when proj_size is negative or not smaller than hidden_size.

    >>> LSTM(3, 5, proj_size=2).parameter_shapes()["weight_hh"]
    (20, 2)

    Source: Hochreiter and Schmidhuber 1997, "Long short-term memory"; the forget gate is from Gers,
    Schmidhuber and Cummins 2000, "Learning to forget"; the projection from Sak, Senior and Beaufays
    2014, "Long short-term memory recurrent neural network architectures for large scale acoustic
    modeling", eq. 7–13, without their non-recurrent projection; peepholes from Gers, Schraudolph
    and Schmidhuber 2002, "Learning precise timing with LSTM recurrent networks"; the coupled gate
    as in Greff et al. 2015, "LSTM: a search space odyssey"; normalisation from Ba, Kiros and Hinton
    2016, "Layer normalization", whose two offsets are b and c here.
    """

    bias: bool = True
    proj_size: int = 0
    peephole: bool = False
    coupled: bool = False
    layer_norm: bool = False

    name: ClassVar[str] = "LSTM"
    structure: ClassVar[Structure] = "dense"

    @property
    def gates(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("f", "g", "o") if self.coupled else ("i", "f", "g", "o")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.proj_size < self.hidden_size:
            raise ConfigError(
                f"LSTM: proj_size is {self.proj_size}, but must be 0 (no projection) or smaller "
                f"than hidden_size, which is {self.hidden_size}."
            )
        if self.coupled and self.layer_norm:
            raise ConfigError(
                "LSTM: coupled and layer_norm are not defined together: the input gate has no sum "
                "of its own that could be normalised. Choose one."
            )

    @property
    def output_size(self) -> int:
        return self.proj_size or self.hidden_size

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.hidden_size
        stacked = len(self.gates) * size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (stacked, self.input_size),
            "weight_hh": (stacked, self.output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (stacked,), "bias_hh": (stacked,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, size)
        if self.peephole:
            shapes["weight_peephole"] = ((2 if self.coupled else 3) * size,)
        if self.layer_norm:
            shapes |= {"norm_ih": (stacked,), "norm_hh": (stacked,), "norm_c": (size,)}
            if self.bias:
                shapes["norm_c_bias"] = (size,)
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {"h": self.output_size, "c": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return LSTMState(*parts)

    def draw(self, params: Params) -> None:
        draw_with_norms(super().draw, params)

    def project(self, x: Tensor, params: Params) -> Tensor:
        bias = params["bias_ih"] + params["bias_hh"] if self.bias else None
        if not self.layer_norm:
            return F.linear(x, params["weight_ih"], bias)
        return normalise(F.linear(x, params["weight_ih"]), params["norm_ih"], bias)

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        advance = self._bind_gates(params, masks)
        projection = params["weight_hr"].t() if self.proj_size else None
        norm_c, norm_c_bias = params.get("norm_c"), params.get("norm_c_bias")

        def step(projected_t: Tensor, state: State) -> tuple[Tensor, State]:
            _, _, o, c = advance(projected_t, state)
            shown = c if norm_c is None else normalise(c, norm_c, norm_c_bias)
            h = o * torch.tanh(shown)
            if projection is not None:
                h = h @ projection
            return h, LSTMState(h, c)

        return step

    def _bind_gates(
        self, params: Params, masks: Masks
    ) -> Callable[[Tensor, State], tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(projected_t, state) to the open gates i, f, o and the new c."""
        u, norm_hh = params["weight_hh"].t(), params.get("norm_hh")
        peepholes: tuple[Tensor, ...] = ()
        if self.peephole:
            peepholes = params["weight_peephole"].chunk(len(self.gates) - 1)

        def advance(projected_t: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            h, c = masks.drop(state[0]), state[1]
            if norm_hh is None:
                sums = torch.addmm(projected_t, h, u)
            else:
                sums = projected_t + normalise(h @ u, norm_hh, None)
            *i_f, g, o = sums.chunk(len(self.gates), dim=1)
            if peepholes:
                pairs = zip(i_f, peepholes[:-1], strict=True)
                i_f = [torch.addcmul(gate, peephole, c) for gate, peephole in pairs]
            f = torch.sigmoid(i_f[-1])
            i = 1 - f if self.coupled else torch.sigmoid(i_f[0])
            c = torch.addcmul(f * c, i, torch.tanh(g))
            if peepholes:
                o = torch.addcmul(o, peepholes[-1], c)
            return i, f, torch.sigmoid(o), c

        return advance

    def gate_values(
        self, projected_t: Tensor, state: State, params: Params, masks: Masks = NO_MASKS
    ) -> dict[str, Tensor]:
        i, f, o, _ = self._bind_gates(params, masks)(projected_t, state)
        return {"i": i, "f": f, "o": o}

    def uncouple(self, params: Params) -> tuple[LSTM, Params]:
        """The LSTM with four gates that computes the same, because 1 − σ(a) = σ(−a)."""
        plain = replace(self, coupled=False)
        found = dict(params)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            if name in params:
                found[name] = torch.cat((-params[name][: self.hidden_size], params[name]))
        if self.peephole:
            peephole = params["weight_peephole"]
            found["weight_peephole"] = torch.cat((-peephole[: self.hidden_size], peephole))
        return plain, found
