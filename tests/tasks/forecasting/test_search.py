"""A search returns settings out of its space, the best by rows kept for validation alone."""

from __future__ import annotations

import builtins
import importlib
import math
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from tests.tasks.forecasting.tables import QUICK, days, ramp, several, wave

from recurra import Forecaster
from recurra.errors import ConfigError, MissingExtraError

pytest.importorskip("optuna")


def spy(called: Callable[..., Any], tell: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which tells its plain arguments as far as `tell` takes them."""

    def telling(*given: Any, **named: Any) -> Any:
        tell(*given[: tell.__code__.co_argcount])
        return called(*given, **named)

    return telling


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
    with pytest.raises(ConfigError, match=r"none of 2 trials .* 50000}: skip=50000 looks back"):
        Forecaster(horizon=3, **QUICK).search(ramp(60), space={"skip": [50_000]}, trials=2)


def test_trials_are_scored_on_the_same_rows_in_the_same_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A longer window would keep fewer rows of so short a series, and learn what it is scored on.

    A longer season would have larger units, and win by that.
    """
    module = importlib.import_module("recurra.tasks.forecasting.search")
    learned, seasons = [], []
    monkeypatch.setattr(module, "learn", spy(module.learn, lambda chosen: learned.append(chosen)))
    monkeypatch.setattr(
        module, "mase_scale", spy(module.mase_scale, lambda _, m: seasons.append(m))
    )
    space = {"context": [8, 55], "season": [1, 7]}
    found = Forecaster(horizon=3, season=7, **QUICK).search(ramp(60), space=space, trials=6)
    tried = [chosen.task.model.settings for chosen in learned]
    assert {one.context for one in tried} == {8, 55}
    assert {one.season for one in tried} == {1, 7}
    assert {chosen.kept for chosen in learned} == {(9,)}
    assert {int(chosen.task.train_rows[0]) for chosen in learned} == {51}
    assert set(seasons) == {7}
    assert all(math.isfinite(loss) for loss, _ in found.trials)


def test_wrong_spaces_and_missing_validation_are_refused() -> None:
    forecaster = Forecaster(horizon=3, **QUICK)
    for values in ((2, 1), [], "gru", (1, 2, 3)):
        with pytest.raises(ConfigError, match="expected a list of choices"):
            forecaster.search(ramp(60), space={"hidden_size": values}, trials=1)
    for name, message in (
        ("hiden_size", r"unknown forecaster setting 'hiden_size'; did you mean 'hidden_size'\?"),
        ("training.rate", r"unknown training setting 'rate'"),
        ("horizon", r"horizon cannot be searched: trials would forecast different things"),
        ("validation", r"validation cannot be searched: .* scored on different rows"),
        ("calibrate", r"calibrate cannot be searched: it is learned from the rows"),
    ):
        with pytest.raises(ConfigError, match=message):
            forecaster.search(ramp(60), space={name: [1, 2]}, trials=1)
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
