"""Calibrated quantiles hold the share of values that they say, on windows not learned from."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, wave

from recurra import Forecaster
from recurra.errors import ConfigError, DataError
from recurra.tasks.forecasting.conformal import calibrate, coverage, intervals

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def windows(count: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 1) values and the quantiles of N(0, spread²): (N, 2, 6, Q) and (N, 2, 6)."""
    actual = np.random.default_rng(seed).standard_normal((count, 2, 6))
    z = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    return np.broadcast_to(spread * z, (*actual.shape, len(LEVELS))).copy(), actual


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
def test_calibration_finds_the_quantiles_of_new_values(spread: float) -> None:
    made = calibrate(*windows(400, spread), LEVELS)
    fresh, actual = windows(4000, spread, seed=1)
    moved = made.apply(fresh, LEVELS)
    for j, level in enumerate(LEVELS):
        share = (actual <= moved[..., j]).mean()
        assert share == pytest.approx(level, abs=0.02)
    assert [c.nominal for c in made.coverage] == [0.8, 0.5]
    wide = made.coverage[0]
    assert wide.after == pytest.approx(0.8, abs=0.03)
    expected = NormalDist().cdf(spread * NormalDist().inv_cdf(0.9)) * 2 - 1
    assert wide.before == pytest.approx(expected, abs=0.03)


def test_rank_is_that_of_n_plus_one_values() -> None:
    """Of 9 scores the 0.9 quantile is the 9th, the 0.1 quantile the first."""
    quantiles = np.tile(np.array([-1.0, 0.0, 1.0]), (9, 1, 4, 1))
    actual = np.linspace(-3, 5, 36).reshape(9, 1, 4)
    made = calibrate(quantiles, actual, (0.1, 0.5, 0.9))
    score = np.sort((actual - 1.0).reshape(-1) / 2.0)
    assert made.shifts[0][0][2] == pytest.approx(score[int(np.ceil(37 * 0.9)) - 1])
    low = np.sort((actual + 1.0).reshape(-1) / 2.0)
    assert made.shifts[0][0][0] == pytest.approx(low[int(np.floor(37 * 0.1)) - 1])
    assert made.shifts[0][0][1] == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), offset=st.floats(-5, 5), holes=st.floats(0.0, 0.5))
def test_moved_quantiles_never_cross_and_keep_their_median(
    seed: int, offset: float, holes: float
) -> None:
    rng = np.random.default_rng(seed)
    quantiles = np.sort(rng.standard_normal((30, 2, 6, 5)), axis=-1)
    actual = rng.standard_normal((30, 2, 6)) * 3 + offset
    actual[rng.random(actual.shape) < holes] = np.nan
    moved = calibrate(quantiles, actual, LEVELS).apply(quantiles, LEVELS)
    assert (np.diff(moved, axis=-1) >= 0).all()
    np.testing.assert_array_equal(moved[..., 2], quantiles[..., 2])
    assert np.isfinite(moved).all()


def test_too_few_values_and_a_lone_median_are_refused() -> None:
    quantiles, actual = windows(1, 1.0)
    with pytest.raises(DataError, match=r"1 held-out windows with 6 values .* 20 values"):
        calibrate(quantiles, actual, LEVELS)
    with pytest.raises(ConfigError, match="only the median"):
        calibrate(quantiles[..., 2:3], actual, (0.5,))


def test_intervals_are_the_pairs_around_the_median() -> None:
    assert intervals((0.1, 0.3, 0.5, 0.7, 0.9)) == [(0.1, 0.9), (0.3, 0.7)]
    assert intervals((0.1, 0.5, 0.8)) == []


def noisy(count: int) -> pl.DataFrame:
    return pl.DataFrame({"time": days(count), "target": wave(count, noise=1.0)})


def test_forecasts_evaluations_and_streams_are_calibrated_and_so_after_load(tmp_path: Any) -> None:
    frame = noisy(400)
    forecaster = fitted_on(frame.head(200), context=14)
    before = forecaster.predict()
    made = forecaster.calibrate(frame.head(300))
    after = forecaster.predict()
    assert made.windows == 20
    assert after["q0.5"].equals(before["q0.5"])
    assert not after["q0.1"].equals(before["q0.1"])
    evaluation = forecaster.evaluate(frame, windows=20)
    inside = coverage(
        evaluation.forecasts["recurra"], evaluation.actual, evaluation.levels, 0.1, 0.9
    )
    assert inside == pytest.approx(0.8, abs=0.08)
    forecaster.save(tmp_path / "run")
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.predict().equals(after)
    answer = loaded.stream().push({"time": "2020-07-19", "target": 10.0})
    forecaster.update(frame.slice(200, 1).with_columns(target=pl.lit(10.0)))
    wanted = forecaster.predict()
    for name in ("q0.1", "q0.9"):
        np.testing.assert_allclose(answer["forecast"]["target"][name], wanted[name], rtol=1e-5)


def test_calibrate_again_starts_from_the_raw_quantiles() -> None:
    frame = noisy(400)
    forecaster = fitted_on(frame.head(200), context=14)
    first = forecaster.calibrate(frame)
    assert forecaster.calibrate(frame) == first


def test_setting_calibrates_on_the_rows_kept_for_validation() -> None:
    frame = noisy(300)
    forecaster = fitted_on(frame, context=14, calibrate=True)
    made = forecaster.fitted.calibration
    assert made is not None
    assert made.windows == 45 - 5 + 1  # 15 % of 300 rows, windows of 5 from every row
    plain = fitted_on(frame, context=14).predict()
    assert forecaster.predict()["q0.5"].equals(plain["q0.5"])
    assert "calibrated on 41 windows" in repr(made)


def test_calibrating_without_kept_rows_is_refused_before_training() -> None:
    forecaster = Forecaster(horizon=5, calibrate=True, validation=0.0, **QUICK)
    with pytest.raises(ConfigError, match="needs rows that are kept from training"):
        forecaster.fit(ramp(60))
