"""Gated recurrent unit, in both forms that are in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.cells.norm import draw_with_norms, normalise
from recurra.errors import ConfigError


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

    layer_norm  W x and U h are normalised over their features, those of (r z) together and those of
                n: r, z from α ⊙ N(W x) + b + γ ⊙ N(U h) + c, n alike; needs reset_after=True

    Shapes: x (B, input_size), h (B, hidden_size). Weights are stacked in the order r z n.
    α = `norm_ih`, γ = `norm_hh` (3 * hidden_size); N(a) = (a − mean) / √(variance + 1e-5).
    Raises: ConfigError for layer_norm with reset_after=False.

    >>> GRU(3, 5).parameter_shapes()["weight_ih"]
    (15, 3)

    Source: Cho et al. 2014, "Learning phrase representations using RNN encoder–decoder for
    statistical machine translation", eq. 5–8, for reset_after=False; version 1 of arXiv:1406.1078
    has the reset after the product. The papers' biases are one vector; b and c are torch's two.
    Normalisation: Ba, Kiros and Hinton 2016, "Layer normalization".
    """

    bias: bool = True
    reset_after: bool = True
    layer_norm: bool = False

    name: ClassVar[str] = "GRU"
    structure: ClassVar[Structure] = "dense"
    gates: ClassVar[tuple[str, ...]] = ("r", "z", "n")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer_norm and not self.reset_after:
            raise ConfigError(
                "GRU: layer_norm=True needs reset_after=True, because the reset gate acts on the "
                "normalised U h. Choose one."
            )

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        stacked = 3 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (stacked, self.input_size),
            "weight_hh": (stacked, self.hidden_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (stacked,), "bias_hh": (stacked,)}
        if self.layer_norm:
            shapes |= {"norm_ih": (stacked,), "norm_hh": (stacked,)}
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {"h": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return GRUState(*parts)

    def draw(self, params: Params) -> None:
        draw_with_norms(super().draw, params)

    def project(self, x: Tensor, params: Params) -> Tensor:
        if self.layer_norm:
            return self._normalised(
                F.linear(x, params["weight_ih"]), params["norm_ih"], params.get("bias_ih")
            )
        if not self.bias:
            return F.linear(x, params["weight_ih"])
        recurrent = params["bias_hh"]
        if self.reset_after:
            # c_n is multiplied by r, so it cannot be added before the state is known.
            recurrent = F.pad(recurrent[: 2 * self.hidden_size], (0, self.hidden_size))
        return F.linear(x, params["weight_ih"], params["bias_ih"] + recurrent)

    def _normalised(self, a: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
        sizes = [2 * self.hidden_size, self.hidden_size]
        biases = (None, None) if bias is None else bias.split_with_sizes(sizes)
        parts = zip(
            a.split_with_sizes(sizes, -1), gain.split_with_sizes(sizes), biases, strict=True
        )
        return torch.cat([normalise(*part) for part in parts], -1)

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        if self.layer_norm:
            return self._bind_normalised(params, masks)
        size = self.hidden_size
        u_rz, u_n = (block.t() for block in params["weight_hh"].split_with_sizes([2 * size, size]))
        c_n = params["bias_hh"][2 * size :] if self.bias and self.reset_after else None

        def step(projected_t: Tensor, state: GRUState) -> tuple[Tensor, State]:
            p_rz, p_n = projected_t.split_with_sizes([2 * size, size], dim=1)
            h = state[0]
            dropped = masks.drop(h)
            r, z = _gates(p_rz, dropped, u_rz)
            if not self.reset_after:
                n = torch.tanh(torch.addmm(p_n, r * dropped, u_n))
            elif c_n is None:
                n = torch.tanh(torch.addcmul(p_n, r, dropped @ u_n))
            else:
                n = torch.tanh(torch.addcmul(p_n, r, torch.addmm(c_n, dropped, u_n)))
            h = torch.lerp(n, h, z)
            return h, GRUState(h)

        return step

    def _bind_normalised(self, params: Params, masks: Masks) -> Step:
        size = self.hidden_size
        u, gain, bias = params["weight_hh"].t(), params["norm_hh"], params.get("bias_hh")

        def step(projected_t: Tensor, state: GRUState) -> tuple[Tensor, State]:
            h = state[0]
            from_h = self._normalised(masks.drop(h) @ u, gain, bias)
            p_rz, p_n = projected_t.split_with_sizes([2 * size, size], dim=1)
            h_rz, h_n = from_h.split_with_sizes([2 * size, size], dim=1)
            r, z = torch.sigmoid(p_rz + h_rz).chunk(2, dim=1)
            h = torch.lerp(torch.tanh(torch.addcmul(p_n, r, h_n)), h, z)
            return h, GRUState(h)

        return step

    def gate_values(
        self, projected_t: Tensor, state: State, params: Params, masks: Masks = NO_MASKS
    ) -> dict[str, Tensor]:
        both = 2 * self.hidden_size
        h, p_rz = masks.drop(state[0]), projected_t[:, :both]
        if self.layer_norm:
            from_h = h @ params["weight_hh"].t()
            normalised = self._normalised(from_h, params["norm_hh"], params.get("bias_hh"))
            r, z = torch.sigmoid(p_rz + normalised[:, :both]).chunk(2, dim=1)
        else:
            r, z = _gates(p_rz, h, params["weight_hh"][:both].t())
        return {"r": r, "z": z}


def _gates(p_rz: Tensor, h: Tensor, u_rz: Tensor) -> tuple[Tensor, Tensor]:
    """r and z of one step."""
    r, z = torch.sigmoid(torch.addmm(p_rz, h, u_rz)).chunk(2, dim=1)
    return r, z
