"""The report draws what it says it draws."""

from __future__ import annotations

import numpy as np
import polars as pl
from tests.tasks.forecasting.tables import QUICK, several

from recurra import Forecaster
from recurra.tasks.forecasting.report import last_window_fans, next_fans, table_fans


def fitted_on_several() -> tuple[Forecaster, pl.DataFrame]:
    frame = several((70, 80))
    forecaster = Forecaster(horizon=5, **QUICK, context=8)
    return forecaster.fit(frame, target=("target", "other"), until="2020-02-20"), frame


def test_last_window_is_that_of_its_own_series_and_target() -> None:
    forecaster, frame = fitted_on_several()
    found, table = forecaster.evaluate(frame), forecaster.read(frame)
    fans = {fan.title: fan for fan in last_window_fans(found, table)}
    assert list(fans) == ["s0: target", "s0: other", "s1: target", "s1: other"]
    for one in table.series:
        for k, target in enumerate(("target", "other")):
            fan = fans[f"{one.name}: {target}"]
            assert fan.actual is not None
            assert (fan.actual == one.target[-5:, k]).all()
            assert (fan.history == one.target[-25:-5, k]).all()
            assert fan.times[-1] == table.times(one)[-1]
            made = forecaster.predict(frame.filter(pl.col("series") == one.name).head(len(one) - 5))
            wanted = made.filter(pl.col("target") == target)["q0.5"].to_numpy()
            assert np.allclose(fan.quantiles[:, 4], wanted, rtol=1e-5)


def test_forecast_charts_hold_the_forecast_and_the_rows_before_it() -> None:
    forecaster, frame = fitted_on_several()
    known = frame.filter(pl.col("time") <= pl.date(2020, 2, 20))
    from_run = next_fans(forecaster.fitted, forecaster.fitted.states)
    from_table = table_fans(forecaster.fitted, forecaster.read(known))
    for first, second in zip(from_run, from_table, strict=True):
        assert first.title == second.title
        assert np.allclose(first.quantiles, second.quantiles, rtol=1e-5)
        rows = len(first.history)
        assert np.allclose(first.history, second.history[-rows:], rtol=1e-9)
        assert (first.times == second.times[-len(first.times) :]).all()
