"""Gradients of x, every parameter and the initial state, from outputs and final state together."""

from __future__ import annotations

import pytest
import torch
from tests.laws.cases import Case, Shape, pairs

# Unsorted, with a row without any step, a full one, and one that ends in between.
LENGTHS = [2, 0, 4]
PLAIN = [pytest.param(*p.values, {}, id=p.id) for p in pairs()]


def _with(label: str, **features: bool) -> list[object]:
    return [pytest.param(*p.values, features, id=f"{p.id}-{label}") for p in pairs(**features)]


CASES = [
    *PLAIN,
    *_with("reverse", reverse=True),
    *_with("lengths", lengths=True),
    *_with("lengths-reverse", lengths=True, reverse=True),
    *_with("reset", reset=True),
    *_with("masks", masks=True),
    *_with("everything", lengths=True, reverse=True, reset=True, masks=True),
]


@pytest.mark.parametrize(("make", "runner", "features"), CASES)
@pytest.mark.parametrize("time", [1, 4])
def test_gradients_agree_with_finite_differences(make, runner, features, time) -> None:
    shape = Shape(batch=3, time=time, input=2, hidden=3, batch_first=True, seed=5)
    case = Case.draw(make, runner, shape).fresh()
    call: dict[str, object] = {}
    if features.get("lengths"):
        call["lengths"] = torch.tensor(LENGTHS, device=case.x.device).clamp(max=time)
    if features.get("reset"):
        call["reset"] = case.resets()
    if features.get("masks"):
        call["mask"] = torch.rand(3, case.cell.output_size, generator=case.rng).to(case.x)
    call["reverse"] = features.get("reverse", False)
    names, parts = list(case.params), len(case.state)

    def function(x, *rest):
        state = case.cell.make_state(*rest[:parts])
        params = dict(zip(names, rest[parts:], strict=True))
        return case.run(x=x, state=state, params=params, **call)

    torch.autograd.gradcheck(
        function,
        (case.x, *case.state, *case.params.values()),
        eps=1e-6,
        atol=1e-8,
        rtol=1e-6,
        nondet_tol=1e-9,  # cuDNN sums weight gradients in no fixed order
    )
