"""What the network sees: normalised by the past alone, and shifted by nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.forecasting.tables import ramp, read, several

from recurra.data.series import Columns, read_series
from recurra.errors import ConfigError
from recurra.tasks.forecasting.features import (
    Steps,
    extra_size,
    future_size,
    make_future,
    make_steps,
)
from recurra.tasks.forecasting.panel import Panel, RunningScale, fill_forward
from recurra.tasks.forecasting.schema import build_panel, learn_schema
from recurra.tasks.forecasting.settings import ModelSettings

HORIZON = 4


def model(**changes: Any) -> ModelSettings:
    usual = {"horizon": HORIZON, "context": 6, "season": 1, "stride": 2, "sequence_length": 3}
    return ModelSettings(**{**usual, **changes})


def panel_of(frame: pl.DataFrame, **roles: Any) -> Panel:
    table = read(frame, **roles)
    return build_panel(table.series, learn_schema(table, "naive"), HORIZON)


def steps_of(frame: pl.DataFrame, settings: ModelSettings, rows: list[int], **roles: Any) -> Steps:
    """Steps at the given rows of the first channel."""
    first = torch.zeros(len(rows), dtype=torch.long)
    return make_steps(panel_of(frame, **roles), first, torch.tensor(rows), settings)


def test_window_of_a_ramp_holds_the_last_rows_in_order() -> None:
    frame = ramp(40, start=-20.0)  # not positive, so not on a logarithm
    made = steps_of(frame, model(), [10, 30])
    raw = made.window.double() * made.scale + made.level
    assert raw[0].round().tolist() == [-15, -14, -13, -12, -11, -10]
    assert raw[1].round().tolist() == [5, 6, 7, 8, 9, 10]


def test_window_before_the_first_row_repeats_it() -> None:
    made = steps_of(ramp(40, start=-20.0), model(), [2])
    raw = made.window.double() * made.scale + made.level
    assert raw[0].round().tolist() == [-20, -20, -20, -20, -19, -18]


def test_level_is_the_last_value_without_a_season_and_the_season_s_mean_with_one() -> None:
    frame = ramp(40, start=-20.0)
    assert steps_of(frame, model(), [10]).level.item() == -10
    assert steps_of(frame, model(season=5), [10]).level.item() == -12


@pytest.mark.parametrize(("season", "level", "wanted"), [(5, 3, -11), (1, 6, -12.5), (5, 1, -10)])
def test_level_is_the_mean_of_as_many_rows_as_are_asked_for(
    season: int, level: int, wanted: float
) -> None:
    made = steps_of(ramp(40, start=-20.0), model(season=season, level=level), [10])
    assert made.level.item() == wanted
    spread = 1.0 if level == 1 else np.abs(np.arange(-15, -9) - wanted).mean()
    assert made.scale.item() == pytest.approx(spread)


def test_level_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"level=7 is the mean of more rows .* context=6"):
        model(level=7)


def test_long_season_shows_the_smoothed_rows_of_last_season() -> None:
    settings, frame = model(season=20), ramp(80, start=-40.0)
    made = steps_of(frame, settings, [60, 10])
    future = make_future(panel_of(frame), made, settings)
    value, exists = future[0, :, -2].double() * made.scale[0], future[:, :, -1]
    # Row 60 + k − 20 has value 60 + k − 20 − 40, and the mean around it is the same on a ramp.
    assert (value + made.level[0]).round().tolist() == [1, 2, 3, 4]
    assert exists.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]


def test_profile_is_the_mean_shape_of_the_whole_seasons_before() -> None:
    # Seasons of 4 rows that add 0, 1, 2, 3 times a height to levels which move.
    rows = np.arange(40)
    heights, levels = (rows // 4) ** 2, 100 * (rows // 4)
    frame = ramp(40).with_columns(target=pl.Series(levels + heights * (rows % 4) - 500.0))
    settings = model(horizon=6, season=4, context=5, profile=3)
    made = steps_of(frame, settings, [27, 9])
    assert made.window.shape == (2, settings.window_size) == (2, 5 + 4)
    profile = made.window[:, 5:].double() * made.scale
    # Row 27 ends seasons 4, 5 and 6; before row 9 one season, of rows 6 to 9, is known whole, and
    # another, of rows 2 to 5.
    expected = np.mean([16, 25, 36]) * np.array([-1.5, -0.5, 0.5, 1.5])
    assert profile[0].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    values = frame["target"].to_numpy()[2:10].reshape(2, 4)
    expected = (values - values.mean(1, keepdims=True)).mean(0)
    assert profile[1].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_profile_of_longer_periods_shows_the_steps_ahead() -> None:
    frame = ramp(60, start=-20.0)
    settings = model(season=3, skip=6, profile=2, context=7)
    made = steps_of(frame, settings, [30, 4])
    profile = made.window[:, 7:].double() * made.scale
    assert profile[0].tolist() == pytest.approx([-2.5, -1.5, -0.5, 0.5], rel=1e-5)
    assert profile[1].tolist() == [0, 0, 0, 0]  # no season of 6 rows is over at row 4


def test_profile_without_a_season_is_refused() -> None:
    with pytest.raises(ConfigError, match="profile=2 needs a season of two rows or more, and seas"):
        model(profile=2)


@pytest.mark.parametrize(("season", "profile"), [(1, 0), (3, 0), (20, 0), (3, 4)])
def test_changing_the_future_moves_no_feature(season: int, profile: int) -> None:
    settings = model(season=season, profile=profile)
    frame = several((60,))
    roles = {"past": ("price", "sky"), "future": ("promo",), "static": ("size",)}
    late = pl.arange(60) > 30
    changed = frame.with_columns(
        target=pl.when(late).then(pl.col("target") * 7).otherwise(pl.col("target")),
        price=pl.when(late).then(-5.0).otherwise(pl.col("price")),
    )
    # The scales of covariates and the logarithm belong to the training table: fixed for both.
    table, other = (read(f, **roles) for f in (frame, changed))
    schema = learn_schema(table, "naive")
    row = torch.arange(31)
    panels = [build_panel(t.series, schema, HORIZON) for t in (table, other)]
    before, after = (make_steps(p, torch.zeros_like(row), row, settings) for p in panels)
    for name in ("window", "extra", "level", "scale"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    first, second = (make_future(p, before, settings) for p in panels)
    assert torch.equal(first, second)


def test_changing_the_last_row_moves_the_features() -> None:
    frame = several((60,))
    changed = frame.with_columns(
        target=pl.when(pl.arange(60) == 59).then(pl.col("target") * 1.5).otherwise(pl.col("target"))
    )
    before, after = (steps_of(f, model(), [59]) for f in (frame, changed))
    assert not torch.equal(before.level, after.level)


def test_features_do_not_depend_on_units() -> None:
    frame = ramp(60).with_columns(target=pl.col("target") + 20 * (pl.arange(60) % 5))
    scaled = frame.with_columns(target=pl.col("target") * 1000)
    before, after = (steps_of(f, model(season=5), [20, 40]) for f in (frame, scaled))
    assert torch.allclose(before.window, after.window, atol=1e-5)
    assert torch.allclose(before.extra, after.extra, atol=1e-5)


def test_sizes_are_as_announced() -> None:
    roles = {"past": ("price", "sky"), "future": ("promo",), "static": ("size",)}
    table = read(several((60, 50)), **roles)
    schema = learn_schema(table, "naive")
    past, future, static = 3, 1 + len(schema.grid.calendar_names), 1
    panel = build_panel(table.series, schema, HORIZON)
    for settings in (model(), model(season=20)):
        made = make_steps(panel, torch.tensor([0, 1]), torch.tensor([5, 5]), settings)
        assert made.extra.shape == (2, extra_size(settings, past, future, static, 1))
        ahead = make_future(panel, made, settings)
        assert ahead.shape == (2, HORIZON, future_size(settings, future))


def test_several_targets_see_which_they_are_and_where_all_stand() -> None:
    frame = several((60,))
    both = read_series(frame, Columns("time", ("target", "other"), "series"))
    panel = build_panel(both.series, learn_schema(both, "naive"), HORIZON)
    made = make_steps(panel, torch.tensor([0, 1]), torch.tensor([30, 30]), model())
    assert made.extra[:, -4:-2].tolist() == [[1, 0], [0, 1]]
    assert torch.equal(made.extra[0, -2:], made.extra[1, -2:])


def test_constant_series_gives_finite_features() -> None:
    frame = ramp(30).with_columns(target=pl.lit(5.0))
    made = steps_of(frame, model(), list(range(30)))
    assert all(torch.isfinite(part).all() for part in (made.window, made.extra, made.level))


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=40))
def test_running_scale_row_by_row_equals_all_at_once(values: list[float]) -> None:
    mean, scale, _ = RunningScale().follow(np.array(values))
    running = RunningScale()
    for row, value in enumerate(values):
        if np.isfinite(value):
            running = running.push(value)
        assert (mean[row], scale[row]) == pytest.approx(running.read(), rel=1e-9, abs=1e-9)


def test_running_scale_keeps_its_digits_far_from_zero() -> None:
    _, scale, _ = RunningScale().follow(1e9 + np.array([0.0, 1.0, 2.0, 3.0]))
    assert scale[-1] == pytest.approx(np.std([0, 1, 2, 3]), rel=1e-12)


def test_fill_forward_says_how_old_a_value_is() -> None:
    nan = np.nan
    filled, age = fill_forward(np.array([nan, 3.0, nan, nan, 4.0]))
    assert filled.tolist() == [0, 3, 3, 3, 4]
    assert age.tolist() == [1, 0, 1, 2, 0]
