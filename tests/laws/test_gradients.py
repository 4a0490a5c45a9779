"""Gradients of x, every parameter and the initial state, from outputs and final state together."""

from __future__ import annotations

import pytest
import torch
from tests.laws.cases import Case, Shape, pairs

# Unsorted, with a row without any step, a full one, and one that ends in between.
LENGTHS = [2, 0, 4]


def _with(label: str, times: tuple[int, ...] = (4,), **features: bool) -> list[object]:
    return [
        pytest.param(*p.values, features, time, id=f"{p.id}-{label}-{time}")
        for p in pairs(**features)
        for time in times
    ]


CASES = [
    *_with("plain", (1, 4)),
    *_with("reverse", reverse=True),
    *_with("lengths", lengths=True),
    *_with("lengths-reverse", lengths=True, reverse=True),
    *_with("reset", reset=True),
    *_with("masks", masks=True),
    *_with("zoneout", zoneout=True),
    *_with("everything", (1, 4), lengths=True, reset=True, masks=True, zoneout=True),
    *_with("everything-reverse", lengths=True, reset=True, masks=True, zoneout=True, reverse=True),
]


@pytest.mark.parametrize(("make", "runner", "features", "time"), CASES)
def test_gradients_agree_with_finite_differences(make, runner, features, time) -> None:
    shape = Shape(batch=3, time=time, input=2, hidden=3, batch_first=True, seed=5)
    case = Case.draw(make, runner, shape).fresh()
    call: dict[str, object] = {}
    if features.get("lengths"):
        call["lengths"] = torch.tensor(LENGTHS, device=case.x.device).clamp(max=time)
    if features.get("reset"):
        call["reset"] = case.resets()
    if features.get("masks"):
        call["mask"] = case.mask(fresh=len(features) > 1)
    if features.get("zoneout"):
        call["zoneout"] = case.zoneout(drawn=len(features) > 1)
    call["reverse"] = features.get("reverse", False)
    names, parts = list(case.params), len(case.state)

    def function(x, *rest):
        state = case.cell.make_state(*rest[:parts])
        params = dict(zip(names, rest[parts:], strict=True))
        return case.run(x=x, state=state, params=params, **call)

    # Every single number where most is asked for; one random direction of each tensor elsewhere.
    every_number = time > 1 and len(features) > 1
    torch.autograd.gradcheck(
        function,
        (case.x, *case.state, *case.params.values()),
        eps=1e-6,
        atol=1e-8,
        rtol=1e-6,
        nondet_tol=1e-9,  # cuDNN sums weight gradients in no fixed order
        fast_mode=not every_number,
    )
