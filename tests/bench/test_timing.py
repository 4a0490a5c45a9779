"""Visits by a clock that the calls themselves move on; memory of a call that is known."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

from recurra.bench.timing import peak_growth, time_calls


class Clock:
    """Moves on by the next of `steps` at every call, the last one for ever."""

    def __init__(self, *steps: float) -> None:
        self.now, self.steps, self.calls = 0.0, list(steps), 0

    def __call__(self) -> float:
        return self.now

    def call(self) -> None:
        self.calls += 1
        self.now += self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]


def test_calls_are_timed_one_by_one_after_the_warm_ups() -> None:
    clock = Clock(50.0, 3.0, 1.0, 2.0, 4.0)
    visit = time_calls(clock.call, 7.0, 1, clock=clock)
    assert clock.calls == 1 + 4  # one warm-up of 50 s; then 3 + 1 + 2 is less than 7, 4 more is not
    assert (visit.calls, visit.median, visit.low, visit.p99) == (4, 2.5, 1.0, 4.0)


def test_a_slow_call_is_warmed_up_once_and_timed_once() -> None:
    clock = Clock(30.0)
    assert time_calls(clock.call, 0.1, 3, clock=clock).calls == 1
    assert clock.calls == 2


def test_the_garbage_collector_rests_and_comes_back() -> None:
    clock, seen = Clock(1.0), []

    def call() -> None:
        seen.append(gc.isenabled())
        clock.call()

    time_calls(call, 2.0, 1, clock=clock)
    assert seen == [True, False, False]
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets the peak of memory back")
def test_the_peak_of_a_call_is_seen_after_it_was_freed() -> None:
    before = peak_growth(lambda: None)
    assert before < 8 << 20
    for mib in (64, 32):  # the second one is below the peak of the first
        grown = peak_growth(lambda mib=mib: np.ones(mib << 17).sum())  # type: ignore[misc]
        assert (mib - 4) << 20 < grown < (mib + 8) << 20
