from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recurra.nn.whole import WholeLinear, can_be_whole, linear, whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_rounded_to_twenty_binary_places(dtype: torch.dtype) -> None:
    x = torch.tensor([0.5, -3.0, 2.0**-21 * 1.1, 2.0**-22], dtype=dtype)
    assert whole(x).tolist() == [0.5, -3.0, 2.0**-20, 0.0]
    assert whole(x).dtype is torch.float64
    assert x.tolist()[3] == 2.0**-22  # what was given is left as it is


@torch.no_grad()
def test_no_order_of_addition_is_seen() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(40, 700, generator=rng) * 3
    weight, bias = torch.randn(90, 700, generator=rng), torch.randn(90, generator=rng)
    y = linear(x, weight, bias)
    error = (y - F.linear(x.double(), weight.double(), bias.double())).abs()
    rounded = x.abs().sum(1)[:, None] + weight.abs().sum(1) + 2
    assert (error <= rounded * 2.0**-21 + y.abs() * 2.0**-23).all()
    order = torch.randperm(700, generator=rng)
    assert torch.equal(WholeLinear(weight[:, order], bias)(x[:, order]), y)
    assert torch.equal(linear(x[7:8], weight, bias)[0], y[7])
    # With float32 sums the order is seen.
    shuffled = F.linear(x[:, order], weight[:, order], bias)
    assert not torch.equal(shuffled, F.linear(x, weight, bias))


def test_where_a_gradient_is_recorded_it_is_torch() -> None:
    x, weight = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    with torch.no_grad():
        assert can_be_whole(x)
        assert not can_be_whole(x.double())
