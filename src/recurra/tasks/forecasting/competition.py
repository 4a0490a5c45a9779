"""Forecasting competitions (M3, M4): one forecast after the end of each series, scored once.

A competition's table is wide: one row per series, its name first, then its values from the left,
empty after its end. Series have no dates; their values are counted.

    sMAPE = mean 200 |y − f| / (|y| + |f|)      MASE = mean |y − f| / mean |y_t − y_{t−season}|
    OWA   = ½ (sMAPE / sMAPE of Naive2 + MASE / MASE of Naive2)

The mean of MASE is over the steps of each series and then over series, its denominator over the
training values of each.

Source: Makridakis, Spiliotis, Assimakopoulos 2020, "The M4 Competition", section 2.4; the order of
the means is that of the organisers' code.
"""

from __future__ import annotations

import csv
import gzip
import lzma
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recurra.data.catalogue import locate
from recurra.errors import DataError
from recurra.report.results import make_result
from recurra.tasks.forecasting.baselines import seasonal_naive
from recurra.tasks.forecasting.evaluation import OURS
from recurra.tasks.forecasting.forecaster import Forecaster
from recurra.tasks.forecasting.metrics import mase_scale, smape
from recurra.tasks.forecasting.settings import CheckedModel
from recurra.tasks.forecasting.updating import last_quantiles

Array = npt.NDArray[np.float64]
MISSING = ("", "NA")
NAIVE2 = "naive2"


class GroupSection(CheckedModel):
    """The [[forecasting.groups]] table of a recipe: series that one forecaster is trained on.

    train, test      wide tables, inside the data set's folder
    info, period     a table with columns `id` and `period`, and which period's series these are
    season, horizon  rows in a season, as the competition's MASE counts it, and steps ahead; the
                     forecaster's season too, unless `settings` has another
    settings         the arguments of `Forecaster`, over those of all groups
    """

    name: str = Field(pattern=r"^[a-z]+$")
    train: str
    test: str
    info: str | None = None
    period: str | None = None
    season: int = Field(ge=1)
    horizon: int = Field(ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)


class CompetitionSection(CheckedModel):
    """The [forecasting] table of a competition's recipe.

    submissions  data set with forecasts of others, and `models`, the file of each; the scores of
                 "naive2" among them are what OWA is relative to
    """

    groups: tuple[GroupSection, ...] = Field(min_length=1)
    submissions: str | None = None
    models: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Series that are forecast together: name → values (n,) to train on and (horizon,) to score."""

    season: int
    horizon: int
    train: Mapping[str, Array]
    test: Mapping[str, Array]

    @property
    def actual(self) -> Array:
        """(series, horizon)."""
        return np.stack(list(self.test.values()))

    def seasonal_naive(self, season: int) -> Array:
        """The last season of every series repeated, (series, horizon); 1 is the last value."""
        return np.stack([seasonal_naive(self.train[k], self.horizon, season) for k in self.test])


def read_group(
    train: Path, test: Path, season: int, horizon: int, names: Iterable[str] | None = None
) -> Group:
    """The series of two wide tables, or those with the given `names`.

    Raises: DataError when a series is not in both, or its test part has not `horizon` values.
    """
    known, truth = read_wide(train), read_wide(test)
    wanted = list(truth) if names is None else list(names)
    for name in wanted:
        if name not in known or name not in truth:
            raise DataError(
                f"the series {name!r} is not in both {train.name} and {test.name}; expected the "
                "official files, which hold the same series."
            )
        if len(truth[name]) != horizon:
            raise DataError(
                f"{test.name}: the series {name!r} has {len(truth[name])} values; expected the "
                f"{horizon} of its horizon."
            )
    return Group(season, horizon, {k: known[k] for k in wanted}, {k: truth[k] for k in wanted})


def read_wide(path: Path, length: int | None = None) -> dict[str, Array]:
    """Name → values of each row of a wide table (.csv, .csv.gz, .csv.xz), the first `length`.

    Raises: DataError for text where a number is expected, or a gap inside a series.
    """
    series: dict[str, Array] = {}
    with _open(path) as file:
        rows = csv.reader(file)
        next(rows, None)
        for name, *cells in rows:
            values = cells[:length]
            while values and values[-1] in MISSING:
                values.pop()
            try:
                series[name] = np.array([float(value) for value in values])
            except ValueError as error:
                raise DataError(
                    f"{path.name}: the row {name!r} holds something else than numbers: {error}. "
                    "Expected a series without gaps; get the file again."
                ) from error
    return series


def _open(path: Path) -> IO[str]:
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    file: IO[str] = opener(path, "rt", encoding="utf-8", newline="")
    return file


def score_point(group: Group, point: Array) -> dict[str, float]:
    """{"smape", "mase"} of forecasts (series, horizon); series without a scale have no MASE."""
    actual = group.actual
    scale = np.array([mase_scale(group.train[k], group.season) for k in group.test])
    scaled = np.abs(actual - point).mean(1) / scale
    return {"smape": float(smape(actual, point).mean()), "mase": float(np.nanmean(scaled))}


def with_owa(metrics: Mapping[str, float], naive2: Mapping[str, float]) -> dict[str, float]:
    """The metrics and their mean relative to those of Naive2."""
    owa = (metrics["smape"] / naive2["smape"] + metrics["mase"] / naive2["mase"]) / 2
    return {**metrics, "owa": owa}


def coverage(group: Group, quantiles: Array, levels: Sequence[float]) -> float | None:
    """Share of values inside the 10 % and 90 % quantiles (series, horizon, Q), if there are any."""
    if 0.1 not in levels or 0.9 not in levels:
        return None
    lower, upper = (quantiles[..., list(levels).index(level)] for level in (0.1, 0.9))
    return float(((group.actual >= lower) & (group.actual <= upper)).mean())


def long_frame(series: Mapping[str, Array]) -> Any:
    """A polars table `series`, `time`, `target` of values that are counted from 0."""
    import polars as pl

    lengths = [len(values) for values in series.values()]
    return pl.DataFrame(
        {
            "series": np.repeat(np.array(list(series)), lengths),
            "time": np.concatenate([np.arange(length) for length in lengths]),
            "target": np.concatenate(list(series.values())),
        }
    )


@dataclass(frozen=True)
class Entry:
    """Point forecasts (series, horizon) of each model for one group; `quantiles` are ours."""

    group: Group
    points: Mapping[str, Array]
    coverage: float | None
    training: Mapping[str, Any]


def compete(section: CompetitionSection, dataset: str, seed: int) -> dict[str, Entry]:
    """Train on each group with `seed`, forecast once what comes after, and read the others'."""
    return {one.name: _enter(one, section, dataset, seed) for one in section.groups}


