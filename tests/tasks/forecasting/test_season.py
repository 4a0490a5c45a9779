"""Season detection on series whose season is known, real and made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.tasks.forecasting.tables import wave

from recurra.data import frequency as freq
from recurra.data.series import Columns, read_series
from recurra.tasks.forecasting.season import (
    choose_baseline,
    default_context,
    default_stride,
    design,
    detect_season,
    season_ratio,
)

RNG = np.random.default_rng(0)


def test_season_of_a_wave_is_found_among_candidates() -> None:
    assert detect_season([wave(200, period=7)], (7, 30, 365)) == 7


def test_random_walk_and_noise_have_no_season() -> None:
    walks = [np.cumsum(RNG.standard_normal(400)) for _ in range(8)]
    noise = [RNG.standard_normal(400) for _ in range(8)]
    assert detect_season(walks, (5, 12, 24)) == 1
    assert detect_season(noise, (5, 12, 24)) == 1


def test_longer_season_wins_only_when_it_is_much_closer() -> None:
    t = np.arange(24 * 7 * 6)
    day = np.sin(2 * np.pi * t / 24)
    weekend = np.where(t // 24 % 7 < 5, 1.0, 0.2)
    assert detect_season([day + 0.05 * RNG.standard_normal(len(t))], (24, 168)) == 24
    assert detect_season([day * weekend], (24, 168)) == 168


def test_season_of_some_is_taken_and_of_few_is_not() -> None:
    waves = [wave(200, seed=seed) for seed in range(8)]
    noise = [RNG.standard_normal(200) for _ in range(20)]
    assert detect_season(waves + noise[:12], (7,)) == 7
    assert detect_season(waves[:2] + noise[:18], (7,)) == 1


def test_empty_channels_do_not_hide_a_season() -> None:
    waves = [wave(200, seed=seed) for seed in range(9)]
    assert detect_season([*waves, np.full(200, np.nan)], (7, 365)) == 7


def test_sample_is_not_always_the_same_target() -> None:
    channels = []
    for seed in range(64):
        channels.append(np.cumsum(np.random.default_rng(seed).standard_normal(200)))
        channels += [wave(200, seed=3 * seed + k) for k in range(3)]
    assert detect_season(channels, (7,)) == 7


def test_season_needs_two_periods_of_data() -> None:
    assert np.isnan(season_ratio(wave(13, period=7), 7))


def test_missing_values_do_not_hide_a_season() -> None:
    values = wave(300, period=12)
    values[RNG.integers(0, 300, 60)] = np.nan
    assert detect_season([values], (12,)) == 12


@pytest.mark.parametrize(
    ("file", "time", "target", "season"),
    [
        ("weather/seattle-weather.csv", "date", "temp_max", 365),
        ("classic/AirPassengers.csv", "Month", "#Passengers", 12),
        ("ett/ETTh1.csv.xz", "date", "HUFL", 24),
        ("stocks/sp500.csv", "date", "price", 1),
    ],
)
def test_season_of_real_data(
    data_file: Callable[[str], Path], file: str, time: str, target: str, season: int
) -> None:
    table = read_series(data_file(f"forecasting/{file}"), Columns(time=time, target=(target,)))
    found = detect_season([table.series[0].target[:, 0]], table.frequency.seasons())
    assert found == season


def test_baseline_is_the_one_that_repeats_better() -> None:
    assert choose_baseline([wave(100, period=7)], 7, 14) == "seasonal_naive"
    walk = np.cumsum(RNG.standard_normal(300))
    assert choose_baseline([walk], 7, 3) == "naive"
    assert choose_baseline([walk], 1, 3) == "naive"


def test_hourly_data_gets_a_week_of_context_stepped_by_days() -> None:
    hourly = freq.parse("1h")
    context = default_context(hourly, 24, 5000)
    assert (context, default_stride(hourly, 24, context)) == (168, 24)


def test_context_is_at_most_a_third_of_short_series() -> None:
    assert default_context(freq.parse("1mo"), 12, 60) == 20
    assert default_context(freq.parse("1w"), 1, 30) == 10


def test_given_choices_are_kept() -> None:
    model = design(freq.parse("1d"), 7, 300, horizon=3, context=50, stride=5, hidden_size=9)
    assert (model.context, model.stride, model.hidden_size) == (50, 5, 9)


def test_level_is_the_last_value_below_a_day_and_else_the_network_s() -> None:
    hourly = design(freq.parse("1h"), 24, 5000, horizon=3)
    assert (hourly.level, hourly.level_rows) == (1, 1)
    daily = design(freq.parse("1d"), 7, 300, horizon=3)
    assert (daily.level, daily.level_rows) == (None, 7)
    given = design(freq.parse("1h"), 24, 5000, horizon=3, level=24)
    assert given.level_rows == 24
