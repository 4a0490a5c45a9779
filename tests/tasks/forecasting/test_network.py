"""The forking network: its start is the baseline, its quantiles do not cross."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.tasks.forecasting.tables import ramp, read, several, wave

from recurra import Forecaster
from recurra.errors import ConfigError
from recurra.tasks.forecasting.baselines import naive, seasonal_naive
from recurra.tasks.forecasting.fitted import Fitted, make_network
from recurra.tasks.forecasting.schema import learn_schema
from recurra.tasks.forecasting.settings import ModelSettings

LEVELS = (0.1, 0.5, 0.9)


def untrained(frame, baseline: str, horizon: int = 5, **settings) -> Fitted:
    table = read(frame)
    schema = learn_schema(table, baseline)
    shape = {"horizon": horizon, "context": 14, "season": 1, "stride": 1, "sequence_length": 4}
    model = ModelSettings(**{**shape, "hidden_size": 8, "quantile_levels": LEVELS, **settings})
    torch.manual_seed(0)
    return Fitted(schema, model, make_network(schema, model).eval(), {}, {})


@pytest.mark.parametrize("horizon", [1, 5, 17])
@pytest.mark.parametrize(
    ("baseline", "season"), [("naive", 1), ("naive", 7), ("seasonal_naive", 7)]
)
def test_untrained_median_is_the_baseline(baseline: str, season: int, horizon: int) -> None:
    frame = several((60,))
    fitted = untrained(frame, baseline, horizon, season=season)
    series = read(frame).series
    made = fitted.quantiles(series, np.array([0]), np.array([50]))[0, 0, :, 1]
    history = series[0].target[:51, 0]
    wanted = naive(history, horizon) if baseline == "naive" else seasonal_naive(history, horizon, 7)
    assert made == pytest.approx(wanted, rel=1e-5)


def test_skip_may_start_further_back_than_a_season() -> None:
    frame = several((60,))
    fitted = untrained(frame, "seasonal_naive", 5, season=3, context=14, skip=9)
    series = read(frame).series
    made = fitted.quantiles(series, np.array([0]), np.array([50]))[0, 0, :, 1]
    assert made == pytest.approx(seasonal_naive(series[0].target[:51, 0], 5, 9), rel=1e-5)


@pytest.mark.parametrize("baseline", ["naive", "seasonal_naive"])
def test_profile_leaves_the_untrained_median_at_the_baseline(baseline: str) -> None:
    frame = several((60,))
    fitted = untrained(frame, baseline, 5, season=7, profile=3)
    series = read(frame).series
    made = fitted.quantiles(series, np.array([0]), np.array([50]))[0, 0, :, 1]
    history = series[0].target[:51, 0]
    wanted = naive(history, 5) if baseline == "naive" else seasonal_naive(history, 5, 7)
    assert made == pytest.approx(wanted, rel=1e-5)


def test_skip_beyond_the_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="skip=15 looks back beyond the window of context=14"):
        untrained(several((60,)), "seasonal_naive", season=3, skip=15)


def test_untrained_season_longer_than_the_window_is_not_smeared_when_it_is_short() -> None:
    frame = ramp(100).with_columns(target=wave(100, noise=0) - 10)
    fitted = untrained(frame, "seasonal_naive", 7, season=7, context=5)
    made = fitted.quantiles(read(frame).series, np.array([0]), np.array([90]))[0, 0, :, 1]
    assert made == pytest.approx(frame["target"].to_numpy()[84:91], abs=1e-4)


def test_untrained_long_season_starts_at_last_season_smoothed() -> None:
    frame = ramp(90, start=-45.0)
    fitted = untrained(frame, "seasonal_naive", season=20)
    made = fitted.quantiles(read(frame).series, np.array([0]), np.array([80]))[0, 0, :, 1]
    assert made == pytest.approx(80 - 45 - 20 + np.arange(1, 6), abs=1e-4)


def test_untrained_interval_is_a_normal_one_of_the_step_s_scale() -> None:
    fitted = untrained(ramp(60, start=-20.0), "naive")
    made = fitted.quantiles(read(ramp(60, start=-20.0)).series, np.array([0]), np.array([40]))[0, 0]
    # The mean step of the ramp is 1, so the 10 % quantile is 1.28 below the last value.
    floor = 0.05 * np.std(np.arange(41))
    assert made[:, 1] - made[:, 0] == pytest.approx(1.2816 * max(1.0, floor), rel=1e-3)


def test_quantiles_never_cross_whatever_the_weights() -> None:
    frame = several((60,))
    fitted = untrained(frame, "naive")
    torch.manual_seed(3)
    for parameter in fitted.network.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    rows = np.arange(20, 55)
    made = fitted.quantiles(read(frame).series, np.zeros_like(rows), rows)
    assert (np.diff(made, axis=3) >= 0).all()


def test_future_covariates_reach_their_own_step_ahead() -> None:
    """Trained on a target that is the covariate of the same day, the forecast follows it."""
    import polars as pl

    frame = several((120,)).with_columns(
        promo=pl.Series(np.random.default_rng(1).random(120) > 0.5)
    )
    frame = frame.with_columns(target=5.0 + 4.0 * pl.col("promo").cast(pl.Float64) - 7.0)
    forecaster = Forecaster(horizon=6, steps=250, hidden_size=32, progress=False, dropout=0.0)
    known = frame.with_columns(target=pl.when(pl.arange(120) < 114).then(pl.col("target")))
    forecaster.fit(known, future="promo")
    made = forecaster.predict(known)["q0.5"].to_numpy()
    truth = frame["target"].to_numpy()[114:]
    assert np.abs(made - truth).mean() < 0.5 * np.abs(truth - np.median(truth)).mean()


def test_wave_is_learned_better_than_its_baseline() -> None:
    import polars as pl
    from tests.tasks.forecasting.tables import days

    t = np.arange(400)
    values = wave(400, noise=0.3) + 2 * np.sin(2 * np.pi * t / 23)
    frame = pl.DataFrame({"time": days(400), "target": values})
    forecaster = Forecaster(horizon=5, steps=300, hidden_size=32, progress=False)
    forecaster.fit(frame, until="2020-10-31")
    mase = {r["model"]: r["metrics"]["mase"] for r in forecaster.evaluate(frame).results()}
    assert mase["recurra"] < 0.8 * min(mase["naive"], mase["seasonal_naive"])
