"""The Forecaster as its users see it."""

from __future__ import annotations

import contextlib
import datetime
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, several, wave

from recurra import Forecaster
from recurra.errors import ConfigError, DataError, NotFittedError, RunError
from recurra.tasks.forecasting.settings import ForecasterSettings


def median(frame: Any) -> np.ndarray:
    return np.asarray(frame["q0.5"])


def test_prediction_has_a_row_per_series_target_and_step_after_the_last_row() -> None:
    frame = several((60, 90))
    forecaster = Forecaster(horizon=3, **QUICK).fit(frame, target=("target", "other"))
    made = forecaster.predict(frame)
    assert made.columns[:4] == ["series", "time", "target", "step"]
    assert made.columns[4:] == [f"q0.{level}" for level in range(1, 10)]
    assert made["series"].to_list() == ["s0"] * 6 + ["s1"] * 6
    assert made["target"].to_list() == (["target"] * 3 + ["other"] * 3) * 2
    first = made.filter((pl.col("series") == "s1") & (pl.col("target") == "other"))["time"]
    assert [str(day)[:10] for day in first] == ["2020-04-01", "2020-04-02", "2020-04-03"]


def test_pandas_in_pandas_out_with_the_same_numbers() -> None:
    frame = several((60,))
    forecaster = fitted_on(frame)
    made = forecaster.predict(frame.to_pandas())
    assert isinstance(made, pd.DataFrame)
    assert median(made) == pytest.approx(median(forecaster.predict(frame)))


def test_predict_without_a_table_goes_on_from_training() -> None:
    frame = several((60, 90, 40))
    forecaster = fitted_on(frame, context=9, stride=2)
    assert median(forecaster.predict()) == pytest.approx(
        median(forecaster.predict(frame)), rel=1e-5
    )


@pytest.mark.parametrize("season", [1, 7])
def test_every_step_ahead_reads_the_last_observation(season: int) -> None:
    """Step 1 of a direct forecast must have seen the last row: the fault of other libraries."""
    frame = several((60,))
    forecaster = fitted_on(frame, season=season, steps=60)
    moved = frame.with_columns(
        target=pl.when(pl.arange(60) == 59).then(pl.col("target") + 2).otherwise(pl.col("target"))
    )
    change = median(forecaster.predict(moved)) - median(forecaster.predict(frame))
    assert (np.abs(change) > 1e-3).all()


def test_rows_after_the_origin_move_no_forecast() -> None:
    frame = several((90,))
    forecaster = fitted_on(frame.head(50))
    changed = frame.with_columns(
        target=pl.when(pl.arange(90) > 69).then(-pl.col("target")).otherwise(pl.col("target"))
    )
    before, after = (forecaster.evaluate(f) for f in (frame, changed))
    early = before.row <= 69
    assert early.any()
    for model in ("recurra", "naive"):
        same = before.forecasts[model][early] == after.forecasts[model][early]
        assert same.all(), model


def test_training_does_not_see_rows_after_until() -> None:
    frame = several((90,))
    changed = frame.with_columns(
        target=pl.when(pl.arange(90) > 59).then(1e6).otherwise(pl.col("target"))
    )
    last = str(frame["time"][59])
    made = [Forecaster(horizon=3, **QUICK).fit(f, until=last).predict() for f in (frame, changed)]
    assert made[0].equals(made[1])


