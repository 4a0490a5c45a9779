"""LSTM: the equation gate by gate, torch's numbers, and the projection."""

from __future__ import annotations

import pytest
import torch

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