def _enter(one: GroupSection, section: CompetitionSection, dataset: str, seed: int) -> Entry:
    folder = locate(dataset)
    names = None if one.info is None else read_period(folder / one.info, one.period or "")
    group = read_group(folder / one.train, folder / one.test, one.season, one.horizon, names)
    given = {"season": one.season, **section.settings, **one.settings}
    forecaster = Forecaster(**{**given, "horizon": one.horizon, "seed": seed})
    frame = long_frame(group.train)
    forecaster.fit(frame, series="series")
    series = forecaster.read(frame).series
    made = dict(
        zip([a.name for a in series], last_quantiles(forecaster.fitted, series), strict=True)
    )
    quantiles = np.stack([made[name][0] for name in group.test])
    levels = forecaster.settings.quantile_levels
    points = {OURS: quantiles[..., levels.index(0.5)], "naive": group.seasonal_naive(1)}
    if any(other.season > 1 for other in section.groups):
        points["seasonal_naive"] = group.seasonal_naive(one.season)
    for model, file in section.models.items():
        rows = read_wide(locate(section.submissions or dataset) / file, one.horizon)
        points[model] = np.stack([rows[name] for name in group.test])
    covered = coverage(group, quantiles, levels)
    return Entry(group, points, covered, forecaster.fitted.training)


def read_period(info: Path, period: str) -> list[str]:
    """Names of the series of one period, from a table with the columns `id` and `period`."""
    with _open(info) as file:
        names = [row["id"] for row in csv.DictReader(file) if row["period"] == period]
    if not names:
        raise DataError(f"{info.name} has no series with period {period!r}; correct the recipe.")
    return names


def competition_results(entries: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """One row per model: over all series and steps, and with several groups also of each.

    sMAPE is the mean over all values and MASE over all series, so a group counts by its size.
    """
    every = list(entries.values())
    models = [m for m in every[0].points if all(m in entry.points for entry in every)]
    rows = []
    for model in models:
        scores = [score_point(entry.group, entry.points[model]) for entry in every]
        metrics = _over_groups(every, scores)
        if NAIVE2 in models:
            naive2 = [score_point(entry.group, entry.points[NAIVE2]) for entry in every]
            metrics = with_owa(metrics, _over_groups(every, naive2))
        if len(every) > 1:
            named = zip(entries, scores, strict=True)
            metrics |= {f"smape_{name}": score["smape"] for name, score in named}
        if model == OURS and all(entry.coverage is not None for entry in every):
            values = [entry.group.actual.size for entry in every]
            covered = [float(entry.coverage or 0.0) for entry in every]
            metrics["coverage_80"] = float(np.average(covered, weights=values))
        rows.append(make_result(model, metrics))
    return rows


def _over_groups(
    entries: Sequence[Entry], scores: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    values = [entry.group.actual.size for entry in entries]
    series = [len(entry.group.test) for entry in entries]
    return {
        "smape": float(np.average([score["smape"] for score in scores], weights=values)),
        "mase": float(np.average([score["mase"] for score in scores], weights=series)),
    }
