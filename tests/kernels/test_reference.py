"""The reference: any cell, second derivatives, torch.func, and resets in other orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.kernels import dispatch
from recurra.kernels.sequence import Sequence, Zoneout, check_lengths


class LeakyState(NamedTuple):
    total: Tensor


@dataclass(frozen=True)
class Leaky(Cell):
    """A cell of one's own: total' = decay * total + W x."""

    name: ClassVar[str] = "Leaky"
    structure: ClassVar[Structure] = "diagonal"
    gates: ClassVar[tuple[str, ...]] = ("total",)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight_ih": (self.hidden_size, self.input_size), "decay": (self.hidden_size,)}

    def state_sizes(self) -> dict[str, int]:
        return {"total": self.hidden_size}

    def make_state(self, *parts: Tensor) -> State:
        return LeakyState(*parts)

    def project(self, x: Tensor, params: Params) -> Tensor:
        return x @ params["weight_ih"].t()

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        def step(projected_t: Tensor, state: LeakyState) -> tuple[Tensor, State]:
            total = params["decay"] * state.total + projected_t
            return total, LeakyState(total)

        return step


def test_a_cell_of_ones_own_gets_lengths_resets_and_directions() -> None:
    cell = Leaky(1, 1)
    params = {"weight_ih": torch.ones(1, 1), "decay": torch.ones(1)}
    x = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]).unsqueeze(-1).float()
    lengths = check_lengths(torch.tensor([4, 2]), 2, 4, x.device, "Leaky")
    reset = torch.tensor([[False, False, True, False], [False, False, False, True]])
    forward, final = dispatch.run(Sequence(cell, x, params, lengths=lengths, reset=reset))
    assert forward.squeeze(-1).tolist() == [[1, 3, 3, 7], [5, 11, 0, 0]]
    assert final.total.squeeze(-1).tolist() == [7, 11]
    backward, final = dispatch.run(
        Sequence(cell, x, params, lengths=lengths, reset=reset, reverse=True)
    )
    assert backward.squeeze(-1).tolist() == [[6, 5, 3, 4], [11, 6, 0, 0]]
    assert final.total.squeeze(-1).tolist() == [6, 11]


def test_zoneout_keeps_the_state_of_a_cell_whose_output_is_no_part_of_it() -> None:
    cell = Leaky(1, 1)
    assert cell.output_part is None
    params = {"weight_ih": torch.ones(1, 1), "decay": torch.ones(1)}
    x = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1)
    zoneout = Zoneout((torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1),))
    output, final = dispatch.run(Sequence(cell, x, params, zoneout=zoneout))
    assert output.flatten().tolist() == [1, 3, 5], "the output of a step is the cell's own"
    assert final.total.tolist() == [[5]]
    output, final = dispatch.run(Sequence(cell, x, params, zoneout=Zoneout((0.5,))))
    assert output.flatten().tolist() == [1, 2.5, 5.5]
    assert final.total.tolist() == [[3.5]]


@pytest.mark.parametrize("cell", [Elman(2, 3), LSTM(2, 3, proj_size=2), GRU(2, 3)])
def test_the_stock_cells_put_out_their_h(cell) -> None:
    assert cell.output_part == "h"


@pytest.mark.parametrize("cell", [Elman(2, 3), LSTM(2, 3, proj_size=2), GRU(2, 3)])
@pytest.mark.parametrize("dropped", [False, True])
def test_second_derivatives_agree_with_finite_differences(cell, dropped) -> None:
    torch.manual_seed(0)
    more = {}
    if dropped:
        more["masks"] = Masks(torch.rand(2, 3, cell.output_size, dtype=torch.float64))
        more["zoneout"] = Zoneout((0.3,) * len(cell.state_sizes()))
    names = list(cell.parameter_shapes())
    values = [
        torch.randn(shape, dtype=torch.float64).mul(0.5).requires_grad_()
        for shape in cell.parameter_shapes().values()
    ]
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        params = dict(zip(names, values, strict=True))
        output, final = dispatch.run(Sequence(cell, x, params, **more))
        return output, *final

    torch.autograd.gradgradcheck(function, (x, *values), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cell", [Elman(2, 3), LSTM(2, 3), GRU(2, 3), GRU(2, 3, reset_after=False)])
def test_gradients_per_sample_by_torch_func(cell) -> None:
    torch.manual_seed(0)
    params = {n: torch.randn(s, dtype=torch.float64) for n, s in cell.parameter_shapes().items()}
    x = torch.randn(4, 5, 2, dtype=torch.float64)

    def loss(params: dict[str, Tensor], row: Tensor) -> Tensor:
        output, final = dispatch.run(Sequence(cell, row.unsqueeze(0), params))
        return output.square().sum() + final[0].sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, x)
    for row in range(4):
        alone = torch.func.grad(loss)(params, x[row])
        for name, gradient in alone.items():
            torch.testing.assert_close(per_sample[name][row], gradient)


@pytest.mark.parametrize("cell", [Elman(2, 3), LSTM(2, 3, proj_size=2), GRU(2, 3)])
def test_no_rows_are_no_error(cell) -> None:
    params = {n: torch.randn(s) for n, s in cell.parameter_shapes().items()}
    lengths = check_lengths(torch.zeros(0, dtype=torch.int64), 0, 4, torch.device("cpu"), "x")
    output, final = dispatch.run(Sequence(cell, torch.zeros(0, 4, 2), params, lengths=lengths))
    assert output.shape == (0, 4, cell.output_size)
    assert final[0].shape == (0, cell.output_size)


@pytest.mark.parametrize("cell", [Elman(3, 4), LSTM(3, 4, proj_size=2), GRU(3, 4)])
def test_bfloat16_is_near_float32_and_trains(cell) -> None:
    torch.manual_seed(0)
    exact = {n: torch.randn(s).mul(0.5) for n, s in cell.parameter_shapes().items()}
    short = {n: p.bfloat16().requires_grad_() for n, p in exact.items()}
    x = torch.randn(2, 6, 3)
    output, final = dispatch.run(Sequence(cell, x.bfloat16(), short))
    expected, _ = dispatch.run(Sequence(cell, x, exact))
    assert output.dtype == final[0].dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)
    output.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in short.values())


def test_all_rows_empty_still_gives_gradients_and_they_are_zero() -> None:
    cell = GRU(2, 3)
    params = {n: torch.randn(s, requires_grad=True) for n, s in cell.parameter_shapes().items()}
    x = torch.full((2, 4, 2), torch.nan, requires_grad=True)
    lengths = check_lengths(torch.tensor([0, 0]), 2, 4, x.device, "GRU")
    output, final = dispatch.run(Sequence(cell, x, params, lengths=lengths))
    assert not output.any()
    assert not final[0].any()
    (output.sum() + final[0].sum()).backward()
    assert not any(leaf.grad.any() for leaf in (x, *params.values()))
