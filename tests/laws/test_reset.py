"""Reset: a row starts afresh before that step, whatever it was given and whatever came before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.laws.cases import DTYPES, Case, assert_close, pairs, quick, shapes

every_pair = pytest.mark.parametrize(("make", "runner"), pairs(reset=True))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_pair
@every_dtype
@quick
@given(shape=shapes, reverse=st.booleans(), ragged=st.booleans())
def test_reset_is_a_fresh_start(make, runner, dtype, shape, reverse, ragged) -> None:
    case = Case.draw(make, runner, shape, dtype)
    reset = case.resets()
    lengths = case.lengths() if ragged else None
    output, *final = case.run(reset=reset, reverse=reverse, lengths=lengths)
    for row in range(case.batch):
        length = case.time if lengths is None else int(lengths[row])
        own = slice(row, row + 1)
        state = case.cell.make_state(*(part[own] for part in case.state))
        steps = range(length - 1, -1, -1) if reverse else range(length)
        for t in steps:
            x = case.x[own, t : t + 1]
            step, *parts = case.run(x=x, state=None if reset[row, t] else state)
            state = case.cell.make_state(*parts)
            assert_close(output[own, t : t + 1], step, f"row {row}, step {t}")
        assert_close([part[own] for part in final], state, f"final state of row {row}")


@every_pair
@quick
@given(shape=shapes)
def test_reset_before_the_first_step_forgets_the_state_passed_in(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape).fresh()
    reset = torch.zeros(case.batch, case.time, dtype=torch.bool, device=case.x.device)
    reset[:, :1] = True
    results = case.run(reset=reset)
    if case.time == 0:
        assert_close(results[1:], case.state)
        return
    assert_close(results, case.run(state=None))
    gradients = torch.autograd.grad(
        sum(result.sum() for result in results), case.state, materialize_grads=True
    )
    assert not any(gradient.any() for gradient in gradients)


@every_pair
@quick
@given(shape=shapes)
def test_no_true_flag_is_no_reset(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    never = torch.zeros(case.batch, case.time, dtype=torch.bool, device=case.x.device)
    for left, right in zip(case.run(reset=never), case.run(), strict=True):
        assert torch.equal(left, right)


@every_pair
@quick
@given(shape=shapes)
def test_reset_stops_nan_from_going_on(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape._replace(time=4))
    reset = torch.zeros(case.batch, 4, dtype=torch.bool, device=case.x.device)
    reset[:, 2] = True
    poisoned = case.x.clone()
    poisoned[:, :2] = torch.nan
    output, *final = case.run(x=poisoned, reset=reset)
    clean, *expected = case.run(reset=reset)
    assert_close((output[:, 2:], *final), (clean[:, 2:], *expected))
