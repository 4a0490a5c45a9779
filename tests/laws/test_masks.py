"""Dropout masks: multiplied onto h before the recurrent product, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from tests.laws.cases import DTYPES, Case, assert_close, pairs, quick, shapes

from recurra.cells.cell import Masks

every_pair = pytest.mark.parametrize(("make", "runner"), pairs(masks=True))


@every_pair
@pytest.mark.parametrize("dtype", DTYPES)
@quick
@given(shape=shapes)
def test_mask_on_h_is_a_factor_on_the_columns_of_weight_hh(make, runner, dtype, shape) -> None:
    case = Case.draw(make, runner, shape, dtype)
    factor = torch.rand(case.cell.output_size, generator=case.rng).to(case.x) + 0.5
    factor[0] = 0.0
    scaled = {**case.params, "weight_hh": case.params["weight_hh"] * factor}
    masked = case.run(mask=factor.expand(case.batch, -1))
    assert_close(masked, case.run(params=scaled))


@every_pair
@quick
@given(shape=shapes)
def test_rows_have_masks_of_their_own(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    mask = torch.rand(case.batch, case.cell.output_size, generator=case.rng).to(case.x)
    together = case.run(mask=mask)
    for row in range(case.batch):
        own = slice(row, row + 1)
        state = case.cell.make_state(*(part[own] for part in case.state))
        alone = case.run(x=case.x[own], state=state, mask=mask[own])
        assert_close([part[own] for part in together], alone)


@every_pair
@quick
@given(shape=shapes)
def test_step_and_sequence_mask_alike(make, runner, shape) -> None:
    case = Case.draw(make, runner, shape)
    mask = torch.rand(case.batch, case.cell.output_size, generator=case.rng).to(case.x)
    output, *final = case.run(mask=mask)
    state = case.state
    for t in range(case.time):
        projected_t = case.cell.project(case.x[:, t], case.params)
        stepped, state = case.cell.step(projected_t, state, case.params, Masks(mask))
        assert_close(output[:, t], stepped)
    assert_close(final, state)
