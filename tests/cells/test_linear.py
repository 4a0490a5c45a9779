"""The contract of a linear cell: its step follows from its coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from recurra.cells.cell import Masks
from recurra.cells.linear import LinearCell, LinearState, turn
from recurra.errors import ConfigError


@dataclass(frozen=True)
class Leaky(LinearCell):
    """h' = decay ⊙ h + x, read out as its square minus x."""

    name: ClassVar[str] = "Leaky"
    gates: ClassVar[tuple[str, ...]] = ("x",)

    @property
    def output_part(self) -> None:
        return None

    def parameter_shapes(self):
        return {"decay": (self.hidden_size,)}

    def project(self, x, params):
        return 2 * x

    def coefficients(self, projected, params):
        return params["decay"].expand_as(projected), projected

    def readout(self, h, projected, params):
        return h.square() - projected


def test_the_step_follows_from_the_coefficients() -> None:
    cell, params = Leaky(2, 2), {"decay": torch.tensor([0.5, 0.0])}
    x, state = torch.tensor([[1.0, 3.0]]), LinearState(torch.tensor([[4.0, 7.0]]))
    output, after = cell.step(cell.project(x, params), state, params)
    assert after.h.tolist() == [[4.0, 6.0]]
    assert output.tolist() == [[14.0, 30.0]]
    assert type(after) is LinearState


def test_a_mask_on_h_is_refused_because_nothing_would_be_masked() -> None:
    with pytest.raises(ConfigError, match=r"Leaky: a dropout mask on h .* there is none"):
        Leaky(2, 2).bind({"decay": torch.zeros(2)}, Masks(torch.ones(1, 2)))


def test_turning_is_a_product_of_complex_numbers() -> None:
    rng = torch.Generator().manual_seed(2)
    h = torch.randn(3, 4, dtype=torch.complex128, generator=rng)
    angle = torch.randn(4, dtype=torch.float64, generator=rng)
    turned = turn(torch.cat([h.real, h.imag], -1), angle.cos(), angle.sin())
    expected = h * torch.exp(1j * angle)
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], -1))
