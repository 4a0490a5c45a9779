"""Lengths: what lies in the padding, NaN included, changes neither values nor gradients."""

from __future__ import annotations

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
)

every_pair = pytest.mark.parametrize(("make", "runner"), pairs(lengths=True))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_pair
@every_dtype
@quick
@given(shape=shapes, reverse=st.booleans())
def test_each_row_runs_as_if_it_were_alone_and_whole(make, runner, dtype, shape, reverse) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    lengths = case.lengths()
    output, *final = case.run(lengths=lengths, reverse=reverse)
    for row, length in enumerate(lengths.tolist()):
        own = slice(row, row + 1)
        assert not output[row, length:].any(), "outputs past the end are 0"
        state = case.cell.make_state(*(part[own] for part in case.state))
        if length == 0:
            expected = (output[own, :0], *state)
        else:
            expected = case.run(x=case.x[own, :length], state=state, reverse=reverse)
        assert_close((output[own, :length], *(part[own] for part in final)), expected)


@every_pair
@every_dtype
@quick
@given(shape=shapes, asked=anything)
def test_padding_changes_neither_values_nor_gradients(make, runner, dtype, shape, asked) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    call = case.ask(asked._replace(lengths=True))
    padding = torch.arange(case.time, device=case.x.device) >= call["lengths"].unsqueeze(1)
    results = []
    for content in (0.0, 1e30 if shape.seed % 2 else torch.inf, torch.nan):
        other = case.fresh()
        with torch.no_grad():
            other.x[padding] = content
        values = other.run(**{**call, "state": other.state if asked.given_state else None})
        found = gradients(values, other.leaves(), shape.seed)
        assert not found["x"][padding].any()
        results.append((values, found))
    (values, found), *others = results
    for other_values, other_gradients in others:
        for left, right in zip(values, other_values, strict=True):
            assert torch.equal(left, right)
        assert_gradients_close(other_gradients, found)


@every_pair
@quick
@given(shape=shapes, extra=st.integers(0, 3))
def test_more_padding_changes_nothing(make, runner, shape, extra) -> None:
    case = Case.draw(make, runner, shape)
    assume(case.can_run())
    lengths = case.lengths()
    nothing = case.x.new_full((case.batch, extra, case.x.shape[2]), torch.nan)
    longer = torch.cat([case.x, nothing], 1)
    output, *final = case.run(x=longer, lengths=lengths)
    assert_close((output[:, : case.time], *final), case.run(lengths=lengths))
    assert not output[:, case.time :].any()


@every_pair
@quick
@given(shape=shapes)
def test_full_lengths_are_no_lengths(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    assume(case.can_run())
    full = torch.full((case.batch,), case.time, device=case.x.device)
    assert_close(case.run(lengths=full), case.run())
