"""Backend equals reference: output, final state and every gradient, whatever is asked for."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.laws.cases import (
    DTYPES,
    Case,
    Runner,
    anything,
    assert_close,
    assert_gradients_close,
    gradients,
    pairs,
    quick,
    shapes,
    wide_shapes,
)

REFERENCE = Runner("reference", "cpu")
OTHERS = [param for param in pairs() if param.values[1] != REFERENCE]


@pytest.mark.parametrize(("make", "runner"), OTHERS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(quick, max_examples=40)
@given(shape=st.one_of(shapes, wide_shapes), asked=anything)
def test_backend_equals_reference(make, runner, dtype, shape, asked) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    call = case.ask(asked)
    results = []
    for runner_now in (runner, Runner("reference", runner.device)):
        leaves = case.fresh()
        state = leaves.state if asked.given_state else None
        values = leaves.run(on=runner_now, **{**call, "state": state})
        call.pop("recompute", None)  # the truth keeps everything
        results.append((values, gradients(values, leaves.leaves(), shape.seed)))
    (values, found), (true_values, true_gradients) = results
    assert_close(values, true_values, "values")
    assert_gradients_close(found, true_gradients)
