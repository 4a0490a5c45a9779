"""clip_state_grad: what each step hands to the state before it is cut off, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from tests.laws.cases import (
    Case,
    Shape,
    assert_close,
    assert_gradients_close,
    gradients,
    pairs,
    quick,
    shapes,
)

LIMIT = 0.05


def unrolled(case: Case, reverse: bool) -> tuple[torch.Tensor, ...]:
    """The cell's own steps, with a hook on every state that goes into one."""
    cell, state = case.cell, case.state
    outputs = [torch.empty(0)] * case.time
    for t in reversed(range(case.time)) if reverse else range(case.time):
        parts = [part.view_as(part) for part in state]
        for part in parts:
            part.register_hook(lambda d: d.clamp(-LIMIT, LIMIT))
        projected = cell.project(case.x[:, t], case.params)
        outputs[t], state = cell.step(projected, cell.make_state(*parts), case.params)
    return torch.stack(outputs, 1), *state


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("make", "runner"), pairs(clip=True, reverse=True))
@quick
@given(shape=shapes)
def test_only_what_flows_from_step_to_step_is_cut_off(make, runner, reverse, shape) -> None:
    assume(shape.time > 0)
    case = Case.draw(make, runner, shape)
    results = []
    for clipped in (True, False):
        leaves = case.fresh()
        call = {"clip_state_grad": LIMIT, "state": leaves.state, "reverse": reverse}
        values = leaves.run(**call) if clipped else unrolled(leaves, reverse)
        results.append((values, gradients(values, leaves.leaves(), shape.seed)))
    (values, found), (true_values, true_gradients) = results
    assert_close(values, true_values, "values")
    assert_gradients_close(found, true_gradients)
    assert all(float(found[f"{name}_0"].abs().max()) <= LIMIT for name in case.cell.state_sizes())


@pytest.mark.parametrize(("make", "runner"), pairs(clip=True))
def test_a_gradient_that_is_no_number_is_not_hidden(make, runner) -> None:
    case = Case.draw(make, runner, Shape(2, 3, 4, 5, True, 7)).fresh()
    output = case.run(clip_state_grad=LIMIT)[0]
    output[0, 2].sum().mul(torch.tensor(float("nan"))).backward()
    assert bool(case.x.grad[0].isnan().any())
    assert not bool(case.x.grad[1].isnan().any())
