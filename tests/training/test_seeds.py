from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.training.seeds import BATCH, MODEL, seed_torch, step_seed

seeds = st.integers(0, 2**63 - 1)


@given(seeds)
def test_no_two_steps_share_their_random_numbers(seed):
    assert len({step_seed(seed, step, MODEL) for step in range(3000)}) == 3000


@given(seeds, st.integers(0, 2**40))
def test_seed_fits_the_32_bits_that_torch_reads(seed, step):
    assert 0 <= step_seed(seed, step, BATCH) < 2**32


def test_seed_and_purpose_both_change_the_draw():
    assert len({step_seed(s, 0, p) for s in range(100) for p in (BATCH, MODEL)}) == 200


def test_seeding_fixes_what_dropout_draws():
    seed_torch(7, torch.device("cpu"))
    first = torch.rand(3)
    seed_torch(7, torch.device("cpu"))
    assert torch.equal(first, torch.rand(3))
