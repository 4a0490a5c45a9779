"""A search returns settings out of its space, the best by rows kept for validation alone."""

from __future__ import annotations

import builtins
from typing import Any

import polars as pl
import pytest
from tests.tasks.forecasting.tables import QUICK, days, ramp, several, wave

from recurra import Forecaster
from recurra.errors import ConfigError, MissingExtraError

pytest.importorskip("optuna")


def test_search_finds_the_better_of_two_and_can_be_fitted() -> None:
    """A rate of almost nothing learns nothing: the other choice must win."""
    frame = pl.DataFrame({"time": days(200), "target": wave(200, noise=2.0)})
    start = Forecaster(horizon=5, **{**QUICK, "steps": 60})
    found = start.search(
        frame,
        space={"training.learning_rate": [1e-12, 5e-3], "hidden_size": [8, 9]},
        trials=6,
    )
    assert found.settings["training"]["learning_rate"] == 5e-3
    assert found.settings["hidden_size"] in (8, 9)
    assert len(found.trials) == 6
    assert found.loss == min(loss for loss, _ in found.trials)
    again = start.search(
        frame,
        space={"training.learning_rate": [1e-12, 5e-3], "hidden_size": [8, 9]},
        trials=6,
    )
    assert again == found
    best = Forecaster(**found.settings, progress=False).fit(frame)
    assert len(best.predict()) == 5


def test_ranges_stay_inside_and_whole_numbers_stay_whole() -> None:
    found = Forecaster(horizon=3, **QUICK).search(
        several((60, 50)), space={"dropout": (0.1, 0.2), "hidden_size": (4, 64)}, trials=4
    )
    for _, values in found.trials:
        assert 0.1 <= values["dropout"] <= 0.2
        assert isinstance(values["hidden_size"], int)
        assert 4 <= values["hidden_size"] <= 64


def test_trials_that_cannot_be_trained_do_not_end_the_search() -> None:
    found = Forecaster(horizon=3, **QUICK).search(ramp(60), space={"skip": [8, 50_000]}, trials=6)
    losses = {values["skip"]: loss for loss, values in found.trials}
    assert losses[50_000] == float("inf")
    assert found.settings["skip"] == 8
    with pytest.raises(ConfigError, match="none of 2 trials could be trained"):
        Forecaster(horizon=3, **QUICK).search(ramp(60), space={"skip": [50_000]}, trials=2)


def test_wrong_spaces_and_missing_validation_are_refused() -> None:
    forecaster = Forecaster(horizon=3, **QUICK)
    for values in ((2, 1), [], "gru", (1, 2, 3)):
        with pytest.raises(ConfigError, match="expected a list of choices"):
            forecaster.search(ramp(60), space={"hidden_size": values}, trials=1)
    with pytest.raises(ConfigError, match="trials=0"):
        forecaster.search(ramp(60), trials=0)
    with pytest.raises(ConfigError, match="needs rows that are kept"):
        Forecaster(horizon=3, validation=0.0, **QUICK).search(ramp(60), trials=1)


def test_optuna_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"recurra\[search\]"):
        Forecaster(horizon=3, **QUICK).search(ramp(60), trials=1)
