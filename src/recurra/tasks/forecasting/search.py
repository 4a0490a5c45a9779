"""Searching for settings: trials by Optuna, scored on the rows kept for validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra.data.series import SeriesSet
from recurra.errors import ConfigError, MissingExtraError, RecurraError, unknown
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.held_out import actual_after, held_out_origins
from recurra.tasks.forecasting.learning import learn, plan
from recurra.tasks.forecasting.metrics import mase_scale, quantile_loss
from recurra.tasks.forecasting.settings import ForecasterSettings
from recurra.training.settings import TrainingSettings

Space = Mapping[str, Sequence[Any]]
SPACE: dict[str, Sequence[Any]] = {
    "hidden_size": [64, 128, 256],
    "dropout": (0.0, 0.3),
    "loss": ["scaled", "relative"],
    "training.learning_rate": (5e-4, 1e-2),
}
"""What is searched when nothing else is said; a list holds choices, a pair is a range."""
NESTED = "training."
NOT_SEARCHED = {
    "horizon": "trials would forecast different things",
    "quantile_levels": "trials would forecast different things",
    "frequency": "trials would read the table differently",
    "duplicates": "trials would read the table differently",
    "time_format": "trials would read the table differently",
    "validation": "trials would be scored on different rows",
    "weights": "it is learned from the rows that trials are scored on",
    "calibrate": "it is learned from the rows that trials are scored on",
}
"""Settings that make the scores of trials no comparison, and why."""


@dataclass(frozen=True)
class Search:
    """What a search found: the best settings, by name, and (loss, values) of every trial.

    The loss of a trial that could not be trained is infinite.
    """

    settings: dict[str, Any]
    loss: float
    trials: tuple[tuple[float, dict[str, Any]], ...]


def search(
    table: SeriesSet,
    settings: ForecasterSettings,
    space: Space | None,
    trials: int,
    *,
    progress: bool,
) -> Search:
    """Train `trials` forecasters, and return the settings of the best one.

    Each is scored by its quantile loss on windows of the rows kept for validation, each series'
    in units of its mean seasonal difference in the rows before. Rows and units are those of
    `settings`, whatever context or season a trial has. The seed of the settings makes the choices.
    Raises: ConfigError for a space that cannot be searched, or without kept rows;
    MissingExtraError without Optuna.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "search", "the search for settings") from error
    if trials < 1:
        raise ConfigError(f"trials={trials}; expected 1 or more.")
    wanted = SPACE if space is None else space
    for name, values in wanted.items():
        _check(name, values)
    base = plan(table, settings)
    kept, season = base.kept, base.task.model.settings.season
    if not any(kept):
        raise ConfigError(
            "a search needs rows that are kept for validation, and there are none: the series are "
            "too short, or validation is 0. Give longer series, or set validation."
        )
    done: list[tuple[float, dict[str, Any]]] = []
    failed: list[RecurraError] = []

    def objective(trial: Any) -> float:
        values = {name: _suggest(trial, name, choices) for name, choices in wanted.items()}
        try:
            chosen = plan(table, with_values(settings, values), kept=kept)
            fitted, _ = learn(chosen, None, resume=False, progress=progress)
            loss = held_out_loss(fitted, table, kept, season)
        except RecurraError as error:
            loss = math.inf  # as a window longer than the series, or a rate that diverges
            failed.append(error)
        done.append((loss, values))
        return loss

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=settings.seed))
        study.optimize(objective, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(before)
    loss, best = min(done, key=lambda one: one[0])
    if not math.isfinite(loss):
        raise ConfigError(
            f"none of {trials} trials could be trained; the first had {done[0][1]}"
            f"{f': {failed[0]}' if failed else '.'} Search another space."
        )
    found = with_values(settings, best).model_dump(exclude_defaults=True)
    return Search(found, loss, tuple(done))


def with_values(settings: ForecasterSettings, values: Mapping[str, Any]) -> ForecasterSettings:
    """The settings with others by name; "training.x" is a setting of the training loop."""
    plain = {name: value for name, value in values.items() if not name.startswith(NESTED)}
    nested = {
        name.removeprefix(NESTED): value
        for name, value in values.items()
        if name.startswith(NESTED)
    }
    whole = {**settings.model_dump(), **plain}
    whole["training"] = {**whole["training"], **nested}
    return ForecasterSettings(**whole)


def held_out_loss(fitted: Fitted, table: SeriesSet, kept: Sequence[int], season: int) -> float:
    """Mean quantile loss on windows of the kept rows, in units of each series' seasonal steps."""
    horizon, levels = fitted.settings.horizon, fitted.settings.quantile_levels
    series = table.series
    number, row = held_out_origins(series, kept, horizon)
    quantiles = fitted.unchecked_quantiles(series, number, row)
    actual = actual_after(series, number, row, horizon)
    scale = np.array(
        [
            [mase_scale(column[: len(column) - rows], season) for column in one.target.T]
            for one, rows in zip(series, kept, strict=True)
        ]
    )[number]
    loss = quantile_loss(actual, quantiles, levels) / scale[..., None]
    return float(np.nanmean(loss)) if np.isfinite(loss).any() else math.inf


def _check(name: str, values: Any) -> None:
    """Raises: ConfigError for a setting that cannot be searched, or values that are no space."""
    if name.startswith(NESTED):
        nested, fields = name.removeprefix(NESTED), list(TrainingSettings.model_fields)
        if nested not in fields:
            raise ConfigError(unknown("training setting", nested, fields))
    elif name not in ForecasterSettings.model_fields:
        raise ConfigError(unknown("forecaster setting", name, ForecasterSettings.model_fields))
    elif name in NOT_SEARCHED:
        raise ConfigError(
            f"{name} cannot be searched: {NOT_SEARCHED[name]}. Take it out of the space, and give "
            "it to the Forecaster."
        )
    pair = isinstance(values, tuple) and len(values) == 2
    ordered = pair and all(isinstance(v, int | float) for v in values) and values[0] < values[1]
    if not ordered and not (isinstance(values, list) and values):
        raise ConfigError(
            f"space[{name!r}] is {values!r}; expected a list of choices such as [64, 128], or a "
            "pair (lowest, highest) of numbers."
        )


def _suggest(trial: Any, name: str, values: Sequence[Any]) -> Any:
    """One value; a range of numbers that spans a factor of ten is searched by its logarithm."""
    if isinstance(values, list):
        return values[trial.suggest_int(name, 0, len(values) - 1)] if len(values) > 1 else values[0]
    low, high = values
    wide = low > 0 and high >= 10 * low
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=wide)
    return trial.suggest_float(name, low, high, log=wide)
