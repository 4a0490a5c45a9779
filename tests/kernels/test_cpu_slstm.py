"""sLSTM in the compiled core where its exponentials are cut off, equal, zero, or no numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from recurra import nn
from recurra.cells.slstm import SLSTM, SLSTMState
from recurra.kernels import core, cpu, reference
from recurra.kernels.sequence import Sequence

if core.module is None:
    pytest.skip("the compiled core is not built here", allow_module_level=True)
from recurra import _core

GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture(autouse=True, params=_core.levels())
def level(request, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(cpu, "choice", cpu.Choice(request.param, 1))
    _core.poison_workspaces(True)
    yield request.param
    _core.poison_workspaces(False)


def run(backend, cell: SLSTM, x: Tensor, params, state=None, **call) -> list[Tensor]:
    """Output, final state, and the gradients that arrive from all of them at all that goes in."""
    leaves = [x, *params.values(), *(state or ())]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    own = dict(zip(params, leaves[1:], strict=False))
    start = None if state is None else SLSTMState(*leaves[1 + len(params) :])
    output, final = backend.run(Sequence(cell, leaves[0], own, start, **call))
    rng = torch.Generator().manual_seed(5)
    values = [output, *final]
    total = sum((v * torch.randn(v.shape, generator=rng, dtype=v.dtype)).sum() for v in values)
    return [*(value.detach() for value in values), *torch.autograd.grad(total, leaves)]


def assert_same(cell: SLSTM, x: Tensor, params, state=None, **call) -> list[Tensor]:
    near = {torch.float32: 3e-6, torch.float64: 1e-12}[x.dtype]
    ours, theirs = (run(b, cell, x, params, state, **call) for b in (cpu, reference))
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        largest = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(
            a, b, rtol=near, atol=near * largest, msg=lambda text, n=number: f"{n}: {text}"
        )
    return ours


def drawn(cell: SLSTM, dtype: torch.dtype, seed: int = 3) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: 0.5 * torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)
        for name, shape in cell.parameter_shapes().items()
    }


@GATES
@DTYPES
@pytest.mark.parametrize("size", [1e2, 1e4, 1e8])
def test_extreme_gates(forget_gate, dtype, size) -> None:
    cell = SLSTM(4, 4, False, 1, forget_gate)
    signs = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)], dtype=dtype)
    x = torch.zeros(4, 3, 4, dtype=dtype)
    x[:, :, :2] = size * signs.unsqueeze(1)
    x[:, 1, :2] *= -1
    x[:, :, 2:] = 0.7
    params = {
        "weight_ih": torch.eye(4, dtype=dtype).repeat_interleave(4, 0),
        "weight_hh": torch.zeros(16, 4, dtype=dtype),
    }
    results = assert_same(cell, x, params)
    assert all(value.isfinite().all() for value in results)


@GATES
@DTYPES
def test_gates_that_are_equal_share_the_gradient(forget_gate, dtype) -> None:
    # The forget gate is 1, so m is kept as it was: 0.25, and so is ĩ of every second unit.
    cell = SLSTM(1, 40, True, 1, forget_gate)
    params = {name: torch.zeros_like(value) for name, value in drawn(cell, dtype).items()}
    params["weight_ih"][80:] = 1
    i, f, _, _ = params["bias_ih"].chunk(4)
    i[::2], i[1::4], i[3::4] = 0.25, -1.0, 1.0
    f.fill_(200.0 if forget_gate == "sigmoid" else 0.0)
    x = torch.tensor([0.3, -0.2], dtype=dtype).view(2, 1, 1)
    start = SLSTMState(*(torch.full((2, 40), part, dtype=dtype) for part in (0.1, 0.4, 1.5, 0.25)))
    assert_same(cell, x, params, start)


@GATES
@DTYPES
def test_a_start_of_zeros_and_resets(forget_gate, dtype) -> None:
    cell = SLSTM(3, 21, True, 1, forget_gate)
    params = drawn(cell, dtype)
    params["bias_ih"][:10] += 4.0  # more than what the forget gate keeps, and less
    params["bias_ih"][10:21] -= 4.0
    x = torch.randn(4, 6, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))
    start = SLSTMState(*(torch.zeros(4, 21, dtype=dtype) for _ in range(4)))
    assert_same(cell, x, params, start)
    reset = torch.zeros(4, 6, dtype=torch.bool)
    reset[1, 3] = reset[2, 0] = reset[3, 5] = True
    assert_same(cell, x, params, start, reset=reset)
    assert_same(cell, x, params, start, reset=reset, recompute="gates")


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("part", ["h", "c", "n", "m"])
def test_what_is_no_number_stays_none(row, part) -> None:
    cell = SLSTM(2, 11)
    params = drawn(cell, torch.float32)
    state = SLSTMState(*(torch.full((4, 11), value) for value in (0.1, 0.2, 1.0, 0.3)))
    getattr(state, part)[row, 5] = torch.nan
    x = torch.ones(4, 2, 2)
    ours, theirs = (
        backend.run(Sequence(cell, x, params, state))[0] for backend in (cpu, reference)
    )
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert ours[row].isnan().any()


@GATES
def test_two_thousand_steps_in_float32(forget_gate) -> None:
    torch.manual_seed(0)
    layer = nn.SLSTM(3, 8, num_heads=2, forget_gate=forget_gate, batch_first=True)
    exact = nn.SLSTM(
        3, 8, num_heads=2, forget_gate=forget_gate, batch_first=True, dtype=torch.float64
    )
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(2, 2000, 3, dtype=torch.float64)
    output, state = layer(x.float())
    expected, _ = exact(x)
    assert all(part.isfinite().all() for part in state)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5)


@GATES
@pytest.mark.parametrize("heads", [2, 3])
def test_heads_have_the_gradients_of_the_reference(forget_gate, heads) -> None:
    cell = SLSTM(5, 12, True, heads, forget_gate)
    params = drawn(cell, torch.float64)
    x = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = assert_same(cell, x, params)
    assert results[7].shape == params["weight_hh"].shape
    assert bool(results[7].all())


def test_only_the_parts_that_are_asked_for_get_a_gradient() -> None:
    cell = SLSTM(2, 9)
    params = drawn(cell, torch.float64)
    x = torch.ones(3, 4, 2, dtype=torch.float64)
    parts = [torch.full((3, 9), value, dtype=torch.float64) for value in (0.1, 0.2, 1.0, 0.3)]
    whole = [part.clone().requires_grad_() for part in parts]
    output, final = cpu.run(Sequence(cell, x, params, SLSTMState(*whole)))
    expected = torch.autograd.grad(output.sum() + final.n.sum(), whole)
    for n in range(4):
        some = [part.clone().requires_grad_(k == n) for k, part in enumerate(parts)]
        output, final = cpu.run(Sequence(cell, x, params, SLSTMState(*some)))
        (found,) = torch.autograd.grad(output.sum() + final.n.sum(), [some[n]])
        assert torch.equal(found, expected[n])
