"""Recomputing changes memory and time, and no number: outputs, final state, every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from tests.laws.cases import (
    Case,
    anything,
    assert_close,
    assert_gradients_close,
    gradients,
    pairs,
    quick,
    shapes,
)


@pytest.mark.parametrize("recompute", ["gates", 3])
@pytest.mark.parametrize(("make", "runner"), pairs())
@settings(quick, max_examples=5)
@given(shape=shapes, asked=anything)
def test_recomputing_changes_no_number(make, runner, recompute, shape, asked) -> None:
    case = Case.draw(make, runner, shape)
    assume(case.can_run())
    call = case.ask(asked._replace(recompute=None, given_state=True))
    results = []
    for setting in (None, recompute):
        leaves = case.fresh()
        values = leaves.run(**{**call, "state": leaves.state, "recompute": setting})
        results.append((values, gradients(values, leaves.leaves(), shape.seed)))
    (true_values, true_gradients), (values, found) = results
    assert_close(values, true_values, "values")
    assert_gradients_close(found, true_gradients)
    if runner.backend == "cpu" and recompute == "gates":
        assert all(torch.equal(found[name], true_gradients[name]) for name in found)
