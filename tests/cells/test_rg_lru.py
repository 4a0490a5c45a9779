"""RG-LRU as in recurrentgemma, its drawn decays, and gates far from 0."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.cells.linear_cases import drawn, parameters, steps
from torch import Tensor

from recurra.cells.rg_lru import RGLRU
from recurra.errors import ConfigError


def _authors(x: Tensor, w: Tensor, b: Tensor, decay: Tensor, h: Tensor) -> Tensor:
    """recurrentgemma's RGLRU without its exception for first steps, head by head, in a loop.

    w is (2, heads, in, out), the recurrence gate's first, as their block-diagonal layers have it.
    """
    heads, size = w.shape[1], w.shape[2]
    outputs = []
    for x_t in x.unbind(1):
        gates = []
        for which in range(2):
            blocks = [
                x_t[:, n * size : (n + 1) * size] @ w[which, n] + b[which, n] for n in range(heads)
            ]
            gates.append(1 / (1 + torch.exp(-torch.cat(blocks, 1))))
        a = torch.exp(-8 * gates[0] * torch.log(1 + torch.exp(decay)))
        h = a * h + torch.sqrt(1 - a**2) * gates[1] * x_t
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_it_is_the_recurrence_of_its_authors(heads) -> None:
    cell = RGLRU(6, 6, num_heads=heads)
    params = parameters(cell)
    params["weight_ih"] = torch.eye(6).double()
    params["bias_ih"] = torch.zeros(6).double()
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, 9, 6, dtype=torch.float64, generator=rng)
    h_0 = torch.randn(2, 6, dtype=torch.float64, generator=rng)
    weight = params["weight_gate"].transpose(-1, -2)
    bias = params["bias_gate"].view(2, heads, -1)
    expected = _authors(x, weight, bias, params["decay"], h_0)
    torch.testing.assert_close(steps(cell, x, params, h_0)[0], expected)


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_in_front_makes_the_input_as_wide_as_the_state(bias) -> None:
    cell, alone = RGLRU(3, 4, num_heads=2, bias=bias), RGLRU(4, 4, num_heads=2, bias=bias)
    params = parameters(cell)
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = F.linear(x, params["weight_ih"], params.get("bias_ih"))
    inner = {**params, "weight_ih": torch.eye(4).double()}
    if bias:
        inner["bias_ih"] = torch.zeros(4).double()
    torch.testing.assert_close(steps(cell, x, params), steps(alone, u, inner))


def test_decays_are_drawn_as_in_the_paper() -> None:
    params = drawn(RGLRU(64, 4000, num_heads=40))
    slowest = torch.exp(-8 * F.softplus(params["decay"]))
    assert 0.9 <= slowest.min() < 0.901
    assert 0.998 < slowest.max() <= 0.9991
    assert slowest.mean().item() == pytest.approx(0.9495, abs=2e-3)
    assert params["weight_ih"].std().item() == pytest.approx(1 / 8, rel=0.02)
    assert params["weight_gate"].std().item() == pytest.approx(1 / 10, rel=0.02)
    assert not params["bias_ih"].any()
    assert not params["bias_gate"].any()


@pytest.mark.parametrize("gate", [-1e4, -100.0, -60.0, -20.0, 1e4])
@pytest.mark.parametrize("decay", [-200.0, -20.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_far_from_0_have_no_nan(gate, decay, dtype) -> None:
    cell = RGLRU(1, 1)
    params = {
        "weight_ih": torch.ones(1, 1),
        "weight_gate": torch.ones(2, 1, 1, 1),
        "decay": torch.tensor([decay]),
        "bias_ih": torch.zeros(1),
        "bias_gate": torch.tensor([gate, 0.0]),
    }
    params = {name: value.to(dtype).requires_grad_() for name, value in params.items()}
    x = torch.ones(1, 3, 1, dtype=dtype)
    output, final = steps(cell, x, params, torch.ones(1, 1, dtype=dtype))
    gradients = torch.autograd.grad(output.sum() + final.sum(), list(params.values()))
    assert all(value.isfinite().all() for value in (output, *gradients))
    if gate <= -100.0:
        assert output[0, -1].item() == pytest.approx(1.0), "a shut gate holds the state"


def test_the_share_of_the_input_keeps_its_digits_where_the_decay_is_nearly_1() -> None:
    cell = RGLRU(1, 1, bias=False)
    params = {
        "weight_ih": torch.ones(1, 1),
        "weight_gate": torch.zeros(2, 1, 1, 1),
        "decay": torch.tensor([-20.0]),
    }
    output, _ = steps(cell, torch.ones(1, 1, 1), params)
    # r = i = 1/2, so log a = −4 log(1 + e^−20), and 1 − a² is far below the spacing of floats at 1.
    share = math.sqrt(-math.expm1(-8 * math.log1p(math.exp(-20))))
    assert share**2 < 2e-8
    assert output.item() == pytest.approx(share / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (4, r"RGLRU: num_heads=4 does not divide hidden_size=6\. .* multiple of num_heads"),
        (0, "RGLRU: num_heads is 0, but must be an integer of at least 1"),
        (2.0, "num_heads is 2.0"),
        (True, "num_heads is True"),
    ],
)
def test_heads_that_do_not_fit_say_so(heads, message) -> None:
    with pytest.raises(ConfigError, match=message):
        RGLRU(3, 6, num_heads=heads)
