"""Scenario paths have the quantiles that are forecast, and the dependence that was learned."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.tasks.forecasting.tables import fitted_on, ramp, several

from recurra import Forecaster
from recurra.errors import ConfigError
from recurra.tasks.forecasting.dependence import (
    Dependence,
    draw,
    is_correlation,
    learn_dependence,
    scores,
)

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
Z = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
HORIZON = 8


def moving_values(count: int, common: float, decay: float, seed: int = 0) -> np.ndarray:
    """(N, 2, 8) normal values of known dependence over steps, 0.5 between the two targets."""
    rng = np.random.default_rng(seed)
    lag = np.abs(np.subtract.outer(np.arange(HORIZON), np.arange(HORIZON)))
    steps = np.linalg.cholesky(common + (1 - common) * decay**lag + 1e-12 * np.eye(HORIZON))
    targets = np.linalg.cholesky(np.array([[1.0, 0.5], [0.5, 1.0]]))
    free = rng.standard_normal((count, 2, HORIZON))
    return np.einsum("ij,njk,lk->nil", targets, free, steps)


@pytest.mark.parametrize(("common", "decay"), [(0.0, 0.0), (0.0, 0.8), (0.5, 0.0), (0.3, 0.6)])
def test_dependence_is_found_and_drawn(common: float, decay: float) -> None:
    actual = moving_values(6000, common, decay)
    quantiles = np.broadcast_to(Z, (*actual.shape, len(LEVELS)))
    made = learn_dependence(quantiles, actual, LEVELS)
    lags = np.arange(1, HORIZON)
    wanted = common + (1 - common) * decay**lags
    found = made.common + (1 - made.common) * made.decay**lags
    np.testing.assert_allclose(found, wanted, atol=0.04)
    np.testing.assert_allclose(made.targets, [[1.0, 0.5], [0.5, 1.0]], atol=0.03)
    paths = draw(quantiles[:1], LEVELS, made, 20_000, seed=3)[0]
    np.testing.assert_allclose(np.quantile(paths, LEVELS, axis=0)[:, 0, 0], Z, atol=0.04)
    flat = paths.reshape(20_000, -1)
    correlation = np.corrcoef(flat.T)
    assert correlation[0, 3] == pytest.approx(wanted[2], abs=0.05)
    assert correlation[2, HORIZON + 2] == pytest.approx(0.5, abs=0.05)


def test_scores_undo_the_interpolation_beyond_the_outermost_levels_too() -> None:
    quantiles = np.array([[[[0.0, 3.0, 4.0, 5.0, 9.0]]]])
    for z in (-3.0, -1.0, 0.2, 1.0, 2.5):
        value = np.interp(z, Z, quantiles[0, 0, 0])
        if z < Z[0] or z > Z[-1]:
            left = 0 if z < 0 else 3
            slope = np.diff(quantiles[0, 0, 0])[left] / np.diff(Z)[left]
            value = quantiles[0, 0, 0, left] + slope * (z - Z[left])
        assert scores(quantiles, np.array([[[value]]]), LEVELS)[0, 0, 0] == pytest.approx(z)


def test_missing_values_and_equal_quantiles_are_borne() -> None:
    actual = moving_values(200, 0.0, 0.8)
    actual[::3, 0, 2:5] = np.nan
    quantiles = np.broadcast_to(Z, (*actual.shape, len(LEVELS))).copy()
    quantiles[5] = 1.0
    made = learn_dependence(quantiles, actual, LEVELS)
    assert made.decay == pytest.approx(0.8, abs=0.1)
    empty = learn_dependence(quantiles, np.full_like(actual, np.nan), LEVELS)
    assert (empty.common, empty.decay) == (0.0, 0.0)


def test_a_sum_over_steps_is_as_uncertain_as_its_parts_move_together() -> None:
    quantiles = np.broadcast_to(Z, (1, 1, HORIZON, len(LEVELS)))
    alone = Dependence(common=0.0, decay=0.0, targets=((1.0,),))
    together = Dependence(common=0.9, decay=0.5, targets=((1.0,),))
    narrow, wide = (
        draw(quantiles, LEVELS, one, 4000, 0)[0, :, 0].sum(-1).std() for one in (alone, together)
    )
    assert narrow == pytest.approx(np.sqrt(HORIZON), rel=0.05)
    assert wide > 2.3 * narrow


def test_correlation_matrices_are_told_from_others() -> None:
    assert is_correlation(np.array([[1.0, 0.9], [0.9, 1.0]]))
    for bad in ([[1.0, 1.1], [1.1, 1.0]], [[1.0, 0.2], [0.3, 1.0]], [[2.0, 0.0], [0.0, 1.0]]):
        assert not is_correlation(np.array(bad))


def test_sample_gives_a_long_frame_of_the_forecast_steps(tmp_path: Any) -> None:
    frame = several((60, 50))
    forecaster = Forecaster(horizon=3, steps=3, hidden_size=8, batch_size=4, progress=False)
    forecaster.fit(frame, target=("target", "other"))
    made = forecaster.sample(count=7, seed=1)
    assert made.columns == ["series", "time", "target", "sample", "step", "value"]
    assert len(made) == 2 * 2 * 7 * 3
    assert made["sample"].unique().sort().to_list() == list(range(7))
    predicted = forecaster.predict()
    one = made.filter(pl.col("sample") == 0).drop("sample", "value")
    assert one.equals(predicted.select(one.columns))
    assert forecaster.sample(count=7, seed=1).equals(made)
    assert not forecaster.sample(count=7, seed=2).equals(made)
    forecaster.save(tmp_path / "run")
    assert Forecaster.load(tmp_path / "run").sample(count=7, seed=1).equals(made)
    many = (
        forecaster.sample(count=4000)
        .group_by("series", "target", "step")
        .agg(pl.col("value").quantile(0.9))
    )
    joined = predicted.join(many, on=["series", "target", "step"])
    spread = (joined["q0.9"] - joined["q0.1"]).to_numpy()
    np.testing.assert_allclose(joined["value"] / spread, joined["q0.9"] / spread, atol=0.05)


def test_paths_of_a_target_that_was_never_negative_are_not() -> None:
    made = fitted_on(ramp(60, start=0.0), context=8).sample(count=2000)
    assert made["value"].min() >= 0.0


def test_what_cannot_be_drawn_is_refused() -> None:
    forecaster = fitted_on(ramp(60), context=8)
    with pytest.raises(ConfigError, match="count=0; expected 1 or more"):
        forecaster.sample(count=0)
    with pytest.raises(ConfigError, match="too many at once"):
        forecaster.sample(count=10**9)
    median = fitted_on(ramp(60), context=8, quantile_levels=(0.5,))
    with pytest.raises(ConfigError, match="only the median is forecast"):
        median.sample()
