"""LRU in complex arithmetic, its drawn ring, and decays at the ends of their range."""

from __future__ import annotations

import math

import pytest
import torch
from tests.cells.linear_cases import drawn, parameters, steps

from recurra.cells.lru import LRU
from recurra.errors import ConfigError


def test_it_is_the_recurrence_of_the_paper_in_complex_numbers() -> None:
    cell = LRU(3, 4)
    params = parameters(cell)
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, 9, 3, dtype=torch.float64, generator=rng)
    h_0 = torch.randn(2, 4, dtype=torch.complex128, generator=rng)
    b = torch.complex(params["weight_ih"][:4], params["weight_ih"][4:8])
    c = torch.complex(params["weight_ho"][:, :4], params["weight_ho"][:, 4:])
    d = params["weight_ih"][8:]
    rate = torch.exp(torch.complex(-params["nu"].exp(), params["theta"].exp()))
    h, outputs = h_0, []
    for x_t in x.unbind(1):
        h = rate * h + params["gamma"].exp() * (x_t.to(torch.complex128) @ b.T)
        outputs.append((h @ c.T).real + x_t @ d.T)
    output, final = steps(cell, x, params, torch.cat([h_0.real, h_0.imag], 1))
    torch.testing.assert_close(output, torch.stack(outputs, 1))
    torch.testing.assert_close(final, torch.cat([h.real, h.imag], 1))


@pytest.mark.parametrize(("r_min", "r_max", "max_phase"), [(0.0, 1.0, 6.28), (0.8, 0.99, 0.3)])
def test_eigenvalues_are_drawn_uniformly_on_the_ring(r_min, r_max, max_phase) -> None:
    cell = LRU(50, 2000, r_min=r_min, r_max=r_max, max_phase=max_phase)
    params = {name: value.double() for name, value in drawn(cell).items()}
    size, angle = torch.exp(-params["nu"].exp()), params["theta"].exp()
    assert (size >= r_min - 1e-6).all()
    assert (size <= r_max + 1e-6).all()
    # Uniform on the area: |λ|² has the mean of its two ends.
    half = (r_min**2 + r_max**2) / 2
    spread = (r_max**2 - r_min**2) / math.sqrt(12 * 2000)
    assert size.square().mean().item() == pytest.approx(half, abs=4 * spread)
    assert 0 < angle.min() < 0.01 * max_phase
    assert angle.mean().item() == pytest.approx(max_phase / 2, rel=0.06)
    assert angle.max() <= max_phase * (1 + 1e-6)
    normaliser = torch.sqrt(1 - size**2)
    torch.testing.assert_close(params["gamma"].exp(), normaliser, rtol=1e-3, atol=1e-5)
    for part, variance in zip(
        params["weight_ih"].chunk(3), (1 / 100, 1 / 100, 1 / 50), strict=True
    ):
        assert part.var().item() == pytest.approx(variance, rel=0.03)
    assert params["weight_ho"].var().item() == pytest.approx(1 / 2000, rel=0.03)


@pytest.mark.parametrize("ring", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_the_ends_of_the_ring_draw_finite_numbers(ring) -> None:
    params = drawn(LRU(2, 3, r_min=ring[0], r_max=ring[1]))
    assert all(value.isfinite().all() for value in params.values())


def test_the_state_keeps_its_size_where_the_normaliser_is_that_of_the_paper() -> None:
    params = {name: value.double() for name, value in drawn(LRU(8, 64, r_min=0.5)).items()}
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(4, 4000, 8, dtype=torch.float64, generator=rng)
    _, final = steps(LRU(8, 64), x, params)
    # White noise of variance 1 gives |h|² an expectation of 1 in every unit.
    assert final.square().sum(1).mean().item() / 64 == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("nu", [-1e3, -90.0, 5.0, 6.6, 9.0, 88.0, 1e3])
def test_decays_at_the_ends_of_their_range_have_no_nan(nu) -> None:
    params = {
        name: (value * 0 + nu if name == "nu" else value).clone().requires_grad_()
        for name, value in drawn(LRU(2, 3)).items()
    }
    output, _ = steps(LRU(2, 3), torch.ones(1, 4, 2), params)
    gradients = torch.autograd.grad(output.sum(), list(params.values()), allow_unused=True)
    assert all(value.isfinite().all() for value in (output, *gradients))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r_min": 0.9, "r_max": 0.8}, r"LRU: r_min=0\.9 and r_max=0\.8, .* 0 ≤ r_min ≤ r_max ≤ 1"),
        ({"r_max": 1.1}, r"r_max=1\.1.*explode"),
        ({"r_min": -0.1}, r"r_min=-0\.1"),
        ({"r_max": math.nan}, "r_max=nan"),
        ({"max_phase": 0.0}, r"max_phase is 0\.0, but must be an angle above 0, in radians"),
        ({"max_phase": math.inf}, "max_phase is inf"),
    ],
)
def test_rings_that_are_none_say_so(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        LRU(3, 4, **options)
