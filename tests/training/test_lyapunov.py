"""Lyapunov exponents: linear networks known by hand, and the product of full Jacobians."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recurra.cells.cell import Cell, Params
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.training.lyapunov import lyapunov_exponents


def _params(cell: Cell, scale: float = 0.7) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(2)
    return {
        name: scale * torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }


def _elman(weight: Tensor, activation: str) -> tuple[Elman, Params]:
    size = len(weight)
    cell = Elman(1, size, activation=activation, bias=False)
    return cell, {"weight_ih": torch.ones(size, 1, dtype=torch.float64), "weight_hh": weight}


def test_a_linear_network_has_the_logarithms_of_its_eigenvalues() -> None:
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    weight = basis @ torch.diag(torch.tensor([1.5, -0.4, 0.1, 0.02]).double()) @ basis.T
    cell, params = _elman(weight, "tanh")
    # tanh is linear around 0, where a state of 0 without inputs stays.
    state, x = cell.initial_state(1, params), torch.zeros(32, 1, dtype=torch.float64)
    found = lyapunov_exponents(cell, x, state, params)
    assert found == pytest.approx([math.log(v) for v in (1.5, 0.4, 0.1, 0.02)], abs=1e-3)


def test_relu_that_is_open_everywhere_is_linear_and_shut_is_dead() -> None:
    weight = torch.diag(torch.tensor([0.9, 0.3, 0.1]).double())
    cell, params = _elman(weight, "relu")
    state = cell.make_state(torch.ones(1, 3, dtype=torch.float64))
    x = torch.ones(24, 1, dtype=torch.float64)
    found = lyapunov_exponents(cell, x, state, params, count=2)
    assert found == pytest.approx([math.log(0.9), math.log(0.3)], abs=1e-3)
    assert lyapunov_exponents(cell, -x, state, params, count=2) == [-math.inf, -math.inf]


@pytest.mark.parametrize(
    "cell", [Elman(2, 4), LSTM(2, 3), LSTM(2, 4, proj_size=2), GRU(2, 4), GRU(2, 4, bias=False)]
)
def test_exponents_are_those_of_the_product_of_full_jacobians(cell: Cell) -> None:
    params, n = _params(cell), 13
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    sizes = list(cell.state_sizes().values())

    def step(flat: Tensor, t: int) -> Tensor:
        state = cell.make_state(*(part[None] for part in flat.split(sizes)))
        return torch.cat(cell.step(cell.project(x[t : t + 1], params), state, params)[1], 1)[0]

    flat = 0.3 * torch.randn(sum(sizes), generator=rng, dtype=torch.float64)
    state = cell.make_state(*(part[None] for part in flat.split(sizes)))
    jacobians = []
    for t in range(n):
        jacobians.append(torch.autograd.functional.jacobian(lambda f, t=t: step(f, t), flat))
        flat = step(flat, t)

    # The product of all, and of the quarter that is not counted, without a QR in between.
    # Two directions: smaller ones drown in the rounding of such a product.
    begin = torch.randn(
        sum(sizes), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    sums = []
    for counted in (n, n // 4):
        product = torch.linalg.qr(begin).Q
        for jacobian in jacobians[::-1][:counted]:
            product = jacobian.T @ product
        sums.append(torch.linalg.qr(product).R.diagonal().abs().log())
    truth = (sums[0] - sums[1]) / (n - n // 4)
    found = lyapunov_exponents(cell, x, state, params, count=2)
    assert found == pytest.approx(sorted(truth.tolist(), reverse=True), abs=1e-6)


def test_no_more_exponents_than_numbers_in_the_state_and_none_without_steps() -> None:
    cell = Elman(2, 1)
    params = _params(cell)
    state = cell.initial_state(1, params)
    assert len(lyapunov_exponents(cell, torch.zeros(5, 2).double(), state, params)) == 1
    assert lyapunov_exponents(cell, torch.zeros(0, 2).double(), state, params) == []


def test_nothing_is_drawn_from_the_global_generator() -> None:
    cell = GRU(2, 3)
    params = _params(cell)
    before = torch.get_rng_state()
    first = lyapunov_exponents(
        cell, torch.ones(9, 2).double(), cell.initial_state(1, params), params
    )
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = lyapunov_exponents(
        cell, torch.ones(9, 2).double(), cell.initial_state(1, params), params
    )
    assert first == second
