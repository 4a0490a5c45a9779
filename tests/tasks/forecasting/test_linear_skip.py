"""The linear map of a segment network: solved from training rows alone, then held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, read, several, wave

from recurra import Forecaster
from recurra.errors import ConfigError
from recurra.tasks.forecasting import linear_skip
from recurra.tasks.forecasting.fitting import ForecastTask
from recurra.tasks.forecasting.learning import plan
from recurra.tasks.forecasting.settings import ForecasterSettings

LINEAR: dict[str, Any] = {"model": "segments", "context": 14, "segment": 7, "linear": True}


def task(frame: pl.DataFrame, horizon: int = 5, **settings: Any) -> ForecastTask:
    values = {"horizon": horizon, "steps": 3, "hidden_size": 8, **LINEAR, **settings}
    return plan(read(frame), ForecasterSettings(**values)).task


def test_untrained_network_continues_a_noisy_season_better_than_any_naive_forecast() -> None:
    frame = pl.DataFrame({"time": days(300), "target": wave(300, noise=0.3) - 12})
    quick = {**QUICK, "steps": 1, "training": {"learning_rate": 1e-12}}
    forecaster = Forecaster(horizon=7, **{**quick, **LINEAR})
    forecaster.fit(frame, until="2020-07-31")
    scores = {r["model"]: r["metrics"]["mae"] for r in forecaster.evaluate(frame).results()}
    assert scores["recurra"] < 0.85 * scores["seasonal_naive"]
    assert scores["recurra"] < 0.5 * scores["naive"]


def test_map_solves_the_penalised_least_squares_of_its_training_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_skip, "PENALTIES", (0.05,))
    made = task(several((90, 80)))
    channel = torch.cat([torch.full((90,), 0), torch.full((80,), 1)])
    row = torch.cat([torch.arange(90), torch.arange(80)])
    inside = (row >= made.first_origin[channel]) & (row < made.train_rows[channel] - 1)
    x, y = (part.double() for part in made.windows(channel[inside], row[inside]))
    for step in (0, 4):
        known = torch.isfinite(y[:, step])
        # Steps 0 and 1 are solved together, from the windows that know both.
        together = torch.isfinite(y[:, [0, 1] if step == 0 else [4]]).all(1)
        a = x[together].T @ x[together] + 0.05 * int(together.sum()) * torch.eye(14)
        wanted = torch.linalg.solve(a, x[together].T @ y[together, step])
        assert known.sum() >= together.sum()
        assert torch.allclose(made.model.linear[step].double(), wanted, atol=1e-4)


def test_calm_start_does_not_outweigh_what_comes_after() -> None:
    """A currency pegged at first: in units of what was seen so far its first step is enormous."""
    values = np.concatenate((np.full(60, 5.0), 6.0 + wave(240, noise=0.1) - 10))
    values[:60] += 1e-9 * np.arange(60)
    frame = pl.DataFrame({"time": days(300), "target": values})
    made = task(frame, horizon=7, logarithm=False)
    row = torch.arange(100, 250)
    truth = made._truth(torch.zeros_like(row), row)
    window, _ = made.windows(torch.zeros_like(row), row)
    deviation = float(made.units.deviation[0])
    last = torch.from_numpy(values[row])[:, None]
    forecast = last + deviation * torch.nn.functional.linear(window, made.model.linear)
    naive = (truth - last).abs().mean()
    assert (truth - forecast).abs().mean() < 0.2 * naive


def test_rows_kept_for_validation_choose_the_penalty_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = several((90,))
    changed = frame.with_columns(
        target=pl.when(pl.arange(90) < 76).then(pl.col("target")).otherwise(-3.0)
    )
    settings = {"logarithm": False, "validation": 0.15}
    both = [task(one, **settings).model.linear for one in (frame, changed)]
    monkeypatch.setattr(linear_skip, "PENALTIES", (0.1,))
    same = [task(one, **settings).model.linear for one in (frame, changed)]
    assert torch.equal(*same)
    assert not torch.equal(*both)


def test_map_is_held_while_the_rest_is_trained_and_saved_with_it(tmp_path: Path) -> None:
    frame = several((90,))
    before = task(frame, steps=20, seed=4).model
    forecaster = fitted_on(frame, **{**LINEAR, "steps": 20, "seed": 4})
    after = forecaster.fitted.network
    assert torch.equal(before.linear, after.linear)
    assert before.linear.abs().sum() > 0
    assert not torch.equal(before.out.weight, after.out.weight)
    forecaster.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run")
    assert torch.equal(again.fitted.network.linear, after.linear)
    assert again.predict(frame).equals(forecaster.predict(frame))


def test_stream_equals_batch() -> None:
    frame = several((90,))
    forecaster = fitted_on(frame.head(70), **LINEAR)
    stream = forecaster.stream()
    for row in range(70, 80):
        answer = stream.push(frame.row(row, named=True))["forecast"]["target"]["q0.5"]
        wanted = forecaster.predict(frame.head(row + 1))["q0.5"].to_list()
        assert answer == pytest.approx(wanted, rel=1e-5)


def test_series_too_short_for_any_whole_horizon_have_no_map_and_are_trained_all_the_same() -> None:
    forecaster = fitted_on(ramp(7), **{**LINEAR, "context": 3, "segment": 1})
    assert np.isfinite(forecaster.predict()["q0.5"].to_numpy()).all()


def test_linear_is_refused_for_the_forking_network() -> None:
    with pytest.raises(ConfigError, match="linear=True has no meaning with model='forking'"):
        fitted_on(ramp(60), linear=True)
