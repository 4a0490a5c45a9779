"""Zoneout: nothing kept is the plain run, all kept is a state that never moves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.laws.cases import DTYPES, Case, pairs, quick, shapes

every_pair = pytest.mark.parametrize(("make", "runner"), pairs(zoneout=True))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def _constant(case: Case, value: float, *, drawn: bool) -> tuple[torch.Tensor | float, ...]:
    sizes = case.cell.state_sizes().values()
    if not drawn:
        return (value,) * len(sizes)
    return tuple(case.x.new_full((case.batch, case.time, size), value) for size in sizes)


@every_pair
@every_dtype
@quick
@given(shape=shapes, drawn=st.booleans(), ragged=st.booleans(), reverse=st.booleans())
def test_nothing_kept_is_the_plain_run(make, runner, dtype, shape, drawn, ragged, reverse) -> None:
    case = Case.draw(make, runner, shape, dtype)
    call = {"lengths": case.lengths() if ragged else None, "reverse": reverse}
    zoned = case.run(zoneout=_constant(case, 0.0, drawn=drawn), **call)
    for left, right in zip(zoned, case.run(**call), strict=True):
        assert torch.equal(left, right)


@every_pair
@every_dtype
@quick
@given(shape=shapes, drawn=st.booleans(), reverse=st.booleans())
def test_all_kept_is_a_state_that_never_moves(make, runner, dtype, shape, drawn, reverse) -> None:
    case = Case.draw(make, runner, shape, dtype)
    output, *final = case.run(zoneout=_constant(case, 1.0, drawn=drawn), reverse=reverse)
    for t in range(case.time):
        assert case.start_of_output is None or torch.equal(output[:, t], case.start_of_output)
    for left, right in zip(final, case.state, strict=True):
        assert torch.equal(left, right)


@every_pair
@quick
@given(shape=shapes, part=st.integers(0, 3))
def test_each_part_is_kept_by_its_own_entry(make, runner, shape, part) -> None:
    case = Case.draw(make, runner, shape._replace(time=3))
    part = min(part, len(case.state) - 1)
    keep = [0.0] * len(case.state)
    keep[part] = 1.0
    output, *final = case.run(zoneout=tuple(keep))
    for index, (left, right) in enumerate(zip(final, case.state, strict=True)):
        assert torch.equal(left, right) == (index == part)
    if case.start_of_output is not None:
        kept = list(case.cell.state_sizes())[part] == case.cell.output_part
        assert torch.equal(output[:, 0], case.start_of_output) == kept


@pytest.mark.parametrize(("make", "runner"), pairs(zoneout=True, reset=True))
@quick
@given(shape=shapes)
def test_a_reset_is_not_undone_by_what_is_kept(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape._replace(time=3))
    reset = torch.zeros(case.batch, 3, dtype=torch.bool, device=case.x.device)
    reset[:, 1] = True
    output, *final = case.run(reset=reset, zoneout=_constant(case, 1.0, drawn=True))
    if case.start_of_output is not None:
        assert torch.equal(output[:, 0], case.start_of_output)
        assert not output[:, 1:].any()
    for value in final:
        assert not value.any(), "kept is the state after the reset"
