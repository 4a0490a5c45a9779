"""IndRNN: the equation unit by unit, what a unit holds by itself, and how u is drawn."""

from __future__ import annotations

import math

import pytest
import torch

from recurra.cells.ind_rnn import IndRNN, IndRNNState
from recurra.errors import ConfigError


def _params(cell: IndRNN, seed: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_step_is_the_equation_of_each_unit(activation, bias) -> None:
    cell = IndRNN(2, 4, activation, bias)
    params = _params(cell)
    x, h = [0.3, -1.2], [0.5, -0.4, 1.5, 2.0]
    w, u = params["weight_ih"].tolist(), params["weight_hh"].tolist()
    b = params["bias_ih"].tolist() if bias else [0.0] * 4
    function = math.tanh if activation == "tanh" else lambda value: max(value, 0.0)
    expected = [
        function(sum(w[j][i] * x[i] for i in range(2)) + b[j] + u[j] * h[j]) for j in range(4)
    ]
    start = IndRNNState(torch.tensor([h], dtype=torch.float64))
    projected = cell.project(torch.tensor([x], dtype=torch.float64), params)
    output, state = cell.step(projected, start, params)
    assert output[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert state.h is output


def test_what_a_unit_holds_and_its_gradient_are_powers_of_u() -> None:
    cell = IndRNN(1, 3, bias=False)
    params = {"weight_ih": torch.zeros(3, 1).double(), "weight_hh": torch.tensor([0.5, 1.0, 1.5])}
    params["weight_hh"] = params["weight_hh"].double()
    start = torch.tensor([[0.2, 0.7, 1.1]], dtype=torch.float64, requires_grad=True)
    state = IndRNNState(start)
    for _ in range(10):
        _, state = cell.step(torch.zeros(1, 3).double(), state, params)
    powers = params["weight_hh"] ** 10
    torch.testing.assert_close(state.h, powers * start)
    (gradient,) = torch.autograd.grad(state.h.sum(), start)
    torch.testing.assert_close(gradient, powers.unsqueeze(0))


@pytest.mark.parametrize(("memory_length", "largest"), [(None, 1.0), (1, 2.0), (10, 2**0.1)])
def test_u_is_drawn_between_zero_and_what_the_longest_memory_allows(memory_length, largest) -> None:
    cell = IndRNN(4, 2000, memory_length=memory_length)
    params = {name: torch.full(shape, 9.0) for name, shape in cell.parameter_shapes().items()}
    torch.manual_seed(0)
    cell.draw(params)
    u = params["weight_hh"]
    assert float(u.min()) >= 0
    assert largest * 0.99 < float(u.max()) <= largest
    assert float(u.mean()) == pytest.approx(largest / 2, rel=0.05)
    assert float(params["weight_ih"].abs().max()) == pytest.approx(0.5, rel=0.01)
    assert not params["bias_ih"].any()


@pytest.mark.parametrize("memory_length", [0, -3, 2.0, True, "7"])
def test_a_memory_that_is_no_number_of_steps_is_refused(memory_length) -> None:
    with pytest.raises(ConfigError, match=rf"IndRNN: memory_length is {memory_length!r}"):
        IndRNN(3, 5, memory_length=memory_length)


def test_unknown_activation_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown activation 'tan'; did you mean 'tanh'\?"):
        IndRNN(3, 5, activation="tan")
