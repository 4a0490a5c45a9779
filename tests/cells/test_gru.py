"""GRU: both forms by their equations, and torch's numbers for reset_after."""

from __future__ import annotations

import pytest
import torch

from recurra.cells.gru import GRU, GRUState


@pytest.mark.parametrize("bias", [True, False])
def test_step_gives_the_numbers_of_torch(bias) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.GRUCell(3, 5, bias=bias, dtype=torch.float64)
    params = dict(theirs.named_parameters())
    cell = GRU(3, 5, bias=bias)
    assert {name: tuple(p.shape) for name, p in params.items()} == cell.parameter_shapes()
    x, h = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    output, state = cell.step(cell.project(x, params), GRUState(h), params)
    torch.testing.assert_close(output, theirs(x, h))
    assert state.h is output


@pytest.mark.parametrize("reset_after", [True, False])
def test_step_is_the_equation_of_the_docstring(reset_after) -> None:
    cell = GRU(2, 3, reset_after=reset_after)
    rng = torch.Generator().manual_seed(3)
    params = {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }
    x, h = torch.randn(1, 2, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    w, u, b, d = ({g: v[3 * k : 3 * k + 3] for k, g in enumerate("rzn")} for v in params.values())
    r, z = (torch.sigmoid(x @ w[g].T + b[g] + h @ u[g].T + d[g]) for g in "rz")
    if reset_after:
        n = torch.tanh(x @ w["n"].T + b["n"] + r * (h @ u["n"].T + d["n"]))
    else:
        n = torch.tanh(x @ w["n"].T + b["n"] + (r * h) @ u["n"].T + d["n"])
    output, _ = cell.step(cell.project(x, params), GRUState(h), params)
    torch.testing.assert_close(output, (1 - z) * n + z * h)
