"""Linear recurrent unit: complex numbers that turn and decay, each at its own speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import Params
from recurra.cells.linear import LinearCell
from recurra.errors import ConfigError

# log(−log |λ|) from here on is a decay of 0, also in float64; further up its exp would overflow.
FASTEST = 10.0


@dataclass(frozen=True)
class LRU(LinearCell):
    """Linear recurrent unit, one step. h is complex, x and y are real.

    λ = exp(−exp(ν) + i exp(θ))
    h' = λ ⊙ h + exp(γ) ⊙ (B x)
    y = Re(C h') + D x

    The layer is linear in x; what makes a network of it stands after it.

    Shapes: x (B, input_size), y (B, hidden_size), state (B, 2 · hidden_size), real parts first.
    weight_ih (3 · hidden_size, input_size) is Re B, Im B and D, one below the other; weight_ho
    (hidden_size, 2 · hidden_size) is Re C beside Im C; nu, theta and gamma (hidden_size,) are ν, θ
    and γ, the last one the logarithm of the normaliser.

    λ is drawn uniformly on the ring r_min ≤ |λ| ≤ r_max with angles from 0 to max_phase, γ such
    that exp(γ) = √(1 − |λ|²), and the others normal: Re B and Im B with variance
    1 / (2 · input_size), Re C and Im C with 1 / hidden_size, D with 1 / input_size.
    Raises: ConfigError unless 0 ≤ r_min ≤ r_max ≤ 1 and max_phase > 0.

    >>> LRU(3, 5).state_sizes(), LRU(3, 5).output_size
    ({'h': 10}, 5)

    Source: Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences". There
    D is a vector, because inputs and outputs are equally many; here it is a matrix, so that they
    need not be.
    """

    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    name: ClassVar[str] = "LRU"
    gates: ClassVar[tuple[str, ...]] = ("real", "imaginary", "d")
    is_complex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.r_min <= self.r_max <= 1:
            raise ConfigError(
                f"{self.name}: r_min={self.r_min} and r_max={self.r_max}, but the ring needs "
                "0 ≤ r_min ≤ r_max ≤ 1: a larger λ would explode."
            )
        if not 0 < self.max_phase < math.inf:
            raise ConfigError(
                f"{self.name}: max_phase is {self.max_phase}, but must be an angle above 0, in "
                "radians: 2π for a whole ring."
            )

    @property
    def output_part(self) -> None:
        """None: the output is read from h, and is no part of it."""
        return None

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.hidden_size
        return {
            "weight_ih": (3 * size, self.input_size),
            "weight_ho": (size, 2 * size),
            "nu": (size,),
            "theta": (size,),
            "gamma": (size,),
        }

    def draw(self, params: Params) -> None:
        size, (real_b, imaginary_b, d) = self.hidden_size, params["weight_ih"].chunk(3)
        for part in (real_b, imaginary_b):
            part.normal_(0, 1 / math.sqrt(2 * self.input_size))
        d.normal_(0, 1 / math.sqrt(self.input_size))
        params["weight_ho"].normal_(0, 1 / math.sqrt(size))
        # Uniform on the area; a λ of exactly 0 or 1 would have infinite parameters.
        drawn = torch.rand(2, size, dtype=torch.float64, device=d.device).clamp(1e-9, 1 - 1e-9)
        square = self.r_min**2 + drawn[0] * (self.r_max**2 - self.r_min**2)
        log_square = torch.log(square.clamp(1e-9, 1 - 1e-9))
        params["nu"].copy_(torch.log(-log_square / 2))
        params["theta"].copy_(torch.log(self.max_phase * drawn[1]))
        params["gamma"].copy_(torch.log(-torch.expm1(log_square)) / 2)

    def project(self, x: Tensor, params: Params) -> Tensor:
        scale = torch.exp(params["gamma"])
        scales = torch.cat([scale, scale, torch.ones_like(scale)])
        return F.linear(x, params["weight_ih"] * scales.unsqueeze(1))

    def coefficients(self, projected: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        b = projected[..., : 2 * self.hidden_size]
        a = torch.exp(-torch.exp(params["nu"].clamp(max=FASTEST)))
        return torch.cat([a, a]).expand_as(b), b

    def angle(self, params: Params) -> Tensor:
        return torch.exp(params["theta"].double())

    def readout(self, h: Tensor, projected: Tensor, params: Params) -> Tensor:
        real_c, imaginary_c = params["weight_ho"].chunk(2, 1)
        d_x = projected[..., 2 * self.hidden_size :]
        return F.linear(h, torch.cat([real_c, -imaginary_c], 1)) + d_x
