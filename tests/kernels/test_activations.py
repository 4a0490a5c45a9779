"""sigmoid, tanh and log sigmoid of the kernels, seen through layers that compute nothing else.

An Elman step with weight 1 from x and 0 from h is tanh(x). An LSTM step whose candidate g is 0
turns c = 1 into the forget gate, sigmoid(x). An sLSTM step whose input gate is closed turns m = 0
into log sigmoid(x); one whose forget gate is 1 turns n = 1 into 1 + exp(x) for x ≤ 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from recurra import nn
from recurra.kernels import core, cpu

if core.module is None:
    pytest.skip("the compiled core is not built here", allow_module_level=True)
from recurra import _core

LEVELS = _core.levels()
# Largest absolute error over the sweep below; measured 2.4e-7 and 1.2e-7 at most.
LARGEST_ERROR = {"tanh": 3e-7, "sigmoid": 1.5e-7}


@pytest.fixture(autouse=True, params=LEVELS)
def level(request, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(cpu, "choice", cpu.Choice(request.param, 1))
    _core.poison_workspaces(True)
    yield request.param
    _core.poison_workspaces(False)


def tanh(x: Tensor, *, through: str = "input") -> Tensor:
    """tanh of each number; infinities and NaN go through the bias, one number at a time."""
    if through == "bias":
        return torch.cat([_tanh(torch.zeros(1), number) for number in x])
    return _tanh(x, torch.zeros((), dtype=x.dtype))


def _tanh(x: Tensor, bias: Tensor) -> Tensor:
    layer = nn.RNN(1, 1, batch_first=True, dtype=x.dtype)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1)
        layer.weight_hh_l0.fill_(0)
        layer.bias_ih_l0.fill_(0)
        layer.bias_hh_l0.fill_(bias)
        return layer(x.view(-1, 1, 1))[0].flatten()


def sigmoid(x: Tensor, *, through: str = "input") -> Tensor:
    """sigmoid of each number; see `tanh`."""
    if through == "bias":
        return torch.cat([_sigmoid(torch.zeros(1), number) for number in x])
    return _sigmoid(x, torch.zeros((), dtype=x.dtype))


def _sigmoid(x: Tensor, bias: Tensor) -> Tensor:
    layer = nn.LSTM(1, 1, batch_first=True, dtype=x.dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight_ih_l0[1] = 1  # i f g o
        layer.bias_hh_l0[1] = bias
        h, c = torch.zeros(1, len(x), 1, dtype=x.dtype), torch.ones(1, len(x), 1, dtype=x.dtype)
        return layer(x.view(-1, 1, 1), (h, c))[1][1].flatten()


FUNCTIONS = pytest.mark.parametrize(
    ("ours", "theirs"), [(tanh, torch.tanh), (sigmoid, torch.sigmoid)], ids=["tanh", "sigmoid"]
)


def sweep() -> Tensor:
    """Finite floats: evenly where the functions bend, every binade, and the ends of the range."""
    rng = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (50_000,), generator=rng).to(torch.int32)
    drawn = bits.view(torch.float32)
    even = torch.linspace(-20, 20, 200_001)
    ends = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.2e-38, 87.0, -88.0, 3.4e38, -3.4e38])
    return torch.cat([drawn[drawn.isfinite()], even, even * 5, ends])


@FUNCTIONS
def test_error_of_float32_is_below_what_is_stated(ours: Callable, theirs: Callable) -> None:
    x = sweep()
    error = (ours(x).double() - theirs(x.double())).abs()
    worst = int(error.argmax())
    assert error[worst] <= LARGEST_ERROR[ours.__name__], f"{error[worst]:.2e} at {x[worst]}"


@FUNCTIONS
def test_float64_is_exact_to_rounding(ours: Callable, theirs: Callable) -> None:
    x = sweep()[::5].double()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=5e-16)


@FUNCTIONS
def test_values_stay_in_their_range_and_are_odd(ours: Callable, theirs: Callable) -> None:
    x, low = sweep(), -1 if ours is tanh else 0
    y = ours(x)
    assert y.min() >= low
    assert y.max() <= 1
    torch.testing.assert_close(ours(-x), 1 + low - y, rtol=0, atol=1.5e-7)


@FUNCTIONS
def test_zeros_and_infinities_give_the_limits(ours: Callable, theirs: Callable) -> None:
    x = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    torch.testing.assert_close(ours(x, through="bias"), theirs(x), rtol=0, atol=3e-7)


@FUNCTIONS
def test_every_nan_stays_nan(ours: Callable, theirs: Callable) -> None:
    # The bits of a NaN are arbitrary: those of poisoned and of uninitialised memory are all ones.
    bits = np.array([0x7FC00000, 0x7FC00001, 0xFFC00000, 0xFFFFFFFF, 0x7FFFFFFF, 0x7F800001])
    x = torch.from_numpy(bits.astype(np.uint32).view(np.float32).copy())
    assert ours(x).isnan().all()
    assert ours(x, through="bias").isnan().all()


def slstm_step(raw: Tensor, *, row: int, bias: float = 0.0, forget_gate: str = "sigmoid") -> list:
    """c, n and m after one step from (h, c, n, m) = (0, 0, 1, 0) that has `raw` in one gate.

    The input gate is exp(bias) otherwise.
    """
    layer = nn.SLSTM(1, 1, batch_first=True, dtype=raw.dtype, forget_gate=forget_gate)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight_ih_l0[row] = 1  # i f z o
        layer.bias_ih_l0[0] = bias
        start = [torch.full((1, len(raw), 1), part, dtype=raw.dtype) for part in (0.0, 0.0, 1.0, 0)]
        return [part.flatten() for part in layer(raw.view(-1, 1, 1), tuple(start))[1][1:]]


CLOSED = -3.4e38


def test_log_sigmoid_is_as_exact_as_stated() -> None:
    x = sweep()
    x = x[x > CLOSED]
    true = torch.nn.functional.logsigmoid(x.double())
    error = (slstm_step(x, row=1, bias=CLOSED)[2].double() - true).abs()
    # Measured 2.5e-7 of the value; from x = 87 on the value stays at -e^-87.
    excess = error - 3e-7 * true.abs() - 2e-38
    worst = int(excess.argmax())
    assert excess[worst] <= 0, f"{error[worst]:.2e} at {x[worst]}"


def test_log_sigmoid_of_float64_is_exact_to_rounding() -> None:
    x = sweep()[::5].double()
    actual = slstm_step(x, row=1, bias=-1e300)[2]
    torch.testing.assert_close(actual, torch.nn.functional.logsigmoid(x), rtol=5e-16, atol=1e-320)


def test_slope_of_log_sigmoid_is_exact_where_it_is_small_too() -> None:
    x = torch.cat([torch.linspace(-100, 86, 20_001), torch.tensor([0.0, -0.0, 1e-45])])
    layer = nn.SLSTM(1, 1, batch_first=True)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight_ih_l0[1] = 1
        layer.bias_ih_l0[0] = CLOSED
    x.requires_grad_()
    start = tuple(torch.full((1, len(x), 1), part) for part in (0.0, 0.0, 1.0, 0.0))
    layer(x.view(-1, 1, 1), start)[1][3].sum().backward()
    torch.testing.assert_close(
        x.grad.double(), torch.sigmoid(-x.detach().double()), rtol=3e-7, atol=1e-37
    )


def test_exp_of_a_gate_is_exact_and_ends_at_one() -> None:
    x = torch.cat([torch.linspace(-120, 0, 40_001), torch.tensor([0.0, -0.0, -1e-45])])
    # With m = 0 kept by the forget gate 1 = exp(0), the input gate is exp(x) and n' = 1 + exp(x).
    for dtype, near in ((torch.float32, 2e-7), (torch.float64, 5e-16)):
        _, n, m = slstm_step(x.to(dtype), row=0, forget_gate="exp")
        assert not m.any()
        torch.testing.assert_close(n, 1 + x.to(dtype).exp(), rtol=near, atol=0)
    assert torch.equal(slstm_step(torch.zeros(3), row=0, forget_gate="exp")[1], torch.full((3,), 2))


def test_limits_and_nan_of_log_sigmoid() -> None:
    limits = torch.tensor([1e38, 100.0, -100.0, -3e38])
    m = slstm_step(limits, row=1, bias=CLOSED)[2]
    torch.testing.assert_close(m, torch.tensor([0.0, 0.0, -100.0, -3e38]), rtol=0, atol=2e-38)
    bits = np.array([0x7FC00000, 0x7FC00001, 0xFFC00000, 0xFFFFFFFF, 0x7FFFFFFF, 0x7F800001])
    x = torch.from_numpy(bits.astype(np.uint32).view(np.float32).copy())
    for row in (0, 1):
        _, n, m = slstm_step(x, row=row)
        assert n.isnan().all()
        assert m.isnan().all()
