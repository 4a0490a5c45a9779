"""minGRU by its equations, unit by unit, and by its authors' parallel scan over logarithms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.cells.linear_cases import parameters, steps

from recurra.cells.linear import LinearState
from recurra.cells.min_gru import MinGRU


def _sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_step_is_the_equation_of_the_docstring(positive, bias) -> None:
    cell = MinGRU(2, 3, bias=bias, positive=positive)
    params = parameters(cell)
    x = torch.tensor([[0.7, -1.3]], dtype=torch.float64)
    h = torch.tensor([[0.2, 1.5, 3.0]], dtype=torch.float64)
    output, _ = cell.step(cell.project(x, params), LinearState(h), params)
    weight = params["weight_ih"].tolist()
    shift = params["bias_ih"].tolist() if bias else [0.0] * 6
    for unit in range(3):
        z_n = [
            weight[row][0] * 0.7 + weight[row][1] * -1.3 + shift[row] for row in (unit, 3 + unit)
        ]
        z, n = _sigmoid(z_n[0]), z_n[1]
        if positive:
            n = n + 0.5 if n >= 0 else _sigmoid(n)
        assert output[0, unit].item() == pytest.approx((1 - z) * h[0, unit].item() + z * n, 1e-12)


def test_the_whole_is_the_scan_over_logarithms_of_the_paper() -> None:
    cell = MinGRU(3, 4)
    params = parameters(cell)
    x = torch.randn(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h_0 = torch.tensor([[0.3, 2.0, 0.1, 1.0]]).double().expand(2, -1)
    k, v = F.linear(x, params["weight_ih"], params["bias_ih"]).split(4, -1)
    log_g = torch.where(v >= 0, torch.log(v.relu() + 0.5), -F.softplus(-v))
    log_values = torch.cat([h_0.log().unsqueeze(1), -F.softplus(-k) + log_g], 1)
    total = F.pad((-F.softplus(k)).cumsum(1), (0, 0, 1, 0))
    log_h = total + torch.logcumsumexp(log_values - total, 1)
    torch.testing.assert_close(
        steps(cell, x, params, h_0)[0], log_h.exp()[:, 1:], rtol=1e-8, atol=0
    )


def test_gates_far_from_0_are_0_or_1_and_have_no_nan() -> None:
    cell = MinGRU(1, 2)
    params = {
        "weight_ih": torch.tensor([[1e4], [-1e4], [1.0], [-1e4]]).requires_grad_(),
        "bias_ih": torch.zeros(4).requires_grad_(),
    }
    h_0 = torch.tensor([[5.0, 6.0]])
    output, final = steps(cell, torch.ones(1, 2, 1), params, h_0)
    assert output[0, -1].tolist() == [1.5, 6.0]
    gradients = torch.autograd.grad(output.sum() + final.sum(), list(params.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_weights_are_drawn_as_those_of_a_linear_layer() -> None:
    cell, linear = MinGRU(100, 50), torch.nn.Linear(100, 100)
    params = {name: torch.empty(shape) for name, shape in cell.parameter_shapes().items()}
    cell.draw(params)
    for ours, theirs in zip(params.values(), (linear.weight, linear.bias), strict=True):
        assert ours.abs().max() <= 0.1
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.15)
