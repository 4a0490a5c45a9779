from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.training.schedule import cooldown_start, rate_factor, total_for_cooldown
from recurra.training.settings import TrainingSettings


def factors(total: int, **values) -> list[float]:
    settings = TrainingSettings(steps=total, **values)
    return [rate_factor(settings, step, total) for step in range(total)]


def test_cooldown_warms_up_stays_constant_and_falls_in_equal_steps_to_just_above_zero():
    course = factors(20, warmup_steps=4, cooldown_share=0.25)
    assert course[:4] == [0.25, 0.5, 0.75, 1.0]
    assert course[4:15] == [1.0] * 11
    assert course[15:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_rate_before_the_cooldown_is_the_same_whether_or_not_the_total_is_known():
    settings = TrainingSettings(steps=1000)
    start = cooldown_start(1000, settings.cooldown_share)
    assert all(
        rate_factor(settings, step, None) == rate_factor(settings, step, 1000)
        for step in range(start)
    )


@given(start=st.integers(1, 10**6), share=st.floats(0, 0.99))
def test_total_is_the_smallest_whose_cooldown_begins_at_the_step(start, share):
    total = total_for_cooldown(start, share)
    assert cooldown_start(total, share) == start == math.floor((1 - share) * total)
    assert cooldown_start(total - 1, share) < start


def scheduler_rates(scheduler: torch.optim.lr_scheduler.LRScheduler, total: int) -> list[float]:
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step() if len(rates) < total else None
    return rates


def test_one_cycle_is_the_one_of_torch():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=50, cycle_momentum=False
    )
    assert factors(50, schedule="one_cycle") == pytest.approx(scheduler_rates(scheduler, 50))


def test_cosine_is_the_one_of_torch_after_the_warm_up():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=40)
    course = factors(45, schedule="cosine", warmup_steps=5)
    assert course[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert course[5:] == pytest.approx(scheduler_rates(scheduler, 40))


@pytest.mark.parametrize("schedule", ["cooldown", "cosine", "one_cycle"])
@pytest.mark.parametrize("total", [1, 2, 3, 4])
def test_shortest_runs_have_a_rate_between_zero_and_one(schedule, total):
    assert all(0 < factor <= 1 for factor in factors(total, schedule=schedule))
