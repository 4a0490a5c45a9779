"""Dropout masks: multiplied onto h before the recurrent product, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.laws.cases import DTYPES, Case, anything, assert_close, pairs, quick, shapes

every_pair = pytest.mark.parametrize(("make", "runner"), pairs(masks=True))


def _scaled_columns(case: Case, factor: torch.Tensor) -> torch.Tensor:
    """weight_hh, each column times the factor of the unit of h that it is multiplied with."""
    weight = case.params["weight_hh"]
    if case.cell.structure != "block":
        return weight * factor
    blocks = weight.unflatten(0, (-1, case.cell.num_heads, case.cell.head_size))
    return (blocks * factor.view(case.cell.num_heads, 1, -1)).flatten(0, 2)


@every_pair
@pytest.mark.parametrize("dtype", DTYPES)
@quick
@given(shape=shapes)
def test_mask_on_h_is_a_factor_on_the_columns_of_weight_hh(make, runner, dtype, shape) -> None:
    case = Case.draw(make, runner, shape, dtype)
    factor = torch.rand(case.cell.output_size, generator=case.rng).to(case.x) + 0.5
    factor[0] = 0.0
    scaled = {**case.params, "weight_hh": _scaled_columns(case, factor)}
    masked = case.run(mask=factor.expand(case.batch, -1))
    assert_close(masked, case.run(params=scaled))


@every_pair
@quick
@given(shape=shapes, asked=anything)
def test_one_mask_for_all_steps_is_the_same_fresh_mask_at_each(make, runner, shape, asked) -> None:
    case = Case.draw(make, runner, shape)
    locked = case.ask(asked._replace(masks="locked"))
    mask = locked["mask"].unsqueeze(1).expand(-1, case.time, -1)
    assert_close(case.run(**locked), case.run(**{**locked, "mask": mask}))


@every_pair
@quick
@given(shape=shapes, t=st.integers(0, 4))
def test_a_fresh_mask_acts_from_its_own_step_on(make, runner, shape, t) -> None:
    case = Case.draw(make, runner, shape._replace(time=5))
    mask = case.mask(fresh=True)
    other = mask.clone()
    other[:, t] = 0.5 - other[:, t]
    for reverse in (False, True):
        output, *_ = case.run(mask=mask, reverse=reverse)
        moved, *_ = case.run(mask=other, reverse=reverse)
        before = slice(t + 1, None) if reverse else slice(0, t)
        assert torch.equal(output[:, before], moved[:, before])
