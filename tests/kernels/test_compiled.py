"""The cpu backend as operators: torch's own checks, fake shapes, one level forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.laws.cases import CORE_CELLS, EVERYTHING, Asked, Case, Runner, Shape, assert_close
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from recurra.cells.cell import Cell
from recurra.cells.ind_rnn import IndRNN
from recurra.errors import BackendError, ShapeError
from recurra.kernels import compiled, core, cpu, reference

pytestmark = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")

PLAIN = Asked(False, False, False, False, "none", "none")
EXPECTED = Asked(True, True, False, False, "locked", "expected")
ASKED = {"plain": PLAIN, "expected": EXPECTED, "everything": EVERYTHING}
OPS = torch.ops.recurra
Make = Callable[[int, int], Cell]


def flat_case(
    make: Make,
    asked: Asked = EVERYTHING,
    *,
    hidden: int = 5,
    directions: int = 2,
    dtype: torch.dtype = torch.float64,
    batch_first: bool = True,
) -> compiled.Flat:
    """Two directions (or one) of a call with leaves that want gradients, taken apart."""
    shape = Shape(3, 4, 2, hidden, batch_first, seed=11)
    case = Case.draw(make, Runner("cpu", "cpu"), shape, dtype).fresh()
    call = case.ask(asked)
    calls = []
    for reverse in (False, True)[:directions]:
        one = case.sequence(**{**call, "reverse": reverse})
        calls.append(one._replace(x=calls[0].x) if calls else one)
    if len(calls) > 1:
        calls[1] = calls[1]._replace(lengths=calls[0].lengths)
    return compiled.flatten(calls)


def detached(flat: compiled.Flat) -> compiled.Flat:
    return flat._replace(x=flat.x.detach(), tensors=[t.detach() for t in flat.tensors])


def saving(flat: compiled.Flat, level: str | None = None) -> list[Tensor]:
    found: list[Tensor] = OPS.recurrence_saving(*flat, level or cpu.current_level())
    return found


def gradients_of(flat: compiled.Flat, results: list[Tensor]) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(5)
    total = sum((r * torch.randn(r.shape, generator=rng).to(r)).sum() for r in results)
    return torch.autograd.grad(total, [flat.x, *flat.tensors])  # type: ignore[arg-type]


def backward_call(flat: compiled.Flat) -> tuple[Any, ...]:
    """Arguments of the operator of backward: gradient at y and one state, all but x wanted."""
    flat = detached(flat)
    y, *ends, slab = saving(flat)
    d_results = [torch.ones_like(y), torch.ones_like(ends[0]), *([None] * (len(ends) - 1))]
    wanted = [False, *([True] * len(flat.tensors))]
    return (y, slab, d_results, wanted, *flat, cpu.current_level())


def shapes_of(results: list[Tensor]) -> list[tuple[Any, ...]]:
    return [(tuple(r.shape), r.stride(), r.dtype) for r in results]


@pytest.mark.parametrize("make", CORE_CELLS.values(), ids=CORE_CELLS)
def test_a_call_taken_apart_is_put_together_again(make: Make) -> None:
    flat = flat_case(make)
    calls = flat.calls()
    assert [call.reverse for call in calls] == [False, True]
    cell = make(2, 5)
    if isinstance(cell, IndRNN):
        cell = replace(cell, memory_length=None)  # which only drawing asks for
    assert all(call.cell == cell for call in calls)
    again = compiled.flatten(calls)
    for name, one, other in zip(flat._fields, flat, again, strict=True):
        if isinstance(one, list) and one and isinstance(one[0], Tensor):
            assert all(a is b for a, b in zip(one, other, strict=True)), name
        else:
            assert one is other or one == other, name


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize(
    "make", [CORE_CELLS["lstm-projected"], CORE_CELLS["gru-no-bias"]], ids=["lstm", "gru"]
)
def test_torch_finds_no_fault_in_the_operators(make: Make, asked: Asked) -> None:
    flat = flat_case(make, asked)
    torch.library.opcheck(OPS.recurrence.default, tuple(flat))
    torch.library.opcheck(OPS.recurrence_backward.default, backward_call(flat))
    if flat.lengths is not None:  # the slab of steps that are not real is never written
        flat = flat._replace(lengths=torch.full_like(flat.lengths, 4))
    torch.library.opcheck(OPS.recurrence_saving.default, (*flat, cpu.current_level()))


@pytest.mark.parametrize("level", core.module.levels() if core.module else [])
@pytest.mark.parametrize("make", CORE_CELLS.values(), ids=CORE_CELLS)
def test_fake_results_have_the_sizes_of_real_ones(make: Make, level: str) -> None:
    for asked in ASKED.values():
        for hidden, dtype in ((3, torch.float64), (17, torch.float32), (33, torch.float32)):
            flat = detached(flat_case(make, asked, hidden=hidden, dtype=dtype, batch_first=False))
            real = saving(flat, level)
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            with mode:
                fake = saving(flat, level)
            assert shapes_of(fake) == shapes_of(real)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("make", CORE_CELLS.values(), ids=CORE_CELLS)
def test_same_bits_as_eager(make: Make, directions: int, asked: Asked) -> None:
    flat = flat_case(make, asked, directions=directions, dtype=torch.float32)
    y, states = cpu.run_together(flat.calls())
    expected = [y, *(part for state in states for part in state)]
    actual = OPS.recurrence(*flat)
    plain = OPS.recurrence(*detached(flat))
    for a, p, e in zip(actual, plain, expected, strict=True):
        assert torch.equal(a, e)
        assert torch.equal(p, e)
    for a, e in zip(gradients_of(flat, actual), gradients_of(flat, expected), strict=True):
        assert torch.equal(a, e)


@pytest.mark.skipif(core.module is None or len(core.module.levels()) < 2, reason="needs two levels")
@pytest.mark.parametrize("make", [CORE_CELLS["lstm"], CORE_CELLS["gru"]], ids=["lstm", "gru"])
def test_backward_runs_at_the_level_of_forward(make: Make, monkeypatch: Any) -> None:
    flat = flat_case(make, hidden=17, dtype=torch.float32)
    monkeypatch.setattr(cpu, "choice", cpu.Choice(level="scalar"))
    expected = gradients_of(flat, OPS.recurrence(*flat))
    results = OPS.recurrence(*flat)
    monkeypatch.setattr(cpu, "choice", cpu.Choice())
    assert cpu.current_level() != "scalar"
    for a, e in zip(gradients_of(flat, results), expected, strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_lengths_are_checked_when_the_operator_runs(bad: int) -> None:
    flat = flat_case(CORE_CELLS["lstm"])
    lengths = torch.tensor([4, bad, 0])
    said = rf"LSTM: lengths\[1\] is {bad}, but x has 4 time steps.*within 0\.\.4"
    with pytest.raises(ShapeError, match=said):
        OPS.recurrence(*flat._replace(lengths=lengths))
    y, slab, d_results, wanted, *rest = backward_call(flat)
    rest[compiled.Flat._fields.index("lengths")] = lengths
    with pytest.raises(ShapeError, match=said):
        OPS.recurrence_backward(y, slab, d_results, wanted, *rest)


def test_tensors_that_do_not_fit_are_refused() -> None:
    flat = flat_case(CORE_CELLS["lstm"])._replace(lengths=None)
    weight_ih, weight_hh, *rest = flat.tensors
    assert flat.reset is not None
    for change, said in (
        ({"sizes": [2, 9, 9]}, r"weight_ih is torch\.float64 \(20, 2\).*\(36, 2\)"),
        ({"sizes": [3, 5, 5]}, r"x is torch\.float64 \(3, 4, 2\).*\(3, 4, 3\)"),
        ({"x": flat.x.bfloat16()}, r"x is torch\.bfloat16 .*torch\.float32"),
        ({"reverse": [False] * 3, "masked": [False] * 3}, "reverse has 3 entries"),
        ({"tensors": [weight_ih.float(), weight_hh, *rest]}, r"weight_ih is torch\.float32"),
        ({"tensors": [weight_ih, weight_hh[:, 1:], *rest]}, r"weight_hh .*\(20, 4\).*\(20, 5\)"),
        ({"reset": flat.reset[1:]}, r"reset is torch\.bool \(2, 4\).*\(3, 4\)"),
        ({"lengths": torch.tensor([4])}, r"lengths is torch\.int64 \(1,\).*\(3,\)"),
        ({"lengths": torch.tensor([4.0, 4, 4])}, r"lengths is torch\.float32"),
        ({"drawn": [d[1:] for d in flat.drawn]}, r"mask .*\(2, 4, 5\).*\(3, 4, 5\)"),
        ({"drawn": [flat.drawn[0], *(d[:, 1:] for d in flat.drawn[1:])]}, r"zoneout .*\(3, 3, 5\)"),
    ):
        with pytest.raises(ShapeError, match=said):
            OPS.recurrence(*flat._replace(**change))
    y, slab, d_results, wanted, *call = backward_call(flat)
    for args, said in (
        ((y[1:], slab, d_results), r"y is torch\.float64 \(2, 4, 10\).*\(3, 4, 10\)"),
        ((y, slab[:, 1:], d_results), "saved is torch.float64"),
        ((y, slab, [y.float(), *d_results[1:]]), "d_results is torch.float32"),
    ):
        with pytest.raises(ShapeError, match=said):
            OPS.recurrence_backward(*args, wanted, *call)


def test_lengths_written_to_before_backward_are_noticed() -> None:
    flat = flat_case(CORE_CELLS["gru"])
    assert flat.lengths is not None
    results = OPS.recurrence(*flat)
    flat.lengths.add_(10**9)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients_of(flat, results)


def test_second_derivatives_are_those_of_the_reference() -> None:
    flat = flat_case(CORE_CELLS["gru"], directions=1)
    found = []
    for y in (OPS.recurrence(*flat)[0], reference.run(flat.calls()[0])[0]):
        (d_x,) = torch.autograd.grad(y.square().sum(), flat.x, create_graph=True)
        found.append(torch.autograd.grad(d_x.square().sum(), [flat.x, *flat.tensors]))
    assert_close(found[0], found[1], largest=10.0)


def test_transforms_are_refused_with_a_reason() -> None:
    flat = detached(flat_case(CORE_CELLS["gru"], PLAIN))

    def run(x: Tensor) -> Tensor:
        y: Tensor = OPS.recurrence(*flat._replace(x=x))[0]
        return y

    said = r"torch\.func.*backend='reference'"
    with pytest.raises(BackendError, match=said):
        torch.func.grad(lambda x: run(x).sum())(flat.x)
    with pytest.raises(BackendError, match=said):
        torch.vmap(run)(flat.x.unsqueeze(0))
