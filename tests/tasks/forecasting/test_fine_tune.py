"""Fine-tuning goes on from the weights of a run, with its design, on other rows or series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, several, wave

from recurra import Forecaster
from recurra.errors import DataError, RunError
from recurra.tasks.forecasting.learning import plan


def weights(forecaster: Forecaster) -> dict[str, Any]:
    return forecaster.fitted.network.state_dict()


def test_training_starts_from_the_weights_design_and_schema_of_the_run(tmp_path: Path) -> None:
    frame = several((90, 60))
    fitted_on(frame.head(90), context=11, stride=2, season=7).save(tmp_path / "run")
    before, tuned = Forecaster.load(tmp_path / "run"), Forecaster.load(tmp_path / "run")
    start = plan(tuned.read(frame), tuned.settings, before.fitted)
    for name, tensor in start.task.model.state_dict().items():
        assert torch.equal(tensor, weights(before)[name])
    tuned.fine_tune(frame.filter(pl.col("series") == "s1"), steps=2)
    assert tuned.fitted.settings == before.fitted.settings
    assert tuned.fitted.schema == before.fitted.schema
    assert list(tuned.fitted.states) == ["s1"]
    moved = [
        (tensor - weights(before)[name]).abs().max() for name, tensor in weights(tuned).items()
    ]
    assert 0 < max(moved) < 0.02


def test_rate_is_a_third_unless_given() -> None:
    forecaster = fitted_on(ramp(60), training={"learning_rate": 3e-3})
    forecaster.fine_tune(ramp(60), steps=2)
    assert forecaster.fitted.training["learning_rate"] == pytest.approx(1e-3)
    forecaster.fine_tune(ramp(60), steps=2, training={"learning_rate": 7e-4})
    assert forecaster.fitted.training["learning_rate"] == 7e-4


def test_every_network_of_an_ensemble_goes_on_from_its_own_weights() -> None:
    frame = several((90,))
    forecaster = fitted_on(frame, ensemble=[{"context": 8}, {"context": 16, "cell": "lstm"}])
    start = plan(forecaster.read(frame), forecaster.settings, forecaster.fitted)
    for member, network in zip(start.members, forecaster.fitted.networks, strict=True):
        for name, tensor in member.task.model.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name])


def test_resume_needs_the_same_starting_weights(tmp_path: Path) -> None:
    frame = ramp(80)
    first, other = fitted_on(frame, seed=0), fitted_on(frame, seed=1)
    first.save(tmp_path / "first")
    Forecaster.load(tmp_path / "first").fine_tune(frame, steps=4, out=tmp_path / "tuned")
    again = Forecaster.load(tmp_path / "first")
    again.fine_tune(frame, steps=4, out=tmp_path / "tuned", resume=True)
    settings = again.settings.model_dump()
    assert settings["steps"] == 4
    other.settings = first.settings
    with pytest.raises(RunError, match="was trained from other weights"):
        other.fine_tune(frame, steps=4, out=tmp_path / "tuned", resume=True)


def test_a_table_without_the_columns_is_refused_and_the_forecaster_stays() -> None:
    forecaster = fitted_on(several((60,)), context=8)
    before = forecaster.fitted
    with pytest.raises(DataError, match="target"):
        forecaster.fine_tune(several((60,)).drop("target"), steps=2)
    assert forecaster.fitted is before


def test_fine_tuning_helps_where_the_series_has_changed() -> None:
    """Weekly waves turn into waves of five days."""
    old = pl.DataFrame({"time": days(300), "target": wave(300)})
    new = pl.DataFrame({"time": days(300, "2021-01-01"), "target": wave(300, period=5)})
    settings = {**QUICK, "steps": 150, "batch_size": 16, "hidden_size": 16, "context": 14}
    forecaster = Forecaster(horizon=5, **settings).fit(old)
    before = forecaster.evaluate(new, windows=10).results()[0]["metrics"]["mae"]
    forecaster.fine_tune(new.head(240), steps=150)
    after = forecaster.evaluate(new, windows=10).results()[0]["metrics"]["mae"]
    assert after < 0.7 * before
