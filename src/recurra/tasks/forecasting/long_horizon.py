"""Long horizons (ETT): one long table, split by row numbers, and every window of its end scored.

    z = (y − mean) / deviation of the training rows, per column
    MSE, MAE = means over all windows, columns and steps of (z − f)², |z − f|

A horizon h has (rows of the test part) − h + 1 windows: its first begins at the first test row, its
last ends at the last. None is left out. Each horizon has a forecaster of its own, as in published
tables; it stops at its best weights on the validation rows. The penalty of the linear baseline has
the smallest error there, over every fourth window.

Source: the splits and measures are those of Zhou et al. 2021, "Informer". Many papers drop the test
windows that fill no whole batch.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recurra.data.catalogue import locate
from recurra.data.series import Columns, Series, read_series
from recurra.data.tables import read_table
from recurra.errors import DataError
from recurra.report.results import make_result
from recurra.tasks.forecasting import linear
from recurra.tasks.forecasting.evaluation import OURS
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.forecaster import Forecaster
from recurra.tasks.forecasting.settings import CheckedModel

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Forecast = Callable[[Integers], Array]
"""Rows (n,) of the last known values → forecasts (n, K, horizon), on the standardised scale."""
WINDOWS_AT_ONCE = 256
EVERY = 4
"""Of how many validation windows one judges a penalty: neighbours hardly differ."""


class Entry(CheckedModel):
    """The [[forecasting.entries]] table of a recipe: one forecaster; `settings` over the common."""

    name: str = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)


class LongHorizonSection(CheckedModel):
    """The [forecasting] table of a recipe for long horizons.

    file      the table, inside the data set's folder; `time` its time column, all others targets
    names     of the columns of a file without a header or times (.gz): its rows are counted in a
              column `time`
    splits    row numbers at which the training, validation and test part end
    season    rows in a season, for seasonal naive
    linear    look-backs of the linear baselines, and the rows between the windows they learn from
    settings  the arguments of `Forecaster` in all entries
    """

    file: str
    time: str
    names: tuple[str, ...] = ()
    splits: tuple[int, int, int]
    horizons: tuple[int, ...] = Field(min_length=1)
    season: int = Field(ge=1)
    linear: tuple[int, ...] = ()
    linear_stride: int = Field(default=1, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    entries: tuple[Entry, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Split:
    """A complete series, its standardised values z (N, K), and where its parts end."""

    series: Series
    z: Array
    mean: Array
    deviation: Array
    ends: tuple[int, int, int]

    def origins(self, part: int, horizon: int) -> Integers:
        """Rows of the last known value of every window of a part: 1 validation, 2 test."""
        return np.arange(self.ends[part - 1] - 1, self.ends[part] - horizon, dtype=np.int64)


def read_split(path: Path, section: LongHorizonSection) -> tuple[Any, Split]:
    """(frame, split) of a recipe's table, cut where the test part ends.

    Raises: DataError when the table is shorter than the splits, or has gaps.
    """
    source = _without_header(path, section) if section.names else path
    frame = read_table(source).head(section.splits[2])
    targets = tuple(name for name in frame.columns if name != section.time)
    series = read_series(frame, Columns(time=section.time, target=targets)).series[0]
    train, _, test = section.splits
    if len(series.target) != test or not np.isfinite(series.target).all():
        raise DataError(
            f"{path.name} has {len(series.target)} rows, {int(np.isnan(series.target).sum())} "
            f"values missing; expected {test} rows without gaps. Get the official file."
        )
    mean, deviation = series.target[:train].mean(0), series.target[:train].std(0)
    return frame, Split(series, (series.target - mean) / deviation, mean, deviation, section.splits)


def _without_header(path: Path, section: LongHorizonSection) -> Any:
    """A polars table of a compressed file of numbers, its rows counted."""
    import polars as pl

    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            values = np.loadtxt(file, delimiter=",", ndmin=2)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{path.name} holds something else than numbers: {error}. Get the file again."
        ) from error
    if values.shape[1] != len(section.names):
        raise DataError(
            f"{path.name} has {values.shape[1]} columns; expected the {len(section.names)} of the "
            f"recipe, {', '.join(section.names)}. Get the official file."
        )
    columns = {name: values[:, k] for k, name in enumerate(section.names)}
    return pl.DataFrame({section.time: np.arange(len(values)), **columns})


def score(
    split: Split, forecast: Forecast, horizons: Sequence[int], part: int = 2, every: int = 1
) -> dict[str, float]:
    """{"mse_96", "mae_96", ..., "mse", "mae"}: of each horizon over all windows, and their means.

    `forecast` makes at least the longest horizon, and each window's once. `every` n-th window
    alone counts, all by default.
    """
    squares = dict.fromkeys(horizons, 0.0)
    sizes = dict.fromkeys(horizons, 0.0)
    for rows in _pieces(split.origins(part, min(horizons))[::every]):
        made = forecast(rows)
        for horizon in horizons:
            inside = rows <= split.ends[part] - 1 - horizon
            ahead = rows[inside, None] + np.arange(1, horizon + 1)
            error = split.z[ahead].transpose(0, 2, 1) - made[inside, :, :horizon]
            squares[horizon] += float((error**2).sum())
            sizes[horizon] += float(np.abs(error).sum())
    metrics: dict[str, float] = {}
    for horizon in horizons:
        windows = len(split.origins(part, horizon)[::every])
        values = windows * horizon * split.z.shape[1]
        metrics[f"mse_{horizon}"] = squares[horizon] / values
        metrics[f"mae_{horizon}"] = sizes[horizon] / values
    return with_means(metrics, horizons)


def _pieces(rows: Integers) -> Iterator[Integers]:
    for start in range(0, len(rows), WINDOWS_AT_ONCE):
        yield rows[start : start + WINDOWS_AT_ONCE]


def repeated(split: Split, season: int, horizon: int) -> Forecast:
    """The last season of each window repeated; the last value for a season of 1."""
    back = np.arange(horizon) % season - season + 1
    return lambda rows: split.z[rows[:, None] + back].transpose(0, 2, 1)


def fitted_forecast(fitted: Fitted, split: Split) -> Forecast:
    """The median of a trained forecaster."""
    median = fitted.settings.quantile_levels.index(0.5)

    def forecast(rows: Integers) -> Array:
        made = fitted.quantiles([split.series], np.zeros_like(rows), rows)[..., median]
        return np.asarray((made - split.mean[:, None]) / split.deviation[:, None])

    return forecast


def linear_scores(
    split: Split, context: int, horizons: Sequence[int], stride: int
) -> dict[str, float]:
    """Scores of the linear baseline; each horizon has weights and a penalty of its own."""
    metrics: dict[str, float] = {}
    for horizon in horizons:
        rows = np.arange(context - 1, split.ends[0] - horizon, stride, dtype=np.int64)
        each = linear.learn(split.z, context, horizon, rows)
        tried = [
            score(split, _linear(split, weight), (horizon,), 1, EVERY)["mse"] for weight in each
        ]
        best = each[int(np.argmin(tried))]
        metrics |= _of_horizon(score(split, _linear(split, best), (horizon,)), horizon)
    return with_means(metrics, horizons)


def _of_horizon(metrics: Mapping[str, float], horizon: int) -> dict[str, float]:
    """The metrics without the means over the horizons, of which there is one."""
    return {name: metrics[name] for name in (f"mse_{horizon}", f"mae_{horizon}")}


def with_means(metrics: Mapping[str, float], horizons: Sequence[int]) -> dict[str, float]:
    """The metrics of each horizon, with "mse" and "mae", their means over the horizons."""
    means = {
        name: float(np.mean([metrics[f"{name}_{horizon}"] for horizon in horizons]))
        for name in ("mse", "mae")
    }
    return {**metrics, **means}


def _linear(split: Split, weight: Array) -> Forecast:
    def forecast(rows: Integers) -> Array:
        channels = split.z.T
        return np.stack([linear.forecast(one, weight, rows) for one in channels], axis=1)

    return forecast


def run(
    section: LongHorizonSection, dataset: str, seed: int
) -> tuple[list[dict[str, Any]], dict[str, list[Fitted]]]:
    """(a row per model, what was fitted in each entry for each horizon), reading each test once."""
    frame, split = read_split(locate(dataset) / section.file, section)
    known = frame.head(section.splits[1]).to_native()
    targets = [name for name in frame.columns if name != section.time]
    kept = 1 - section.splits[0] / section.splits[1]
    rows: list[dict[str, Any]] = []
    fitted: dict[str, list[Fitted]] = {}
    for entry in section.entries:
        given = {**section.settings, **entry.settings, "seed": seed, "validation": kept}
        metrics: dict[str, float] = {}
        for horizon in section.horizons:
            forecaster = Forecaster(**{**given, "horizon": horizon})
            forecaster.fit(known, time=section.time, target=targets)
            forecast = fitted_forecast(forecaster.fitted, split)
            metrics |= _of_horizon(score(split, forecast, (horizon,)), horizon)
            fitted.setdefault(entry.name, []).append(forecaster.fitted)
        rows.append(make_result(f"{OURS}, {entry.name}", with_means(metrics, section.horizons)))
    for context in section.linear:
        metrics = linear_scores(split, context, section.horizons, section.linear_stride)
        rows.append(make_result(f"linear, look-back {context}", metrics))
    naives = {"naive": 1} if section.season == 1 else {"seasonal_naive": section.season, "naive": 1}
    for name, season in naives.items():
        metrics = score(split, repeated(split, season, max(section.horizons)), section.horizons)
        rows.append(make_result(name, metrics))
    return rows, fitted
