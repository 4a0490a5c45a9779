"""Reverse: the same recurrence over the row turned around."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from tests.laws.cases import DTYPES, Case, assert_close, pairs, quick, shapes


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