def test_same_seed_same_forecast_other_seed_another() -> None:
    frame = several((60,))
    first, again, other = (median(fitted_on(frame, seed=seed).predict(frame)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_fit_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fitted_on(several((60,)))
    assert torch.equal(torch.rand(3), wanted)


def test_fit_again_forgets_the_table_before() -> None:
    forecaster = fitted_on(several((60,)))
    hours = pl.DataFrame(
        {
            "time": np.datetime64("2024-01-01T00", "us") + np.arange(80) * np.timedelta64(1, "h"),
            "target": np.arange(80.0),
        }
    )
    forecaster.fit(hours)
    assert forecaster.fitted.schema.grid.name == "1 hour"


def test_evaluate_scores_every_window_after_training_and_no_other() -> None:
    frame = several((60, 90))
    forecaster = Forecaster(horizon=7, **QUICK).fit(frame, until="2020-02-10")
    found = forecaster.evaluate(frame)
    ends = [41, 40]  # rows up to 2020-02-10 of the series that start on the 1st and the 2nd
    for n, (length, rows) in enumerate(zip((60, 90), ends, strict=True)):
        origins = found.row[found.number == n]
        assert origins.min() >= rows - 1
        assert origins.max() == length - 1 - 7
        assert (np.diff(origins) == 7).all()
        assert len(origins) == (length - rows) // 7


def test_evaluation_is_the_forecast_of_predict() -> None:
    frame = several((90,))
    forecaster = fitted_on(frame.head(60), horizon=7)
    found = forecaster.evaluate(frame)
    for window, row in enumerate(found.row):
        made = median(forecaster.predict(frame.head(int(row) + 1)))
        assert found.forecasts["recurra"][window, 0, :, 4] == pytest.approx(made, rel=1e-5)
        assert (found.actual[window, 0] == frame["target"].to_numpy()[row + 1 : row + 8]).all()


def test_scores_do_not_depend_on_how_many_windows_run_together(monkeypatch: Any) -> None:
    frame = several((60, 90, 80))
    forecaster = Forecaster(horizon=4, **QUICK).fit(frame, until="2020-02-01")
    together = forecaster.evaluate(frame).results()[0]["metrics"]
    monkeypatch.setattr("recurra.tasks.forecasting.encode.STEPS_AT_ONCE", 7)
    apart = forecaster.evaluate(frame).results()[0]["metrics"]
    assert apart == pytest.approx(together, rel=1e-6)


def test_evaluate_without_rows_after_training_says_what_to_do() -> None:
    frame = several((60,))
    with pytest.raises(DataError, match=r"no window of 5 rows lies after .* --until"):
        fitted_on(frame).evaluate(frame)


def test_more_windows_than_fit_are_refused_by_number() -> None:
    frame = several((90,))
    forecaster = fitted_on(frame.head(70), horizon=5)
    with pytest.raises(DataError, match=r"9 windows of 5 rows .* at most 4 fit"):
        forecaster.evaluate(frame, windows=9)


def test_backtest_trains_before_its_first_window_and_leaves_the_forecaster_alone() -> None:
    frame = several((90,))
    forecaster = fitted_on(frame, horizon=5)
    before = median(forecaster.predict(frame))
    found = forecaster.backtest(frame, windows=3)
    assert found.row.tolist() == [90 - 1 - 15, 90 - 1 - 10, 90 - 1 - 5]
    by_hand = fitted_on(frame.head(75), horizon=5).evaluate(frame, windows=3)
    assert (found.forecasts["recurra"] == by_hand.forecasts["recurra"]).all()
    assert (median(forecaster.predict(frame)) == before).all()


def test_backtest_with_refit_each_is_a_loop_of_fits() -> None:
    frame = several((80,))
    found = Forecaster(horizon=5, **QUICK).backtest(frame, windows=2, refit="each")
    for window, rows in enumerate((70, 75)):
        made = median(fitted_on(frame.head(rows), horizon=5).predict(frame.head(rows)))
        assert found.forecasts["recurra"][window, 0, :, 4] == pytest.approx(made, rel=1e-5)


def test_missing_targets_are_no_part_of_the_loss() -> None:
    """Rows that are missing could hold anything: as NaN, or not in the table at all."""
    frame = several((80,))
    holes = pl.arange(80).is_in([20, 21, 22, 50])
    as_nan = frame.with_columns(target=pl.when(~holes).then(pl.col("target")))
    absent = frame.filter(~holes)
    first, second = (median(fitted_on(f).predict(f)) for f in (as_nan, absent))
    assert np.isfinite(first).all()
    assert (first == second).all()


def test_series_shorter_than_the_window_are_forecast() -> None:
    frame = several((60, 3, 1))
    made = median(fitted_on(frame).predict(frame))
    assert np.isfinite(made).all()


def test_constant_series_is_forecast_by_its_value() -> None:
    frame = ramp(60).with_columns(target=pl.lit(5.0))
    made = fitted_on(frame).predict(frame)
    assert np.asarray(made["q0.5"]) == pytest.approx(5.0, abs=1e-3)


def test_zero_series_is_forecast_as_zero() -> None:
    frame = ramp(60).with_columns(target=pl.lit(0.0))
    assert np.abs(median(fitted_on(frame).predict(frame))).max() < 1e-3


def test_positive_target_meets_zero_later_without_harm() -> None:
    frame = several((80,))
    forecaster = fitted_on(frame)
    assert forecaster.fitted.schema.logarithm == (True,)
    later = frame.with_columns(
        target=pl.when(pl.arange(80) > 70).then(0.0).otherwise(pl.col("target"))
    )
    assert np.isfinite(median(forecaster.predict(later))).all()


def test_new_series_of_another_size_keeps_its_size() -> None:
    frame = pl.DataFrame({"series": ["a"] * 99, "time": days(99), "target": 100 * wave(99)})
    forecaster = fitted_on(frame)
    assert forecaster.fitted.schema.logarithm == (True,)
    small = frame.with_columns(series=pl.lit("b"), target=pl.col("target") / 1e4)
    assert median(forecaster.predict(small)) == pytest.approx(
        median(forecaster.predict(frame)) / 1e4, rel=1e-3
    )


@pytest.mark.parametrize("force", [True, False])
def test_refused_fit_leaves_the_run_that_is_there(tmp_path: Path, force: bool) -> None:
    frame = several((60,))
    Forecaster(horizon=3, **QUICK).fit(frame, out=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    one_row = frame.head(1)
    with pytest.raises((DataError, RunError)):
        Forecaster(horizon=3, **QUICK).fit(one_row, out=tmp_path / "run", force=force)
    if not torch.cuda.is_available():
        with pytest.raises((ConfigError, RunError)):
            Forecaster(horizon=3, device="cuda", **QUICK).fit(
                frame, out=tmp_path / "run", force=force
            )
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")} == before


def test_until_between_rows_is_the_row_before_and_a_date_is_the_whole_day() -> None:
    hours = np.datetime64("2024-01-01T00", "us") + np.arange(24 * 20) * np.timedelta64(1, "h")
    hourly = pl.DataFrame({"time": hours, "target": wave(480, 24)})
    forecaster = Forecaster(horizon=3, **QUICK).fit(hourly, until="2024-01-15")
    assert str(forecaster.predict()["time"][0]) == "2024-01-16 00:00:00"
    forecaster.fit(hourly, until="2024-01-15 06:30")
    assert str(forecaster.predict()["time"][0]) == "2024-01-15 07:00:00"


@pytest.mark.parametrize("name", ["step", "target"])
def test_columns_that_would_meet_those_of_forecasts_are_refused(name: str) -> None:
    frame = ramp(60).rename({"target": "units"}).rename({"time": name})
    with pytest.raises(ConfigError, match=f"column '{name}' has a name that forecasts use"):
        Forecaster(horizon=3, **QUICK).fit(frame, time=name, target="units")


def test_values_too_large_to_square_are_refused() -> None:
    frame = ramp(60).with_columns(target=pl.when(pl.arange(60) == 30).then(1e200).otherwise(-1.0))
    with pytest.raises(DataError, match=r"1e\+200; expected values up to 1e\+100"):
        fitted_on(frame)


def test_covariate_unknown_at_first_lets_no_later_value_in() -> None:
    frame = several((90,))
    late = frame.with_columns(price=pl.when(pl.arange(90) >= 70).then(pl.col("price")))
    other = late.with_columns(price=5 - 3 * pl.col("price"))
    forecaster = Forecaster(horizon=5, **{**QUICK, "steps": 30})
    forecaster.fit(frame, past="price", until="2020-02-20")
    first, second = (forecaster.evaluate(f) for f in (late, other))
    early = first.row < 69
    assert early.any()
    same = first.forecasts["recurra"][early] == second.forecasts["recurra"][early]
    assert same.all()


def test_target_that_was_never_negative_is_never_forecast_to_be() -> None:
    rain = np.maximum(np.random.default_rng(0).normal(-1, 3, 120), 0.0)
    rain[-10:] = 0.0
    frame = ramp(120).with_columns(target=pl.Series(rain))
    made = fitted_on(frame).predict(frame).select(pl.col("^q.*$")).to_numpy()
    assert made.min() == 0.0 < made.max()
    swing = frame.with_columns(target=pl.col("target") - 1)
    made = fitted_on(swing).predict(swing).select(pl.col("^q.*$")).to_numpy()
    assert made.min() < 0.0


def test_save_and_load_give_the_same_bits(tmp_path: Path) -> None:
    frame = several((60, 90))
    forecaster = fitted_on(frame)
    forecaster.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run")
    assert again.predict(frame).equals(forecaster.predict(frame))
    assert again.predict().equals(forecaster.predict())
    assert again.settings == forecaster.settings


def test_forecasts_without_a_table_are_frames_of_the_kind_trained_on() -> None:
    frame = ramp(40).to_pandas()
    forecaster = Forecaster(horizon=3, **QUICK).fit(frame)
    assert isinstance(forecaster.predict(), pd.DataFrame)
    assert isinstance(forecaster.sample(count=2), pd.DataFrame)
    assert isinstance(forecaster.fine_tune(pl.from_pandas(frame)).predict(), pl.DataFrame)


def test_unfitted_forecaster_says_so() -> None:
    forecaster = Forecaster(horizon=3)
    for call in (forecaster.predict, forecaster.stream, lambda: forecaster.save("nowhere")):
        with pytest.raises(NotFittedError, match="has not been trained; call fit"):
            call()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"horizon": 0}, "horizon=0"),
        ({"horizon": 3, "cell": "grru"}, "cell='grru'"),
        ({"horizon": 3, "quantile_levels": (0.1, 0.9)}, "must contain 0.5"),
        ({"horizon": 3, "quantile_levels": (0.9, 0.5)}, "must rise strictly"),
        ({"horizon": 3, "training": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"horizon": 3, "minutes": 1, "steps": 5}, "steps=5 and minutes=1"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Forecaster(**arguments)


def test_a_check_with_words_of_its_own_is_cited_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Forecaster(horizon=3, quantile_levels=(0.1, 0.9))
    assert str(caught.value) == (
        "quantile_levels=[0.1, 0.9] must contain 0.5: the median is the point forecast."
    )


def test_settings_by_name_are_checked_and_the_nearest_is_named() -> None:
    made = Forecaster.from_settings({"horizon": 3, "hidden_size": 8})
    assert made.settings == Forecaster(horizon=3, hidden_size=8).settings
    with pytest.raises(ConfigError, match="'hiden_size'; did you mean 'hidden_size'"):
        Forecaster.from_settings({"horizon": 3, "hiden_size": 8})


def test_arguments_have_the_defaults_of_the_settings() -> None:
    parameters = inspect.signature(Forecaster).parameters
    fields = ForecasterSettings.model_fields
    assert set(parameters) == {*fields, "progress"}
    defaults = ForecasterSettings(horizon=3)
    for name in fields.keys() - {"horizon", "training"}:
        assert parameters[name].default == getattr(defaults, name), name


def test_until_leaves_out_the_known_future_too() -> None:
    frame = several((60,))
    forecaster = Forecaster(horizon=4, **QUICK).fit(frame, future="promo", until="2020-02-09")
    other = frame.with_columns(
        promo=pl.when(pl.arange(60) > 39).then(~pl.col("promo")).otherwise(pl.col("promo"))
    )
    again = Forecaster(horizon=4, **QUICK).fit(other, future="promo", until="2020-02-09")
    for before, after in zip(
        forecaster.fitted.network.parameters(), again.fitted.network.parameters(), strict=True
    ):
        assert torch.equal(before, after)
    assert forecaster.fitted.schema.future_scale == again.fitted.schema.future_scale


def test_covariates_are_centred_and_scaled_by_training() -> None:
    frame = several((60,)).with_columns(price=1000 + 50 * pl.col("price"))
    forecaster = Forecaster(horizon=4, **QUICK).fit(frame, past="price")
    scale = forecaster.fitted.schema.past_scale
    seen = scale.apply(forecaster.read(frame).series[0].past)
    assert abs(seen.mean()) < 1e-9
    assert seen.std() == pytest.approx(1.0)


def test_unknown_column_lists_the_nearest() -> None:
    with pytest.raises(DataError, match="unknown column 'targt'; did you mean 'target'"):
        Forecaster(horizon=3, **QUICK).fit(several((60,)), target="targt")


def test_until_before_the_first_row_is_refused() -> None:
    with pytest.raises(DataError, match="until=1999-01-01 is before every row"):
        Forecaster(horizon=3, **QUICK).fit(several((60,)), until="1999-01-01")


def test_future_covariates_that_end_too_early_are_named() -> None:
    frame = several((60,))
    forecaster = Forecaster(horizon=4, **QUICK).fit(frame, future="promo")
    with pytest.raises(DataError, match=r"'s0'.*promo.*missing at 2020-03-01.*4 steps"):
        forecaster.predict(frame)


def test_resume_on_another_table_is_refused(tmp_path: Path) -> None:
    frame = several((60,))
    Forecaster(horizon=3, **QUICK).fit(frame, out=tmp_path / "run")
    other = frame.with_columns(target=pl.col("target") + 1)
    with pytest.raises(RunError, match="other rows or columns"):
        Forecaster(horizon=3, **QUICK).fit(other, out=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=r"seed=0 \(now 1\)"):
        Forecaster(horizon=3, seed=1, **QUICK).fit(frame, out=tmp_path / "run", resume=True)


def test_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    frame = several((60,))
    forecaster = Forecaster(horizon=3, **QUICK).fit(frame, out=tmp_path / "run")
    with pytest.raises(RunError, match="--force"):
        forecaster.save(tmp_path / "run")
    forecaster.save(tmp_path / "run", force=True)


CELLS = st.none() | st.floats(-1e9, 1e9, allow_nan=False) | st.just(float("nan")) | st.just(0.0)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 60), CELLS), min_size=1, max_size=40),
    st.booleans(),
)
def test_random_table_gives_finite_forecasts_or_a_clear_error(
    rows: list[tuple[int, float | None]], positive: bool
) -> None:
    start = datetime.date(2023, 1, 1)
    values = [abs(v) + 1 if positive and v is not None else v for _, v in rows]
    frame = pl.DataFrame(
        {
            "time": [start + datetime.timedelta(day) for day, _ in rows],
            "target": pl.Series(values, dtype=pl.Float64),
        }
    )
    forecaster = Forecaster(horizon=3, **QUICK, frequency="1d", duplicates="last")
    if sum(value is not None and np.isfinite(value) for value in dict(rows).values()) <= 3:
        with contextlib.suppress(DataError):
            forecaster.fit(frame)
        return
    made = forecaster.fit(frame).predict(frame)
    quantiles = made.select(pl.col("^q.*$")).to_numpy()
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("weather/seattle-weather.csv", {"time": "date", "target": "temp_max", "past": "weather"}),
        ("stocks/stocks.csv", {"time": "date", "target": "price", "series": "symbol"}),
        ("ett/ETTh1.csv.xz", {"time": "date", "target": ("OT", "HUFL")}),
        ("classic/AirPassengers.csv", {"time": "Month", "target": "#Passengers"}),
    ],
)
def test_real_tables_are_forecast(
    data_file: Callable[[str], Path], file: str, arguments: dict[str, Any]
) -> None:
    forecaster = Forecaster(horizon=6, **QUICK)
    forecaster.fit(data_file(f"forecasting/{file}"), **arguments)
    made = forecaster.predict().select(pl.col("^q.*$")).to_numpy()
    assert np.isfinite(made).all()
