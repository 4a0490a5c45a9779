"""The grid of times: index and time convert into each other, names, seasons, calendar."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.calendar import DAY, HOUR, format_time
from recurra.data.frequency import Frequency, parse
from recurra.errors import ConfigError, DataError

FREQUENCIES = st.one_of(
    st.builds(
        Frequency,
        st.just("fixed"),
        st.sampled_from([1, 1000, 15 * 60 * 10**9, HOUR, 7 * HOUR, DAY, 7 * DAY]),
        phase=st.integers(0, 10**18),
    ).map(lambda f: Frequency("fixed", f.step, phase=f.phase % f.step)),
    st.builds(
        lambda step, phase, day, clock: Frequency("month", step, phase % step, day, clock),
        st.sampled_from([1, 2, 3, 12, 24]),
        st.integers(0, 23),
        st.integers(1, 31),
        st.sampled_from([0, 6 * HOUR, DAY - 1]),
    ),
    st.builds(Frequency, st.just("business_day"), st.just(1), clock=st.sampled_from([0, 9 * HOUR])),
    st.builds(
        lambda step, phase: Frequency("integer", step, phase % step),
        st.integers(1, 1000),
        st.integers(0, 999),
    ),
)


def dates(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[ns]")


@given(FREQUENCIES, st.lists(st.integers(-80, 80), max_size=30))
def test_index_and_times_are_inverse(frequency: Frequency, indices: list[int]) -> None:
    index = np.array(indices, np.int64)
    times = frequency.times(index)
    assert frequency.index(times).tolist() == indices
    assert frequency.on_grid(times).all()


@given(FREQUENCIES, st.integers(-80, 80))
def test_times_increase_with_the_index(frequency: Frequency, start: int) -> None:
    times = frequency.times(np.arange(start, start + 40))
    assert (np.diff(times.astype(np.int64)) > 0).all()


@given(FREQUENCIES, st.integers(-80, 80))
def test_floor_is_the_grid_point_before(frequency: Frequency, start: int) -> None:
    times = frequency.times(np.array([start, start + 1]))
    before = times[1:].astype(np.int64) - 1
    if frequency.kind != "integer":
        before = before.view("datetime64[ns]")
    assert frequency.floor(before).tolist() == [start]
    assert frequency.floor(times).tolist() == [start, start + 1]


@given(FREQUENCIES)
def test_json_gives_the_same_frequency(frequency: Frequency) -> None:
    assert Frequency.from_json(json.loads(json.dumps(frequency.to_json()))) == frequency


@pytest.mark.parametrize(
    "damage", [{"step": "1"}, {"step": True}, {"kind": "weekly"}, {"step": 0}, {"extra": 1}]
)
def test_damaged_json_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Frequency.from_json({**parse("1h").to_json(), **damage})


@pytest.mark.parametrize(
    ("text", "name", "seasons"),
    [
        ("s", "1 second", (60, 3600, 86400, 604800, 31557600)),
        ("1min", "1 minute", (60, 1440, 10080, 525960)),
        ("15min", "15 minutes", (96, 672, 35064)),
        ("1h", "1 hour", (24, 168, 8766)),
        ("60min", "1 hour", (24, 168, 8766)),
        ("7h", "7 hours", (24, 1252)),
        ("1d", "1 day", (7, 365)),
        ("2 days", "2 days", (183,)),
        ("w", "1 week", (52,)),
        ("1mo", "1 month", (12,)),
        ("q", "1 quarter", (4,)),
        ("6mo", "2 quarters", (2,)),
        ("5mo", "5 months", ()),
        ("1y", "1 year", ()),
        ("b", "1 business day", (5, 261)),
        ("2i", "2 steps", ()),
    ],
)
def test_parse_names_and_seasons(text: str, name: str, seasons: tuple[int, ...]) -> None:
    frequency = parse(text)
    assert frequency.name == name
    assert frequency.seasons() == seasons
    assert parse(name) == frequency


@pytest.mark.parametrize("text", ["", "5", "1 fortnight", "0d", "2b", "-1h", "1h30min", "h1"])
def test_parse_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(ConfigError, match="15min"):
        parse(text)


def test_month_ends_follow_the_calendar() -> None:
    ends = Frequency("month", 1, day=31).times(np.arange(600, 604))
    assert [format_time(time) for time in ends] == [
        "2020-01-31",
        "2020-02-29",
        "2020-03-31",
        "2020-04-30",
    ]


def test_business_days_skip_the_weekend() -> None:
    frequency = parse("b")
    friday, monday = frequency.index(dates("2024-03-01", "2024-03-04"))
    assert monday == friday + 1
    with pytest.raises(DataError, match="2024-03-02 is not on the grid of 1 business day") as error:
        frequency.index(dates("2024-03-01", "2024-03-02"))
    assert "position 1" in str(error.value)
    assert "expected 2024-03-01 or 2024-03-04" in str(error.value)


def test_anchored_moves_the_phase_to_the_data() -> None:
    tuesdays = dates("2002-01-01", "2002-01-08", "2002-01-22")
    weekly = parse("w").anchored(tuesdays)
    assert weekly.index(tuesdays).tolist() == list(weekly.index(tuesdays)[0] + np.array([0, 1, 3]))
    fiscal = parse("q").anchored(dates("2020-02-01", "2020-05-01"))
    assert (fiscal.phase, fiscal.day) == (1, 1)


def test_months_asked_for_accept_any_day() -> None:
    last_trading_days = dates("2021-01-29", "2021-02-26", "2021-03-31")
    frequency = parse("mo").anchored(last_trading_days)
    assert np.diff(frequency.index(last_trading_days)).tolist() == [1, 1]
    after = frequency.times(frequency.index(last_trading_days)[-1:] + 1)
    assert format_time(after[0]) == "2021-04-30"
    assert parse("mo").anchored(dates("2021-02-01", "2021-03-01", "2021-05-03")).day == -1


def test_dates_and_integers_do_not_mix() -> None:
    with pytest.raises(DataError, match="times are integers, but the frequency 1 day counts dates"):
        parse("d").index(np.arange(3))
    with pytest.raises(DataError, match="times are dates, but the frequency 1 step"):
        parse("i").index(dates("2020-01-01"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1h", ["hour_of_day", "day_of_week", "day_of_year", "day_of_year2"]),
        ("1d", ["day_of_week", "day_of_year", "day_of_year2"]),
        ("1w", ["day_of_year", "day_of_year2"]),
        ("1mo", ["day_of_year", "day_of_year2"]),
        ("b", ["day_of_week", "day_of_year", "day_of_year2"]),
        ("1y", []),
        ("1i", []),
    ],
)
def test_calendar_has_the_cycles_longer_than_a_step(text: str, names: list[str]) -> None:
    frequency = parse(text)
    assert list(frequency.calendar_names) == [f"{n}_{w}" for n in names for w in ("sin", "cos")]
    values = frequency.calendar(np.arange(-5, 5))
    assert values.shape == (10, 2 * len(names))
    assert (np.abs(values) <= 1).all()


def test_calendar_knows_hour_weekday_and_day_of_year() -> None:
    hourly = parse("1h")
    index = hourly.index(dates("2024-01-01T00", "2024-01-01T06", "2024-07-01T18"))  # Mondays
    calendar = dict(zip(hourly.calendar_names, hourly.calendar(index).T, strict=True))
    np.testing.assert_allclose(calendar["hour_of_day_sin"], [0, 1, -1], atol=1e-12)
    np.testing.assert_allclose(calendar["hour_of_day_cos"], [1, 0, 0], atol=1e-12)
    weekday = np.array([0, 0.25, 0.75]) / 7
    np.testing.assert_allclose(calendar["day_of_week_sin"], np.sin(2 * np.pi * weekday), atol=1e-12)
    year = np.array([0, 0.25, 182.75]) / 366
    np.testing.assert_allclose(calendar["day_of_year_cos"], np.cos(2 * np.pi * year), atol=1e-12)
    np.testing.assert_allclose(calendar["day_of_year2_sin"], np.sin(4 * np.pi * year), atol=1e-12)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (np.datetime64("2020-01-31", "ns"), "2020-01-31"),
        (np.datetime64("2020-01-31T06:30", "ns"), "2020-01-31 06:30:00"),
        (np.datetime64("1969-12-31T23:59:59.5", "ns"), "1969-12-31 23:59:59.500000"),
        (np.int64(7), "7"),
    ],
)
def test_times_print_as_people_write_them(time: np.generic, text: str) -> None:
    assert format_time(time) == text
