"""What a fitted forecaster knows about its tables: columns, grid, transforms, covariate scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from recurra.data.frequency import Frequency
from recurra.data.series import Columns, Series, SeriesSet
from recurra.errors import DataError
from recurra.tasks.forecasting.panel import Panel, make_panel

Array = npt.NDArray[np.float64]
MIN_RATIO = 0.05
LARGEST = 1e100
LARGEST_LOG = 700.0


class CovariateScale(BaseModel):
    """Mean and standard deviation of each covariate column over the training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, values: Array) -> CovariateScale:
        """Of the columns of `values` (n, columns); a constant column is left as it is.

        Values count up to 1e100, whose squares are numbers still.
        """
        if not values.shape[1]:
            return cls(mean=(), deviation=())
        values = np.clip(values, -LARGEST, LARGEST)
        seen = np.where(np.isfinite(values).any(0), values, 0.0)
        mean, deviation = np.nanmean(seen, 0), np.nanstd(seen, 0)
        deviation = np.where(deviation > 1e-12, deviation, 1.0)
        return cls(mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))

    def apply(self, values: Array) -> Array:
        """Columns in units of their deviation; NaN, where nothing is known, stays."""
        values = np.clip(values, -LARGEST, LARGEST)
        return np.asarray((values - np.array(self.mean)) / np.array(self.deviation))


class Schema(BaseModel):
    """The table a forecaster was trained on; saved in config.json.

    logarithm says which targets are modelled by their logarithm. A target that was never negative
    is never forecast to be (`non_negative`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str
    target: tuple[str, ...]
    series: str | None
    future: tuple[str, ...]
    past: tuple[str, ...]
    static: tuple[str, ...]
    frequency: dict[str, Any]
    categories: dict[str, list[str]]
    time_format: str | None
    logarithm: tuple[bool, ...]
    non_negative: tuple[bool, ...]
    future_scale: CovariateScale
    past_scale: CovariateScale
    static_scale: CovariateScale
    baseline: Literal["naive", "seasonal_naive"]

    @model_validator(mode="after")
    def _check_together(self) -> Schema:
        for name in ("logarithm", "non_negative"):
            if len(getattr(self, name)) != len(self.target):
                raise ValueError(f"{name} must have one entry for each of {list(self.target)}")
        return self

    @property
    def columns(self) -> Columns:
        return Columns(
            time=self.time,
            target=self.target,
            series=self.series,
            future=self.future,
            past=self.past,
            static=self.static,
        )

    @property
    def grid(self) -> Frequency:
        return Frequency.from_json(self.frequency)


def learn_schema(
    table: SeriesSet,
    baseline: Literal["naive", "seasonal_naive"],
    logarithm: bool | None = None,
) -> Schema:
    """The schema of a training table; `logarithm` None takes it for the targets that suit it.

    Raises: DataError when a target whose logarithm is asked for has no positive value.
    """
    columns, series = table.columns, table.series
    return Schema(
        time=columns.time,
        target=columns.target,
        series=columns.series,
        future=columns.future,
        past=columns.past,
        static=columns.static,
        frequency=table.frequency.to_json(),
        categories=dict(table.categories),
        time_format=table.time_format,
        logarithm=tuple(
            suits_logarithm([one.target[:, k] for one in series])
            if logarithm is None
            else logarithm and _has_logarithm(name, [one.target[:, k] for one in series])
            for k, name in enumerate(columns.target)
        ),
        non_negative=tuple(
            all(not (one.target[:, k] < 0).any() for one in series)
            for k in range(len(columns.target))
        ),
        future_scale=CovariateScale.of(
            np.concatenate([one.future[: len(one.target)] for one in series])
        ),
        past_scale=CovariateScale.of(np.concatenate([one.past for one in series])),
        static_scale=CovariateScale.of(np.stack([one.static for one in series])),
        baseline=baseline,
    )


def _has_logarithm(name: str, values: Sequence[Array]) -> bool:
    if not any((one > 0).any() for one in values):
        raise DataError(
            f"the target {name!r} has no positive value, so logarithm=True leaves nothing to learn "
            "from. Leave logarithm out, or give False."
        )
    return True


def suits_logarithm(values: Sequence[Array]) -> bool:
    """Whether a target grows in proportion to its level and keeps away from 0.

    Every value is positive and, in nearly all series, the smallest hundredth is no less than a
    twentieth of the median.
    """
    suited = 0
    for one in values:
        seen = one[np.isfinite(one)]
        if (seen <= 0).any():
            return False
        suited += not len(seen) or bool(np.quantile(seen, 0.01) >= MIN_RATIO * np.median(seen))
    return suited >= 0.95 * len(values)


def check_size(target: Array) -> None:
    """Raises: DataError for a value whose square is no longer a number."""
    if (np.abs(target) > LARGEST).any():
        raise DataError(
            f"a target holds {np.nanmax(np.abs(target)):g}; expected values up to {LARGEST:g}. "
            "Correct it, or change the unit."
        )


def transform(target: Array, schema: Schema) -> Array:
    """Targets (n, K) on the scale that is modelled.

    What has no logarithm, 0 or less in a target that training never saw near 0, is missing.
    Raises: DataError for a value whose square is no longer a number.
    """
    check_size(target)
    out = target.copy()
    for k, logarithm in enumerate(schema.logarithm):
        if logarithm:
            positive = np.where(target[:, k] > 0, target[:, k], np.nan)
            out[:, k] = np.log(positive)
    return out


def restore(quantiles: Array, target: npt.NDArray[np.int64], schema: Schema) -> Array:
    """Quantiles (N, horizon, Q) of the targets with numbers (N,), back on the original scale."""
    logarithm = np.array(schema.logarithm)[target]
    out = quantiles.copy()
    out[logarithm] = np.exp(np.minimum(out[logarithm], LARGEST_LOG))
    positive = np.array(schema.non_negative)[target]
    out[positive] = np.maximum(out[positive], 0.0)
    return out


def prepare(series: Series, schema: Schema) -> Series:
    """The series as the network sees it: targets transformed, covariates scaled."""
    # Beyond the last row NaN stays, for `check_future` to find; a gap in the past is the mean.
    future = schema.future_scale.apply(series.future)
    rows = len(series.target)
    future[:rows] = np.nan_to_num(future[:rows])
    return replace(
        series,
        target=transform(series.target, schema),
        past=np.nan_to_num(schema.past_scale.apply(series.past)),
        future=future,
        static=np.nan_to_num(schema.static_scale.apply(series.static)),
    )


def build_panel(series: Sequence[Series], schema: Schema, horizon: int) -> Panel:
    """The panel of raw `series` under `schema`."""
    grid = schema.grid
    calendars = [
        grid.calendar(one.start + np.arange(len(one.target) + horizon, dtype=np.int64))
        for one in series
    ]
    return make_panel([prepare(one, schema) for one in series], calendars, horizon)
