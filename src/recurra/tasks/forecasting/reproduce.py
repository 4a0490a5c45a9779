"""Running a forecasting recipe: train on the first part, score the official windows of the rest.

A recipe with [[forecasting.groups]] is a competition, see `competition.py`; one with `splits` has
long horizons, see `long_horizon.py`; any other is a table.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from recurra.data.catalogue import locate
from recurra.data.recipe import Recipe
from recurra.errors import ConfigError, DataError
from recurra.report.results import make_outcome
from recurra.tasks.forecasting.competition import (
    CompetitionSection,
    compete,
    competition_results,
)
from recurra.tasks.forecasting.fitted import TASK, Fitted
from recurra.tasks.forecasting.forecaster import Forecaster
from recurra.tasks.forecasting.long_horizon import LongHorizonSection, run
from recurra.tasks.forecasting.outcome import evaluation_outcome
from recurra.tasks.forecasting.settings import CheckedModel


class ForecastingSection(CheckedModel):
    """The [forecasting] table of a recipe.

    file      the table, inside the data set's folder
    until     last time to train on; every window after it is scored
    columns   the arguments of `Forecaster.fit` that name columns
    settings  the arguments of `Forecaster`; the seed comes from the recipe's seeds
    """

    file: str
    until: str
    columns: dict[str, Any]
    settings: dict[str, Any] = Field(default_factory=dict)
    windows: int | None = Field(default=None, ge=1)


def reproduce(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train with `seed` and score: DESIGN's outcome, with one result list per target.

    Raises: DataError when the recipe's section is wrong or the data are absent.
    """
    try:
        section = _kind(recipe.section)(**recipe.section)
    except (ConfigError, ValidationError) as error:
        raise DataError(f"recipe {recipe.name!r}, [forecasting]: {error}") from error
    if recipe.dataset is None:
        raise DataError(f"recipe {recipe.name!r} names no data set; forecasting needs one.")
    if isinstance(section, CompetitionSection):
        return _competition(section, recipe.dataset, seed)
    if isinstance(section, LongHorizonSection):
        return _long_horizon(section, recipe.dataset, seed)
    return _table(section, recipe.dataset, seed)


def _kind(
    section: Mapping[str, Any],
) -> type[CompetitionSection] | type[LongHorizonSection] | type[ForecastingSection]:
    if "groups" in section:
        return CompetitionSection
    return LongHorizonSection if "splits" in section else ForecastingSection


def _long_horizon(section: LongHorizonSection, dataset: str, seed: int) -> dict[str, Any]:
    started = clock.monotonic()
    rows, fitted = run(section, dataset, seed)
    name = section.file.partition(".")[0]
    train, validation, test = section.splits
    data = f"{name}, rows to {train} train, to {validation} validate, to {test} test"
    outcome = make_outcome(TASK, data, rows, clock.monotonic() - started)
    outcome["notes"] = [_describe_networks(entry, made) for entry, made in fitted.items()]
    outcome["training"] = {
        entry: [_describe_training(one) for one in made] for entry, made in fitted.items()
    }
    return outcome


def _describe_networks(entry: str, made: Sequence[Fitted]) -> str:
    count = len(made[0].networks)
    if count == 1:
        return f"{entry}: a network for each horizon"
    weighted = "weighted by validation" if made[0].weights else "the mean of their forecasts"
    return f"{entry}: {count} networks for each horizon, {weighted}"


def _describe_training(fitted: Fitted) -> dict[str, Any]:
    each = (fitted.training, *fitted.training.get("others", ()))
    return {
        "horizon": fitted.settings.horizon,
        "weights": list(fitted.shares),
        "results": [one["result"] for one in each],
    }


def _competition(section: CompetitionSection, dataset: str, seed: int) -> dict[str, Any]:
    started = clock.monotonic()
    entries = compete(section, dataset, seed)
    sizes = [
        f"{len(entry.group.test)} {name} series, {entry.group.horizon} steps"
        for name, entry in entries.items()
    ]
    outcome = make_outcome(
        TASK,
        f"{dataset}: {'; '.join(sizes)}",
        competition_results(entries),
        clock.monotonic() - started,
    )
    networks = [1 + len(entry.training.get("others", ())) for entry in entries.values()]
    outcome["notes"] = [f"networks: {' + '.join(map(str, networks))}, the mean of their quantiles"]
    outcome["training"] = {
        name: [one["result"] for one in (entry.training, *entry.training.get("others", ()))]
        for name, entry in entries.items()
    }
    return outcome


def _table(section: ForecastingSection, dataset: str, seed: int) -> dict[str, Any]:
    path = locate(dataset) / section.file
    started = clock.monotonic()
    forecaster = Forecaster(**section.settings, seed=seed)
    forecaster.fit(path, **section.columns, until=section.until)
    evaluation = forecaster.evaluate(path, windows=section.windows)
    outcome = evaluation_outcome(evaluation, dataset, clock.monotonic() - started)
    outcome["training"] = forecaster.fitted.training["result"]
    return outcome
