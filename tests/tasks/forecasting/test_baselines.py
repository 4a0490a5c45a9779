"""Naive forecasts and their intervals."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from recurra.tasks.forecasting import baselines

NAN = np.nan


def test_naive_repeats_the_last_observed_value() -> None:
    assert baselines.naive(np.array([1.0, 2.0, 5.0, NAN]), 3).tolist() == [5.0, 5.0, 5.0]


def test_seasonal_naive_repeats_the_last_season() -> None:
    assert baselines.seasonal_naive(np.arange(7.0), 5, 3).tolist() == [4, 5, 6, 4, 5]


def test_seasonal_naive_without_a_season_of_history_is_naive() -> None:
    assert baselines.seasonal_naive(np.array([1.0, 2.0]), 2, 7).tolist() == [2.0, 2.0]


def test_interval_of_a_ramp_is_exact_since_its_errors_never_vary() -> None:
    spread = baselines.error_quantiles(np.arange(50.0), 3, 1, (0.1, 0.5, 0.9))
    assert np.abs(spread).max() == 0.0


def test_interval_holds_its_share_of_the_errors_it_was_made_from() -> None:
    walk = np.cumsum(np.random.default_rng(0).standard_normal(4000))
    spread = baselines.error_quantiles(walk, 4, 1, (0.1, 0.5, 0.9))
    error = walk[4:] - walk[:-4]
    error = error - np.median(error)
    inside = (error >= spread[3, 0]) & (error <= spread[3, 2])
    assert inside.mean() == pytest.approx(0.8, abs=0.01)
    assert (spread[:, 1] == 0).all()


def test_interval_is_as_wide_as_the_history_changes_over_whole_seasons() -> None:
    history = np.array([0.0, 10.0, 1.0, 13.0, NAN, 19.0, 9.0])
    spread = baselines.error_quantiles(history, 5, 2, (0.0, 0.5, 1.0))
    season = [-2.0, 0.0, 3.0]  # it changed by 1, 3 and 6 over a season
    two = [-0.5, 0.0, 0.5]  # by 9 and 8 over two
    assert spread.tolist() == [season, season, two, two, [0.0, 0.0, 0.0]]  # by 9 alone over three


def test_ets_is_refused_with_a_reason() -> None:
    if importlib.util.find_spec("statsforecast") is None:
        assert "not installed" in str(baselines.why_no_ets([np.arange(50.0)], 1))
        return
    assert "3 values" in str(baselines.why_no_ets([np.arange(3.0)], 1))
    many = [np.arange(2500.0)] * 100
    assert baselines.why_no_ets(many, 1) is None
    assert "100 windows" in str(baselines.why_no_ets(many, 24))
    assert baselines.why_no_ets(many, 365) is None  # such a season is beyond it and left out


def test_ets_forecasts_a_season_that_it_can_see() -> None:
    pytest.importorskip("statsforecast", reason="needs the extra: pip install 'recurra[baselines]'")
    t = np.arange(96)
    history = 10 + 3 * np.sin(2 * np.pi * t / 12) + 0.01 * np.cos(t * t)
    made = baselines.auto_ets([history], 12, 12, (0.1, 0.5, 0.9))
    truth = 10 + 3 * np.sin(2 * np.pi * np.arange(96, 108) / 12)
    assert np.abs(made[0, :, 1] - truth).max() < 0.1
    assert (np.diff(made, axis=2) > 0).all()
