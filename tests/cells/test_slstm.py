"""sLSTM: the equation without stabiliser, extreme gates, long sequences, heads, the first draw."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.cells.slstm import SLSTM, SLSTMState
from recurra.errors import ConfigError


def _params(cell: SLSTM, seed: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > 0 else math.exp(value) / (1 + math.exp(value))


def _without_stabiliser(
    cell: SLSTM, params: dict[str, torch.Tensor], x: list[list[float]]
) -> list[list[float]]:
    """h at each step by the paper's equations as they stand: c and n grow with the gates."""
    size, d = cell.hidden_size, cell.head_size
    w, r = params["weight_ih"].tolist(), params["weight_hh"].tolist()
    b = params["bias_ih"].tolist() if cell.bias else [0.0] * 4 * size
    h, c, n = [0.0] * size, [0.0] * size, [0.0] * size
    outputs = []
    for x_t in x:
        new_h = []
        for j in range(size):
            own = h[j // d * d : j // d * d + d]
            raw = [
                sum(a * value for a, value in zip(w[row], x_t, strict=True))
                + sum(a * value for a, value in zip(r[row], own, strict=True))
                + b[row]
                for row in (gate * size + j for gate in range(4))
            ]
            i, f, z, o = math.exp(raw[0]), raw[1], math.tanh(raw[2]), _sigmoid(raw[3])
            f = _sigmoid(f) if cell.forget_gate == "sigmoid" else math.exp(f)
            c[j], n[j] = f * c[j] + i * z, f * n[j] + i
            new_h.append(o * c[j] / n[j])
        h = new_h
        outputs.append(h)
    return outputs


def _run(cell: SLSTM, params, x: torch.Tensor, state=None) -> tuple[torch.Tensor, SLSTMState]:
    state = cell.initial_state(x.shape[0], params) if state is None else state
    outputs, step = [], cell.bind(params)
    for projected_t in cell.project(x, params).unbind(1):
        output, state = step(projected_t, state)
        outputs.append(output)
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_stabiliser_does_not_change_h(heads, forget_gate, bias) -> None:
    cell = SLSTM(2, 4, bias, heads, forget_gate)
    params = _params(cell, seed=heads)
    x = torch.randn(1, 12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output, state = _run(cell, params, x)
    expected = _without_stabiliser(cell, params, x[0].tolist())
    torch.testing.assert_close(output[0].tolist(), expected, rtol=1e-11, atol=1e-12)
    assert torch.equal(state.h, output[:, -1])


@given(shift=st.floats(-30, 30), seed=st.integers(0, 99))
def test_only_c_and_n_times_exp_m_count(shift, seed) -> None:
    cell = SLSTM(2, 3)
    params = _params(cell, seed)
    x = torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    _, (h, c, n, m) = _run(cell, params, x)
    scale = math.exp(-shift)
    moved, _ = _run(cell, params, x, SLSTMState(h, scale * c, scale * n, m + shift))
    expected, _ = _run(cell, params, x, SLSTMState(h, c, n, m))
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e8])
def test_extreme_gates_give_finite_values_and_gradients(forget_gate, size) -> None:
    cell = SLSTM(4, 4, False, 1, forget_gate)
    signs = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    x = torch.zeros(4, 3, 4)
    x[:, :, :2] = size * signs.unsqueeze(1)
    x[:, 1, :2] *= -1
    x[:, :, 2:] = 0.7
    params = {
        "weight_ih": torch.eye(4).repeat_interleave(4, 0).requires_grad_(),
        "weight_hh": torch.zeros(16, 4, requires_grad=True),
    }
    output, state = _run(cell, params, x)
    z = o = torch.tensor(0.7)
    first = (torch.sigmoid(o) * torch.tanh(z)).expand(4, 4)
    torch.testing.assert_close(output[:, 0], first)
    for value in (output, *state):
        assert value.isfinite().all()
    assert (state.n >= 1).all()
    output.sum().backward()
    for value in params.values():
        assert value.grad.isfinite().all()


