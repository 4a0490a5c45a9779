"""The cpu backend in every way it can run a call: same numbers as the reference, same bits always.

What holds for all backends is in tests/laws; here the level of instructions, the threads, the
slices and the teams are forced one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.cases import (
    CORE_CELLS,
    Asked,
    Case,
    Runner,
    Shape,
    anything,
    assert_close,
    assert_gradients_close,
    gradients,
)
from torch import Tensor

from recurra import nn
from recurra.kernels import core, cpu, reference
from recurra.kernels.sequence import Sequence

if core.module is None:
    pytest.skip("the compiled core is not built here", allow_module_level=True)
from recurra import _core

LEVELS = _core.levels()
RUNNER = Runner("cpu", "cpu")


@pytest.fixture(autouse=True)
def _poisoned_workspaces() -> Iterator[None]:
    _core.poison_workspaces(True)
    yield
    _core.poison_workspaces(False)


@contextmanager
def forced(*choice: str | int) -> Iterator[None]:
    with mock.patch.object(cpu, "choice", cpu.Choice(*choice)):
        yield


def both_directions(make, shape: Shape, asked: Asked) -> tuple[list[Sequence], dict[str, Tensor]]:
    """Two calls over one x that differ in everything a direction has for itself, and all leaves."""
    case = Case.draw(make, RUNNER, shape).fresh()
    other = Case.draw(make, RUNNER, shape._replace(seed=shape.seed + 1)).fresh()
    first, second = case.sequence(**case.ask(asked)), other.sequence(**other.ask(asked))
    shared = {"x": first.x, "lengths": first.lengths, "reset": first.reset}
    leaves = case.leaves() | {f"{k}_reverse": v for k, v in other.leaves().items() if k != "x"}
    return [first, second._replace(reverse=not first.reverse, **shared)], leaves


def run_reference(calls: list[Sequence]) -> tuple[Tensor, list]:
    results = [reference.run(call) for call in calls]
    return torch.cat([output for output, _ in results], -1), [state for _, state in results]


# More rows than one pass carries and more entries than the ring holds, on some draws.
battery = st.builds(
    Shape,
    batch=st.sampled_from([1, 2, 3, 5, 9, 20, 70]),
    time=st.integers(0, 9),
    input=st.sampled_from([1, 3, 8, 17, 32, 33, 40]),
    hidden=st.sampled_from([2, 3, 8, 15, 16, 17, 33, 40]),
    batch_first=st.booleans(),
    seed=st.integers(0, 999),
)
ways = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=60)
@given(
    make=st.sampled_from(list(CORE_CELLS.values())),
    shape=battery,
    asked=anything,
    way=ways,
    directions=st.integers(1, 2),
)
def test_every_way_of_running_equals_the_reference(
    level, make, shape, asked, way, directions
) -> None:
    calls, leaves = both_directions(make, shape, asked)
    calls = calls[:directions]
    found = []
    for run in (cpu.run_together, run_reference):
        with forced(level, *way):
            output, states = run(calls)
            values = (output, *itertools.chain(*states))
            found.append((values, gradients(values, leaves, shape.seed)))
    assert_close(found[0][0], found[1][0], "values")
    assert_gradients_close(found[0][1], found[1][1])


PLAIN = ["elman-tanh", "elman-relu", "lstm", "lstm-projected", "gru", "gru-reset-before"]
PLAIN += ["slstm", "slstm-exp-no-bias"]
# Threads, slices, team.
WAYS = [(1, 1, 1), (2, 2, 1), (3, 3, 1), (2, 1, 2), (3, 1, 3), (3, 5, 2)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", PLAIN)
# The input is multiplied within the step up to 32 features, and some steps ahead beyond.
@pytest.mark.parametrize("input_size", [20, 45])
def test_bits_of_a_row_depend_on_the_row_alone(level, name, input_size) -> None:
    shape = Shape(13, 13, input_size, 37, True, 3)
    case = Case.draw(CORE_CELLS[name], RUNNER, shape, torch.float32)
    lengths = case.lengths()
    with forced(level, 1, 1, 1):
        whole = case.run()
        ragged = case.run(lengths=lengths)
    wanting = case.fresh()
    for way in WAYS:
        with forced(level, *way):
            assert_equal(case.run(), whole)
            assert_equal(replace(case, batch_first=False).run(), whole)
            assert_equal(case.run(lengths=torch.full((13,), 13)), whole)
            assert_equal(case.run(lengths=lengths), ragged)
            assert_equal(wanting.run(), whole)
            assert_equal(wanting.run(lengths=lengths), ragged)
            for rows in (slice(0, 1), slice(4, 9), slice(2, 13, 3)):
                part = case.cell.make_state(*(s[rows] for s in case.state))
                assert_equal(case.run(x=case.x[rows], state=part), [v[rows] for v in whole])
            for cut in (1, 6):
                output, *state = case.run(x=case.x[:, :cut])
                later, *final = case.run(x=case.x[:, cut:], state=case.cell.make_state(*state))
                assert_equal((torch.cat([output, later], 1), *final), whole)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(ragged[0][row, :length], whole[0][row, :length])


def test_bits_of_a_direction_are_the_same_with_and_without_the_other() -> None:
    torch.manual_seed(0)
    x, lengths = torch.randn(5, 9, 40), torch.tensor([9, 0, 4, 7, 1])
    layer = nn.GRU(40, 19, batch_first=True, bidirectional=True)
    forward = nn.GRU(40, 19, batch_first=True)
    forward.load_state_dict({k: v for k, v in layer.state_dict().items() if "reverse" not in k})
    for way in WAYS:
        with forced("", *way):
            assert torch.equal(layer(x)[0][..., :19], forward(x)[0])
            ours, theirs = layer(x, lengths=lengths)[0], forward(x, lengths=lengths)[0]
            assert torch.equal(ours[..., :19], theirs)


def assert_equal(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...] | list[Tensor]) -> None:
    for number, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert torch.equal(a.detach(), b), f"value {number} differs by {(a - b).abs().max():.1e}"


# (batch, time, input, hidden, layers): the shapes that are benchmarked, smaller, and odd ones.
ACCURATE = [
    (8, 32, 8, 32, 1),
    (16, 24, 32, 64, 1),
    (16, 20, 64, 128, 2),
    (5, 9, 163, 163, 2),
    (4, 60, 80, 96, 1),
    (70, 12, 4, 64, 1),
    (3, 41, 5, 13, 1),
    (1, 100, 1, 1, 1),
    (7, 7, 33, 31, 3),
    (5, 4, 7, 523, 1),  # recurrent weights beyond the second cache, of every cell
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("shape", ACCURATE, ids=str)
def test_float32_is_as_near_to_the_truth_as_promised(level, kind, shape) -> None:
    batch, time, input_size, hidden, layers = shape
    torch.manual_seed(1)
    ours = getattr(nn, kind)(input_size, hidden, layers, bidirectional=layers == 3)
    truth = getattr(torch.nn, kind)(
        input_size, hidden, layers, bidirectional=layers == 3, dtype=torch.float64
    )
    truth.load_state_dict(ours.state_dict())
    x = torch.randn(time, batch, input_size, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    with forced(level, 1):
        output, _ = ours(x)
        factors = torch.randn_like(output)
        (output * factors).sum().backward()
    expected, _ = truth(x64)
    (expected * factors).sum().backward()
    assert (output - expected).abs().max() <= 3e-6
    pairs = [(x, x64), *zip(ours.parameters(), truth.parameters(), strict=True)]
    for a, b in pairs:
        assert (a.grad - b.grad).abs().max() <= 2e-5 * b.grad.abs().max()
