"""Inferring the frequency: any grid with gaps is found again, irregular times are refused."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.calendar import DAY, HOUR, MINUTE, SECOND
from recurra.data.frequency import Frequency, parse
from recurra.data.infer import infer
from recurra.errors import DataError

GRIDS = st.one_of(
    st.builds(
        lambda step, phase: Frequency("fixed", step, phase % step),
        st.sampled_from([SECOND, 10 * MINUTE, 15 * MINUTE, HOUR, 7 * HOUR, DAY, 7 * DAY, 28 * DAY]),
        st.integers(0, 10**18),
    ),
    st.builds(
        lambda step, phase, day, clock: Frequency("month", step, phase % step, day, clock),
        st.sampled_from([1, 3, 6, 12]),
        st.integers(0, 11),
        st.sampled_from([1, 15, 28, 31]),
        st.sampled_from([0, 6 * HOUR]),
    ),
    st.builds(Frequency, st.just("business_day"), st.just(1), clock=st.sampled_from([0, 9 * HOUR])),
    st.builds(
        lambda step, phase: Frequency("integer", step, phase % step),
        st.integers(1, 50),
        st.integers(0, 49),
    ),
)


def dates(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[ns]")


@given(GRIDS, st.integers(-80, 80), st.sets(st.integers(1, 58), max_size=9), st.randoms())
def test_a_grid_with_gaps_is_found_again(
    grid: Frequency, start: int, absent: set[int], random: Random
) -> None:
    kept = [step for step in range(60) if step not in absent]
    random.shuffle(kept)
    times = grid.times(start + np.array(kept + kept[:5]))
    assert infer(times) == grid


@pytest.mark.parametrize(
    ("count", "strays", "step", "name"),
    [(12, 1, "h", "1 hour"), (200, 9, "h", "1 hour"), (90, 3, "b", "1 business day")],
)
def test_stray_times_do_not_change_the_step(count: int, strays: int, step: str, name: str) -> None:
    times = parse(step).times(np.arange(count))
    times[2 : 2 + 3 * strays : 3] += np.timedelta64(30, "m")
    assert infer(times).name == name


def test_two_days_in_seven_and_three_in_seven() -> None:
    weeks = dates("2024-01-01") + np.arange(20) * np.timedelta64(7, "D")
    three = np.concatenate([weeks, weeks + np.timedelta64(2, "D"), weeks + np.timedelta64(4, "D")])
    assert infer(three).name == "1 day"


def test_days_of_two_weeks_with_a_weekend_are_days() -> None:
    times = dates("2024-01-01") + np.arange(14) * np.timedelta64(1, "D")
    assert infer(times).name == "1 day"


def test_months_are_seen_from_two_dates() -> None:
    assert infer(dates("2021-02-01", "2021-03-01")).name == "1 month"
    assert infer(dates("2020-12-31", "2021-12-31")).name == "1 year"


@pytest.mark.parametrize(("offset", "day"), [("first", -1), ("last", -31)])
@pytest.mark.parametrize("step", [1, 3])
def test_trading_days_at_the_edge_of_months_are_months(offset: str, day: int, step: int) -> None:
    months = np.arange("2020-01", "2025-01", step, "datetime64[M]")
    if offset == "first":
        times = np.busday_offset(months.astype("datetime64[D]"), 0, roll="forward")
    else:
        times = np.busday_offset((months + 1).astype("datetime64[D]") - 1, 0, roll="backward")
    frequency = infer(np.delete(times, [7, 8]).astype("datetime64[ns]"))
    assert (frequency.kind, frequency.step, frequency.day) == ("month", step, day)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_times_ask_for_the_frequency(count: int) -> None:
    with pytest.raises(DataError, match=rf"{count} different time.*--freq 1d"):
        infer(np.array(["2020-01-01"] * count * 3, "datetime64[ns]"))


def test_irregular_times_are_refused_with_an_example_and_advice() -> None:
    rng = np.random.default_rng(0)
    times = dates("2020-01-01") + np.cumsum(rng.integers(1, 10**6, 50)).astype("timedelta64[s]")
    with pytest.raises(DataError, match=r"no regular grid.*Resample.*--freq"):
        infer(times)
    with pytest.raises(DataError, match="no regular grid"):
        infer(np.cumsum(rng.integers(100, 10**6, 50)))
