"""Backend equals reference: output, final state and every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.laws.cases import DTYPES, Case, Runner, assert_close, pairs, quick, shapes

REFERENCE = Runner("reference", "cpu")
OTHERS = [param for param in pairs() if param.values[1] != REFERENCE]


@pytest.mark.parametrize(("make", "runner"), OTHERS)
@pytest.mark.parametrize("dtype", DTYPES)
@quick
@given(shape=shapes, reverse=st.booleans(), ragged=st.booleans(), given_state=st.booleans())
def test_backend_equals_reference(make, runner, dtype, shape, reverse, ragged, given_state) -> None:
    case = Case.draw(make, runner, shape, dtype)
    assume(case.can_run())
    lengths = case.lengths() if ragged else None
    results = []
    for runner_now in (runner, Runner("reference", runner.device)):
        leaves = case.fresh()
        state = leaves.state if given_state else None
        values = leaves.run(on=runner_now, state=state, reverse=reverse, lengths=lengths)
        case.rng.manual_seed(shape.seed)
        factors = case.weights_like(values)
        sum((v * w).sum() for v, w in zip(values, factors, strict=True)).backward()
        gradients = [
            torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            for leaf in leaves.leaves().values()
        ]
        results.append((values, gradients))
    (values, gradients), (true_values, true_gradients) = results
    assert_close(values, true_values, "values")
    for name, left, right in zip(case.leaves(), gradients, true_gradients, strict=True):
        assert_close(left, right, f"gradient of {name}")
