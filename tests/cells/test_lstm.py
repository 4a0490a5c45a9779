"""LSTM: the equation gate by gate, torch's numbers, and the projection."""

from __future__ import annotations

import pytest
import torch

from recurra.cells.cell import Masks
from recurra.cells.lstm import LSTM, LSTMState
from recurra.errors import ConfigError


def _params(cell: LSTM) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }


@pytest.mark.parametrize("bias", [True, False])
def test_step_gives_the_numbers_of_torch(bias) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.LSTMCell(3, 5, bias=bias, dtype=torch.float64)
    params = dict(theirs.named_parameters())
    cell = LSTM(3, 5, bias=bias)
    assert {name: tuple(p.shape) for name, p in params.items()} == cell.parameter_shapes()
    x = torch.randn(4, 3, dtype=torch.float64)
    h, c = torch.randn(2, 4, 5, dtype=torch.float64)
    output, state = cell.step(cell.project(x, params), LSTMState(h, c), params)
    torch.testing.assert_close(tuple(state), theirs(x, (h, c)))
    assert output is state.h


def test_step_is_the_equation_of_the_docstring() -> None:
    cell = LSTM(2, 3, proj_size=2)
    params = _params(cell)
    x, h = torch.randn(1, 2, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    c = torch.randn(1, 3, dtype=torch.float64)
    blocks = {
        gate: tuple(params[name][3 * k : 3 * k + 3] for name in list(params)[:4])
        for k, gate in enumerate("ifgo")
    }

    def gate(name: str) -> torch.Tensor:
        w, u, b, d = blocks[name]
        return x @ w.T + b + h @ u.T + d

    i, f, o = (torch.sigmoid(gate(name)) for name in "ifo")
    expected_c = f * c + i * torch.tanh(gate("g"))
    expected_h = (o * torch.tanh(expected_c)) @ params["weight_hr"].T
    _, state = cell.step(cell.project(x, params), LSTMState(h, c), params)
    torch.testing.assert_close(tuple(state), (expected_h, expected_c))


@pytest.mark.parametrize("proj_size", [-1, 5, 6])
def test_projection_must_be_smaller_than_hidden_size(proj_size) -> None:
    with pytest.raises(ConfigError, match=rf"proj_size is {proj_size}.*hidden_size, which is 5"):
        LSTM(3, 5, proj_size=proj_size)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_gate_values_are_the_gates_of_the_step(proj_size) -> None:
    cell = LSTM(2, 3, proj_size=proj_size)
    params = _params(cell)
    x = torch.randn(4, 2, dtype=torch.float64)
    state = LSTMState(*(torch.randn(4, n, dtype=torch.float64) for n in (cell.output_size, 3)))
    masks = Masks(torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)[: cell.output_size])
    projected = cell.project(x, params)
    gates = cell.gate_values(projected, state, params, masks)
    assert list(gates) == ["i", "f", "o"]
    u_g, p_g = params["weight_hh"][6:9], projected[:, 6:9]
    g = torch.tanh(p_g + (masks.h * state.h) @ u_g.T)
    c = gates["f"] * state.c + gates["i"] * g
    h = gates["o"] * torch.tanh(c)
    h = h @ params["weight_hr"].T if proj_size else h
    _, stepped = cell.step(projected, state, params, masks)
    torch.testing.assert_close(tuple(stepped), (h, c))
