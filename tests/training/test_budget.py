from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.training.toy import PointTask, WaveTask, same_bits, timeless, weights

from recurra.training.budget import Budget
from recurra.training.loop import train
from recurra.training.settings import TrainingSettings


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("recurra.training.budget.monotonic", clock)
    return clock


class TimedTask(PointTask):
    """Each step takes what `step_s` says, each validation `validate_s`."""

    def __init__(self, clock: Clock, step_s: Callable[[int], float], validate_s: float = 0.0):
        super().__init__()
        self.clock, self.step_s, self.validate_s = clock, step_s, validate_s

    def batch(self, step, rng):
        self.clock.now_s += self.step_s(step)

    def validate(self):
        self.clock.now_s += self.validate_s
        return 1.0


def test_clock_fixes_the_total_once_when_the_cooldown_begins(clock):
    budget = Budget(TrainingSettings(minutes=1, cooldown_share=0.25))
    clock.now_s += 44.9
    assert not budget.fix_total(90)
    assert budget.total is None
    clock.now_s += 0.1
    assert budget.fix_total(91)
    assert budget.total == 122  # floor(0.75 * 122) == 91, floor(0.75 * 121) == 90
    clock.now_s += 5
    assert not budget.fix_total(95)
    assert budget.total == 122


def test_time_used_before_a_resume_counts(clock):
    budget = Budget(TrainingSettings(minutes=1), elapsed_s=50.0)
    assert budget.elapsed_s() == 50.0
    assert budget.fix_total(70)


def test_run_of_even_steps_uses_its_minutes(clock):
    result = train(TimedTask(clock, lambda step: 0.5), TrainingSettings(minutes=2), progress=False)
    assert result.stopped == "minutes"
    assert result.steps == result.total_steps == 240
    assert result.seconds == 120.0


@pytest.mark.parametrize("slowdown", [2, 5, 50])
def test_run_with_a_slow_cooldown_ends_within_110_percent(clock, slowdown):
    task = TimedTask(clock, lambda step: 0.125 if step < 336 else 0.125 * slowdown, validate_s=1.0)
    settings = TrainingSettings(minutes=1, validate_every=1000)
    result = train(task, settings, progress=False)
    assert 60.0 <= result.seconds <= 66.0
    assert result.steps < result.total_steps == 480
    assert result.stopped == "minutes"
    assert result.history[-1]["validation"] == 1.0


def test_validations_count_as_time(clock):
    settings = TrainingSettings(minutes=1, validate_every=10)
    result = train(TimedTask(clock, lambda step: 0.1, 1.0), settings, progress=False)
    assert result.steps == result.total_steps
    assert 57.0 <= result.seconds <= 63.0


def test_slow_first_step_does_not_cut_the_cooldown(clock):
    task = TimedTask(clock, lambda step: 20.0 if step == 0 else 0.1)
    result = train(task, TrainingSettings(minutes=1), progress=False)
    assert result.steps == result.total_steps


def test_first_step_longer_than_the_whole_budget_still_gives_a_result(clock):
    result = train(TimedTask(clock, lambda step: 90.0), TrainingSettings(minutes=1), progress=False)
    assert result.steps == 1


def test_run_by_the_clock_is_repeated_exactly_by_its_number_of_steps(monkeypatch):
    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr("recurra.training.budget.monotonic", clock)

        def tick(step: int) -> None:
            clock.now_s += 0.31

        by_clock = WaveTask(before=tick)
        first = train(by_clock, TrainingSettings(minutes=0.5), progress=False)
    by_steps = WaveTask()
    second = train(by_steps, TrainingSettings(steps=first.total_steps), progress=False)
    assert first.steps == second.steps == first.total_steps
    assert timeless(first.history) == timeless(second.history)
    assert same_bits(weights(by_clock.model), weights(by_steps.model))
