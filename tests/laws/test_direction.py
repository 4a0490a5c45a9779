"""Reverse: the same recurrence over the row turned around."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.laws.cases import (
    DTYPES,
    Case,
    anything,
    assert_close,
    assert_gradients_close,
    gradients,
    pairs,
    quick,
    shapes,
    wide_shapes,
)

from recurra.kernels import dispatch


@pytest.mark.parametrize(("make", "runner"), pairs(reverse=True))
@pytest.mark.parametrize("dtype", DTYPES)
@quick
@given(shape=shapes)
def test_reverse_is_forward_over_the_flipped_row(make, runner, dtype, shape) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    output, *final = case.run(x=case.x.flip(1))
    assert_close(case.run(reverse=True), (output.flip(1), *final))


@pytest.mark.parametrize(("make", "runner"), pairs(reverse=True, lengths=True))
@quick
@given(shape=shapes)
def test_reverse_starts_at_the_last_real_step(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    assume(case.can_run() and case.time > 1)
    lengths = case.lengths()
    output, *_ = case.run(reverse=True, lengths=lengths)
    changed = case.x.clone()
    for row, length in enumerate(lengths.tolist()):
        changed[row, :length][:-1] += 1.0
    moved, *_ = case.run(x=changed, reverse=True, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        if length > 0:
            assert torch.equal(output[row, length - 1], moved[row, length - 1])


@pytest.mark.parametrize(("make", "runner"), [p for p in pairs() if p.values[1].dispatched])
@pytest.mark.parametrize("dtype", DTYPES)
@quick
@given(shape=st.one_of(shapes, wide_shapes), asked=anything)
def test_directions_together_are_each_on_its_own(make, runner, dtype, shape, asked) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    other = Case.draw(make, runner, shape._replace(seed=shape.seed + 1), dtype)
    lengths = case.lengths() if asked.lengths else None
    results = []
    for together in (False, True):
        case.rng.manual_seed(shape.seed)
        forward, backward = case.fresh(), replace(other.fresh(), rng=case.rng)
        calls = []
        for leaves, reverse in ((forward, False), (backward, True)):
            call = leaves.ask(asked._replace(reverse=reverse, lengths=False))
            calls.append(leaves.sequence(**{**call, "x": forward.x, "lengths": lengths}))
        if together:
            output, finals = dispatch.run_together(calls, runner.backend)
        else:
            alone = [runner.run(call) for call in calls]
            output = torch.cat([output for output, _ in alone], -1)
            finals = [final for _, final in alone]
        assert [type(final) for final in finals] == [type(case.state)] * 2
        values = (output, *(part for final in finals for part in final))
        of_backward = {f"{n} (reverse)": v for n, v in backward.leaves().items() if n != "x"}
        found = gradients(values, {**forward.leaves(), **of_backward}, shape.seed)
        results.append((values, found))
    (values, found), (values_together, found_together) = results
    assert_close(values_together, values, "values")
    assert_gradients_close(found_together, found)
