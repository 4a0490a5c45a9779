"""Step by step, in chunks or whole: one recurrence, the same numbers, and nobody is disturbed."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.laws.cases import (
    DTYPES,
    EVERYTHING,
    Case,
    anything,
    assert_close,
    by_hand,
    pairs,
    quick,
    rows_of,
    shapes,
    steps_of,
)

from recurra.kernels.sequence import Features

every_pair = pytest.mark.parametrize(("make", "runner"), pairs())
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_pair
@every_dtype
@settings(quick, max_examples=30)
@given(shape=shapes, asked=anything)
def test_sequence_equals_steps_whatever_is_asked_for(make, runner, dtype, shape, asked) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    call = case.ask(asked)
    assert_close(case.run(**call), by_hand(case, call))


@every_pair
@every_dtype
@quick
@given(shape=shapes, asked=anything, data=st.data())
def test_any_split_equals_the_whole(make, runner, dtype, shape, asked, data) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    call = case.ask(asked._replace(reverse=False))
    cuts = data.draw(st.lists(st.integers(0, case.time), max_size=3))
    bounds = [0, *sorted(cuts), case.time]
    state, outputs = call["state"], []
    for begin, end in itertools.pairwise(bounds):
        if begin == end and runner.refuses(case.cell, Features(case.batch, 0)):
            continue
        piece = steps_of(call, begin, end)
        output, *parts = case.run(x=case.x[:, begin:end], state=state, **piece)
        state = case.cell.make_state(*parts)
        outputs.append(output)
    assert_close((torch.cat(outputs, 1), *state), case.run(**call))


@every_pair
@quick
@given(shape=shapes)
def test_no_state_is_the_initial_state(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    assume(case.can_run())
    initial = case.cell.initial_state(case.batch, case.params)
    for left, right in zip(case.run(state=None), case.run(state=initial), strict=True):
        assert torch.equal(left, right)


@every_pair
@every_dtype
@quick
@given(shape=shapes, asked=anything)
def test_rows_are_independent(make, runner, dtype, shape, asked) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    call = case.ask(asked)
    together = case.run(**call)
    for row in range(case.batch):
        own = slice(row, row + 1)
        alone = case.run(x=case.x[own], **rows_of(call, own))
        assert_close(alone, [part[own] for part in together])


@every_pair
@every_dtype
@quick
@given(shape=shapes)
def test_dtype_device_and_shape_are_kept(make, runner, dtype, shape) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    output, *final = case.run()
    assert output.shape == (case.batch, case.time, case.cell.output_size)
    assert [tuple(part.shape) for part in final] == [
        (case.batch, size) for size in case.cell.state_sizes().values()
    ]
    for value in (output, *final):
        assert value.dtype == dtype
        assert value.device == case.x.device


@every_pair
@every_dtype
@quick
@given(shape=shapes)
def test_memory_layout_does_not_matter(make, runner, dtype, shape) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())

    def spread(value: torch.Tensor) -> torch.Tensor:
        """The same values as a view with gaps, a foreign axis order and an offset."""
        gaps = torch.nan if value.is_floating_point() else True
        wide = value.new_full((*(2 * size + 1 for size in reversed(value.shape)),), gaps)
        view = wide[(slice(1, None, 2),) * value.dim()].permute(*reversed(range(value.dim())))
        view.copy_(value)
        assert value.numel() < 2 or not view.is_contiguous()
        return view

    call = case.ask(EVERYTHING)
    scattered = {name: spread(v) for name, v in call.items() if isinstance(v, torch.Tensor)}
    if "zoneout" in call:
        scattered["zoneout"] = tuple(spread(keep) for keep in call["zoneout"])
    scattered["state"] = case.cell.make_state(*(spread(part) for part in case.state))
    results = case.run(
        x=spread(case.x),
        params={name: spread(value) for name, value in case.params.items()},
        **{**call, **scattered},
    )
    assert_close(results, case.run(**call))


@every_pair
@quick
@given(shape=shapes)
def test_inputs_are_never_mutated_nor_handed_back(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    assume(case.can_run())
    case = case.fresh()
    call = case.ask(EVERYTHING)
    watched = {**case.leaves(), **{n: v for n, v in call.items() if isinstance(v, torch.Tensor)}}
    for number, keep in enumerate(call.get("zoneout", ())):
        watched[f"zoneout[{number}]"] = keep
    before = {name: value.detach().clone() for name, value in watched.items()}
    results = case.run(**call)
    sum(result.sum() for result in results).backward()
    with torch.no_grad():
        for result in results:
            result.fill_(7.0)
    for name, value in watched.items():
        assert torch.equal(value, before[name]), name


@every_pair
@quick
@given(shape=shapes)
def test_two_streams_never_touch(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    assume(case.can_run() and case.time > 0)
    other = Case.draw(make, runner, shape._replace(seed=shape.seed + 1))
    state, foreign = case.state, other.state
    alone = []
    for t in range(case.time):
        output, *parts = case.run(x=case.x[:, t : t + 1], state=state)
        state = case.cell.make_state(*parts)
        alone.append(output)
    state = case.state
    for t in range(case.time):
        output, *parts = case.run(x=case.x[:, t : t + 1], state=state)
        state = case.cell.make_state(*parts)
        _, *theirs = case.run(x=other.x[:, t : t + 1], state=foreign)
        foreign = case.cell.make_state(*theirs)
        assert torch.equal(output, alone[t])
