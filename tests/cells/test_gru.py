"""GRU: both forms by their equations, and torch's numbers for reset_after."""

from __future__ import annotations

import pytest
import torch

from recurra.cells.cell import Masks
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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False])
def test_gate_values_are_the_gates_of_the_step(reset_after, bias) -> None:
    cell, rng = GRU(2, 3, reset_after=reset_after, bias=bias), torch.Generator().manual_seed(5)
    params = {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }
    x, h = (torch.randn(4, n, generator=rng, dtype=torch.float64) for n in (2, 3))
    masks = Masks(torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64))
    projected = cell.project(x, params)
    gates = cell.gate_values(projected, cell.make_state(h), params, masks)
    assert list(gates) == ["r", "z"]
    u_n, seen = params["weight_hh"][6:].T, masks.h * h
    c_n = params["bias_hh"][6:] if bias and reset_after else 0.0
    r = gates["r"]
    recurrent = r * (seen @ u_n + c_n) if reset_after else (r * seen) @ u_n
    n = torch.tanh(projected[:, 6:] + recurrent)
    output, _ = cell.step(projected, cell.make_state(h), params, masks)
    torch.testing.assert_close(output, (1 - gates["z"]) * n + gates["z"] * h)
