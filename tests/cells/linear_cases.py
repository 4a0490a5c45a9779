"""What the tests of linear cells share: parameters, and a run of the cell's own steps."""

from __future__ import annotations

import torch
from torch import Tensor

from recurra.cells.cell import Params
from recurra.cells.linear import LinearCell


def parameters(cell: LinearCell, seed: int = 3) -> dict[str, Tensor]:
    """Normal float64 parameters that differ in every gate."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }


def drawn(cell: LinearCell, seed: int = 3) -> dict[str, Tensor]:
    """Parameters as the cell draws them."""
    torch.manual_seed(seed)
    params = {name: torch.empty(shape) for name, shape in cell.parameter_shapes().items()}
    cell.draw(params)
    return params


def steps(
    cell: LinearCell, x: Tensor, params: Params, h_0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, ·) and the final h of x (B, T, I), one step after another."""
    state = cell.initial_state(x.shape[0], params) if h_0 is None else cell.make_state(h_0)
    outputs = []
    for x_t in x.unbind(1):
        output, state = cell.step(cell.project(x_t, params), state, params)
        outputs.append(output)
    return torch.stack(outputs, 1), state[0]
