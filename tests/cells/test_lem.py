"""LEM: the equation unit by unit, and what the bound on dt promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.cells.lem import LEM, LEMState
from recurra.errors import ConfigError


def _params(cell: LEM, spread: float = 1.0, seed: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: spread * torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("dt", [1.0, 0.3])
@pytest.mark.parametrize("bias", [True, False])
def test_step_is_the_equation_of_each_unit(dt, bias) -> None:
    cell = LEM(2, 3, bias, dt)
    params = _params(cell)
    x, y, z = [0.3, -1.2], [0.5, -0.4, 1.5], [0.9, 0.1, -0.7]
    v, w, w_y = (params[name].tolist() for name in ("weight_ih", "weight_hh", "weight_hz"))
    b = params["bias_ih"].tolist() if bias else [0.0] * 12

    def product(rows: list[list[float]], row: int, values: list[float]) -> float:
        return sum(weight * value for weight, value in zip(rows[row], values, strict=True))

    def of_y(gate: int, j: int) -> float:
        row = 3 * gate + j
        return product(w, row, y) + product(v, row, x) + b[row]

    new_z = []
    for j in range(3):
        s = dt * _sigmoid(of_y(0, j))
        new_z.append((1 - s) * z[j] + s * math.tanh(of_y(2, j)))
    new_y = []
    for j in range(3):
        t = dt * _sigmoid(of_y(1, j))
        target = math.tanh(product(w_y, j, new_z) + product(v, 9 + j, x) + b[9 + j])
        new_y.append((1 - t) * y[j] + t * target)

    start = LEMState(*(torch.tensor([part], dtype=torch.float64) for part in (y, z)))
    projected = cell.project(torch.tensor([x], dtype=torch.float64), params)
    output, state = cell.step(projected, start, params)
    assert state.y[0].tolist() == pytest.approx(new_y, abs=1e-12)
    assert state.z[0].tolist() == pytest.approx(new_z, abs=1e-12)
    assert output is state.y
    assert cell.output_part == "y"


@given(seed=st.integers(0, 999), dt=st.floats(0.01, 1.0), spread=st.floats(0.1, 20.0))
def test_states_stay_within_one_and_move_at_most_dt_of_the_way(seed, dt, spread) -> None:
    cell = LEM(2, 3, dt=dt)
    params = _params(cell, spread, seed)
    x = torch.randn(40, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    state = cell.initial_state(4, params)
    for t in range(40):
        before = state
        _, state = cell.step(cell.project(x[t], params), state, params)
        for old, new in zip(before, state, strict=True):
            assert float(new.abs().max()) <= 1
            assert ((new - old).abs() <= dt * (1 + old.abs()) + 1e-12).all()


@pytest.mark.parametrize("dt", [0, -0.1, 1.5, float("nan"), True, "1"])
def test_a_time_step_outside_zero_to_one_is_refused(dt) -> None:
    with pytest.raises(ConfigError, match=rf"LEM: dt is {dt!r}, but must be a number above 0"):
        LEM(3, 5, dt=dt)
