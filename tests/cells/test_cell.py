"""The contract: sizes are checked, cells are values, and a cell of one's own needs little."""

from __future__ import annotations

import pytest
import torch

from recurra.cells.cell import Masks
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM, LSTMState
from recurra.errors import ConfigError


@pytest.mark.parametrize("kind", [Elman, LSTM, GRU])
@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3"])
def test_sizes_that_are_no_positive_integers_are_refused(kind, size) -> None:
    with pytest.raises(ConfigError, match=rf"{kind.name}: input_size is {size!r}"):
        kind(size, 3)
    with pytest.raises(ConfigError, match=rf"{kind.name}: hidden_size is {size!r}"):
        kind(3, size)


def test_cells_are_values() -> None:
    assert GRU(3, 5) == GRU(3, 5)
    assert GRU(3, 5) != GRU(3, 5, reset_after=False)
    assert len({LSTM(3, 5), LSTM(3, 5), LSTM(3, 5, proj_size=2)}) == 2
    with pytest.raises(AttributeError):
        GRU(3, 5).hidden_size = 7


def test_initial_state_is_zeros_in_the_parameters_dtype() -> None:
    cell = LSTM(3, 5, proj_size=2)
    params = {name: torch.ones(shape).half() for name, shape in cell.parameter_shapes().items()}
    state = cell.initial_state(4, params)
    assert isinstance(state, LSTMState)
    assert state.h.shape == (4, 2)
    assert state.c.shape == (4, 5)
    for part in state:
        assert part.dtype == torch.float16
        assert not part.any()


def test_no_masks_and_a_mask_of_none_are_the_same() -> None:
    cell = Elman(2, 3)
    params = {name: torch.randn(shape) for name, shape in cell.parameter_shapes().items()}
    state = cell.make_state(torch.randn(1, 3))
    projected_t = cell.project(torch.randn(1, 2), params)
    plain, _ = cell.step(projected_t, state, params)
    masked, _ = cell.step(projected_t, state, params, Masks(None))
    assert torch.equal(plain, masked)