def test_gradient_of_an_initial_state_of_zeros_is_that_without_stabiliser() -> None:
    cell = SLSTM(2, 3)
    params = _params(cell)
    params["bias_ih"][:3] += 4.0  # more than what the forget gate keeps
    x = torch.randn(1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = SLSTMState(*(torch.zeros(1, 3).double().requires_grad_() for _ in range(4)))
    output, _ = _run(cell, params, x, start)
    of_c, of_n = torch.autograd.grad(output.sum(), [start.c, start.n])
    i, f, z, o = cell.project(x[:, 0], params).chunk(4, 1)
    ratio = torch.sigmoid(f) / torch.exp(i)
    torch.testing.assert_close(of_c, torch.sigmoid(o) * ratio)
    torch.testing.assert_close(of_n, -torch.sigmoid(o) * torch.tanh(z) * ratio)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_two_thousand_steps_in_float32(forget_gate) -> None:
    cell = SLSTM(3, 8, num_heads=2, forget_gate=forget_gate)
    exact = {name: torch.empty(s, dtype=torch.float64) for name, s in _shapes(cell)}
    torch.manual_seed(0)
    cell.draw(exact)
    x = torch.randn(2, 2000, 3, dtype=torch.float64)
    short = {name: value.float() for name, value in exact.items()}
    output, state = _run(cell, short, x.float())
    expected, _ = _run(cell, exact, x)
    assert all(part.isfinite().all() for part in state)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5)


def _shapes(cell: SLSTM):
    return cell.parameter_shapes().items()


def test_heads_do_not_mix() -> None:
    cell = SLSTM(2, 6, num_heads=3)
    params = _params(cell)
    state = _run(cell, params, torch.ones(1, 2, 2).double())[1]
    h = state.h.clone().requires_grad_()
    output, _ = cell.step(
        cell.project(torch.ones(1, 2).double(), params), state._replace(h=h), params
    )
    for unit in range(6):
        (gradient,) = torch.autograd.grad(output[0, unit], h, retain_graph=True)
        seen = torch.arange(6) // 2 == unit // 2
        assert torch.equal(gradient[0] != 0, seen)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_weights_are_drawn_as_the_authors_do(forget_gate) -> None:
    cell = SLSTM(10, 400, num_heads=2, forget_gate=forget_gate)
    params = {name: torch.full(shape, 9.0) for name, shape in _shapes(cell)}
    torch.manual_seed(0)
    cell.draw(params)
    assert float(params["weight_ih"].std()) == pytest.approx(0.2, rel=0.02)
    assert not params["weight_hh"].any()
    i, f, z, o = params["bias_ih"].chunk(4)
    assert not torch.cat([i, z, o]).any()
    gate = torch.sigmoid(f) if forget_gate == "sigmoid" else torch.exp(f)
    for unit in (0, 57, 199):
        law = 1 / (1 + math.exp(-(5 - 12 * (unit / 199) ** 0.3)))
        assert float(gate[unit]) == pytest.approx(law, rel=1e-5)
        assert float(gate[200 + unit]) == float(gate[unit])


def test_one_unit_a_head_and_no_bias_can_be_drawn() -> None:
    cell = SLSTM(2, 3, num_heads=3)
    params = {name: torch.zeros(shape) for name, shape in _shapes(cell)}
    cell.draw(params)
    assert params["bias_ih"][3:6].tolist() == [5.0] * 3
    SLSTM(2, 3, bias=False).draw({"weight_ih": torch.zeros(12, 2), "weight_hh": torch.ones(12, 3)})


@pytest.mark.parametrize("num_heads", [0, -1, 2.0, True])
def test_heads_that_are_no_positive_integer_are_refused(num_heads) -> None:
    with pytest.raises(ConfigError, match=rf"sLSTM: num_heads is {num_heads!r}"):
        SLSTM(3, 4, num_heads=num_heads)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(ConfigError, match=r"sLSTM: num_heads=3 does not divide hidden_size=4"):
        SLSTM(3, 4, num_heads=3)


def test_unknown_forget_gate_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown forget_gate 'expp'; did you mean 'exp'\?"):
        SLSTM(3, 4, forget_gate="expp")
