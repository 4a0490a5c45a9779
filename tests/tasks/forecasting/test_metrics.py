"""Metrics against numbers worked out by hand and against the M4 competition's own scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recurra.data.tables import read_table
from recurra.tasks.forecasting.baselines import seasonal_naive
from recurra.tasks.forecasting.metrics import mase_scale, quantile_loss, score, smape

LEVELS = (0.1, 0.5, 0.9)


def test_mase_scale_is_the_mean_seasonal_difference() -> None:
    assert mase_scale(np.array([1.0, 2.0, 4.0, 8.0]), 1) == pytest.approx(7 / 3)
    assert mase_scale(np.array([1.0, 2.0, 4.0, 8.0]), 2) == pytest.approx(4.5)


def test_missing_values_have_no_part_in_the_scale() -> None:
    assert mase_scale(np.array([1.0, np.nan, 4.0, 6.0]), 1) == pytest.approx(2.0)


@pytest.mark.parametrize("history", [[3.0, 3.0, 3.0], [1.0], []])
def test_history_without_differences_has_no_scale(history: list[float]) -> None:
    assert math.isnan(mase_scale(np.array(history), 1))


def test_smape_goes_from_0_to_200() -> None:
    assert smape(np.array([0.0, 1.0, 3.0]), np.array([0.0, -1.0, 1.0])) == pytest.approx(
        [0, 200, 100]
    )


def test_quantile_loss_of_the_median_is_the_absolute_error() -> None:
    loss = quantile_loss(np.array([3.0, -1.0]), np.array([[1.0], [1.0]]), (0.5,))
    assert loss == pytest.approx([2.0, 2.0])


def test_quantile_loss_weighs_sides_by_level() -> None:
    # 2 · (0.9 · 2) for a value 2 above the 90 % quantile, 2 · (0.1 · 2) for one 2 below it.
    loss = quantile_loss(np.array([3.0, -1.0]), np.array([[1.0], [1.0]]), (0.9,))
    assert loss == pytest.approx([3.6, 0.4])


def test_score_counts_only_known_values() -> None:
    actual = np.array([[1.0, np.nan], [4.0, 8.0]])
    point = np.array([[2.0, 100.0], [4.0, 5.0]])
    quantiles = np.stack([point - 1, point, point + 1], axis=2)
    result = score(actual, quantiles, LEVELS, np.array([2.0, 1.0]), np.array([0, 1]))
    assert result["mae"] == pytest.approx((1 + 0 + 3) / 3)
    assert result["rmse"] == pytest.approx(math.sqrt(10 / 3))
    # series 0: error 1 over scale 2; series 1: mean error 1.5 over scale 1.
    assert result["mase"] == pytest.approx((0.5 + 1.5) / 2)
    assert result["coverage_80"] == pytest.approx(2 / 3)


def test_series_without_scale_is_left_out_of_mase_alone() -> None:
    actual, point = np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]])
    quantiles = np.stack([point] * 3, axis=2)
    result = score(actual, quantiles, LEVELS, np.array([np.nan, 1.0]), np.array([0, 1]))
    assert (result["mase"], result["mae"]) == (2.0, 1.5)


@pytest.mark.parametrize(
    ("name", "horizon", "season", "published"),
    [("Hourly", 48, 24, (13.912, 1.193)), ("Weekly", 13, 1, (9.161, 2.777))],
)
def test_seasonal_naive_on_m4_scores_as_published(
    data_file: Callable[[str], Path],
    name: str,
    horizon: int,
    season: int,
    published: tuple[float, float],
) -> None:
    """Makridakis, Spiliotis, Assimakopoulos 2020: sMAPE and MASE of sNaive, hourly and weekly."""
    train = _rows(data_file(f"forecasting/m4/{name}-train.csv.xz"))
    test = _rows(data_file(f"forecasting/m4/{name}-test.csv.xz"))
    actual = np.stack(test)
    made = np.stack([seasonal_naive(history, horizon, season) for history in train])
    scale = np.array([mase_scale(history, season) for history in train])
    result = score(actual, np.stack([made] * 3, axis=2), LEVELS, scale, np.arange(len(train)))
    assert (result["smape"], result["mase"]) == pytest.approx(published, abs=5e-4)


def _rows(path: Path) -> list[np.ndarray]:
    frame = read_table(path).to_native()
    values = frame.select(pl.exclude(frame.columns[0])).cast(pl.Float64).to_numpy()
    return [row[np.isfinite(row)] for row in values]
