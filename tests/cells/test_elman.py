"""Elman: the equation, torch's numbers, and unknown activations."""

from __future__ import annotations

import pytest
import torch

from recurra.cells.elman import Elman, ElmanState
from recurra.errors import ConfigError


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_step_gives_the_numbers_of_torch(activation, bias) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.RNNCell(3, 5, bias=bias, nonlinearity=activation, dtype=torch.float64)
    params = dict(theirs.named_parameters())
    cell = Elman(3, 5, activation=activation, bias=bias)
    assert {name: tuple(p.shape) for name, p in params.items()} == cell.parameter_shapes()
    x, h = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    output, state = cell.step(cell.project(x, params), ElmanState(h), params)
    torch.testing.assert_close(output, theirs(x, h))
    assert state.h is output


def test_unknown_activation_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown activation 'relv'; did you mean 'relu'\?"):
        Elman(3, 5, activation="relv")
