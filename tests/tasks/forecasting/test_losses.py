"""What errors are measured in: by hand on two windows, and from training rows alone."""

from __future__ import annotations

from typing import get_args

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import days, read

from recurra import Forecaster
from recurra.errors import ConfigError, DataError
from recurra.tasks.forecasting.features import Steps
from recurra.tasks.forecasting.losses import ErrorUnits, error_units, forecast_loss
from recurra.tasks.forecasting.schema import build_panel, learn_schema
from recurra.tasks.forecasting.settings import Loss, ModelSettings

LEVELS = torch.tensor([0.5])


def steps(level: list[float], scale: list[float]) -> Steps:
    empty = torch.zeros(len(level), 1)
    columns = (torch.tensor(values, dtype=torch.float64)[:, None] for values in (level, scale))
    return Steps(torch.arange(len(level)), torch.zeros(len(level)).long(), empty, empty, *columns)


def units(logarithm: list[bool]) -> ErrorUnits:
    size = len(logarithm)
    return ErrorUnits(
        torch.tensor(logarithm), torch.full((size,), 4.0), torch.full((size,), 5.0), 2.0, 0.25
    )


def test_scaled_loss_is_the_pinball_loss_in_units_of_the_step() -> None:
    made = forecast_loss(
        "scaled",
        torch.tensor([[[1.0]], [[3.0]]]),
        torch.tensor([[2.0], [1.0]]),
        LEVELS,
        steps([0.0, 0.0], [0.5, 7.0]),
        units([True, False]),
    )
    assert made.tolist() == [[1.0], [2.0]]


def test_relative_loss_is_on_the_logarithm_or_in_deviations_of_the_channel() -> None:
    made = forecast_loss(
        "relative",
        torch.tensor([[[1.0]], [[3.0]]]),
        torch.tensor([[2.0], [1.0]]),
        LEVELS,
        steps([0.0, 0.0], [0.5, 8.0]),
        units([True, False]),
    )
    assert made.tolist() == [[0.5], [2.0 * 8.0 / 4.0]]


def test_balanced_loss_lies_between_the_two() -> None:
    # Errors of 3 in steps of scale 0.25, on a logarithm, and of 1 in steps of 16 by deviation 4.
    made = forecast_loss(
        "balanced",
        torch.tensor([[[3.0]], [[1.0]]]),
        torch.tensor([[0.0], [0.0]]),
        LEVELS,
        steps([0.0, 0.0], [0.25, 16.0]),
        units([True, False]),
    )
    assert made.tolist() == [[3.0 * 0.5], [1.0 * 2.0]]


def test_huber_loss_squares_small_errors_in_units_of_relative_loss() -> None:
    # Errors of 1 in steps of 0.4, on a logarithm, and of 3 in steps of 8 by deviation 4.
    made = forecast_loss(
        "huber",
        torch.tensor([[[1.0]], [[0.0]]]),
        torch.tensor([[2.0], [3.0]]),
        LEVELS,
        steps([0.0, 0.0], [0.4, 8.0]),
        units([True, False]),
    )
    assert made.flatten().tolist() == pytest.approx([0.4**2 / (2 * 0.5), 3.0 * 8.0 / 4.0 - 0.25])


def test_huber_loss_is_least_between_median_and_mean() -> None:
    truth = torch.tensor([[0.0], [0.0], [0.0], [1.0]])  # median 0, mean 1/4
    forecast = torch.linspace(0, 1, 61)
    deviation = ErrorUnits(torch.zeros(4, dtype=torch.bool), torch.ones(4), torch.ones(4), 1.0, 1.0)
    total = [
        forecast_loss(
            "huber", f.expand(4, 1, 1), truth, LEVELS, steps([0.0] * 4, [1.0] * 4), deviation
        ).sum()
        for f in forecast
    ]
    # The derivative of 3 f² + (1 − f) − 1/4 is 0 at 1/6.
    assert forecast[torch.stack(total).argmin()] == pytest.approx(1 / 6)


def test_huber_loss_has_no_quantiles() -> None:
    with pytest.raises(ConfigError, match=r"quantile_levels=\[0.5\], not \[0.1, 0.5, 0.9\]"):
        Forecaster(horizon=2, loss="huber", quantile_levels=[0.1, 0.5, 0.9])


def test_competition_loss_is_the_mean_of_both_measures_on_the_original_scale() -> None:
    # Channel 0: exp(log 10 + 0.5 · 2 log 2) = 20 against 10; channel 1: 3 + 2 · 1 = 5 against 9.
    twice = 2 * float(np.log(2.0))
    made = forecast_loss(
        "competition",
        torch.tensor([[[twice]], [[1.0]]]),
        torch.tensor([[0.0], [3.0]]),
        LEVELS,
        steps([float(np.log(10.0)), 3.0], [0.5, 2.0]),
        units([True, False]),
    )
    first = 0.5 * ((10 / 5) / 2.0 + (10 / 15) / 0.25)
    second = 0.5 * ((4 / 5) / 2.0 + (4 / 7) / 0.25)
    assert made.flatten().tolist() == pytest.approx([first, second], rel=1e-6)


def test_units_come_from_training_rows_alone() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1e6, 1e6])
    frame = pl.DataFrame({"time": days(8), "target": values})
    table = read(frame)
    settings = ModelSettings(horizon=1, context=2, season=1, stride=1, sequence_length=2)
    for logarithm in (True, False):
        schema = learn_schema(table, "naive", logarithm)
        panel = build_panel(table.series, schema, 1)
        made = error_units(panel, torch.tensor([6]), schema.logarithm, settings)
        assert made.step.tolist() == pytest.approx([31 / 5])
        assert made.mase == pytest.approx(16 / (31 / 5))
        assert made.smape == pytest.approx(2 * 16 / 48)
        seen = np.log(values[:6]) if logarithm else values[:6]
        assert made.deviation.tolist() == pytest.approx([np.std(seen)])


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_learns_a_step_that_repeats(loss: str) -> None:
    values = 10 + 5.0 * (np.arange(160) % 4 == 0)
    frame = pl.DataFrame({"time": days(160), "target": values})
    levels = [0.5] if loss == "huber" else [0.1, 0.5, 0.9]
    shape = {"horizon": 4, "season": 1, "context": 8, "hidden_size": 16, "quantile_levels": levels}
    forecaster = Forecaster(**shape, steps=150, loss=loss, progress=False)
    forecaster.fit(frame, until="2020-05-15")
    errors = {r["model"]: r["metrics"]["mae"] for r in forecaster.evaluate(frame).results()}
    assert errors["recurra"] < 0.3 * errors["naive"]


def test_logarithm_can_be_asked_for_and_refused() -> None:
    frame = pl.DataFrame({"time": days(40), "target": np.linspace(0.01, 9, 40)})
    shape = {"horizon": 2, "steps": 2, "hidden_size": 8, "progress": False}
    for logarithm, wanted in ((None, False), (True, True), (False, False)):
        fitted = Forecaster(**shape, logarithm=logarithm).fit(frame).fitted
        assert fitted.schema.logarithm == (wanted,)
    with pytest.raises(DataError, match=r"'target' has no positive value, so logarithm=True"):
        Forecaster(**shape, logarithm=True).fit(frame.with_columns(-pl.col("target")))


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss='mse'"):
        Forecaster(horizon=2, loss="mse")  # type: ignore[arg-type]
