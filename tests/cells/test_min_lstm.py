"""minLSTM by its equations, unit by unit, and by its authors' parallel scan over logarithms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.cells.linear_cases import parameters, steps

from recurra.cells.linear import LinearState
from recurra.cells.min_lstm import MinLSTM


def _sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_step_is_the_equation_of_the_docstring(positive, bias) -> None:
    cell = MinLSTM(2, 3, bias=bias, positive=positive)
    params = parameters(cell)
    x = torch.tensor([[0.7, -1.3]], dtype=torch.float64)
    h = torch.tensor([[0.2, 1.5, 3.0]], dtype=torch.float64)
    output, _ = cell.step(cell.project(x, params), LinearState(h), params)
    weight = params["weight_ih"].tolist()
    shift = params["bias_ih"].tolist() if bias else [0.0] * 9
    for unit in range(3):
        f, i, n = (
            weight[row][0] * 0.7 + weight[row][1] * -1.3 + shift[row]
            for row in (unit, 3 + unit, 6 + unit)
        )
        f, i = _sigmoid(f), _sigmoid(i)
        if positive:
            n = n + 0.5 if n >= 0 else _sigmoid(n)
        expected = f / (f + i) * h[0, unit].item() + i / (f + i) * n
        assert output[0, unit].item() == pytest.approx(expected, 1e-12)


def test_the_whole_is_the_scan_over_logarithms_of_the_paper() -> None:
    cell = MinLSTM(3, 4)
    params = parameters(cell)
    x = torch.randn(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h_0 = torch.tensor([[0.3, 2.0, 0.1, 1.0]]).double().expand(2, -1)
    f, i, v = F.linear(x, params["weight_ih"], params["bias_ih"]).split(4, -1)
    diff = F.softplus(-f) - F.softplus(-i)
    log_f, log_i = -F.softplus(diff), -F.softplus(-diff)
    log_g = torch.where(v >= 0, torch.log(v.relu() + 0.5), -F.softplus(-v))
    log_values = torch.cat([h_0.log().unsqueeze(1), log_i + log_g], 1)
    total = F.pad(log_f.cumsum(1), (0, 0, 1, 0))
    log_h = total + torch.logcumsumexp(log_values - total, 1)
    torch.testing.assert_close(
        steps(cell, x, params, h_0)[0], log_h.exp()[:, 1:], rtol=1e-8, atol=0
    )


def test_two_shut_gates_still_share_one_whole() -> None:
    cell = MinLSTM(1, 3, bias=False, positive=False)
    # f and i are both below the smallest float32, then one of them above the other by e.
    weight = torch.tensor([[-200.0], [-201.0], [-1e5]] + [[-200.0], [-200.0], [1e5]] + [[3.0]] * 3)
    params = {"weight_ih": weight.requires_grad_()}
    output, _ = steps(cell, torch.ones(1, 1, 1), params, torch.ones(1, 3))
    share = 1 / (1 + math.exp(-1))
    assert output[0, 0].tolist() == pytest.approx([2.0, 1 - share + 3 * share, 3.0], 1e-6)
    (gradient,) = torch.autograd.grad(output.sum(), weight)
    assert gradient.isfinite().all()
    assert gradient[3].item() == pytest.approx(0.5, 1e-6), "(n − h) σ'(0)"
