"""Rolling-origin evaluation: windows after the end of training, ours next to the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.series import Series
from recurra.errors import ConfigError, DataError
from recurra.tasks.forecasting import baselines
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.metrics import METRICS, mase_scale, score

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
OURS = "recurra"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Forecasts and truth of N windows, K targets, horizon h, Q levels.

    forecasts: per model (N, K, h, Q); actual (N, K, h), NaN where missing; number (N,) of the
    window's series; row (N,) of its last known row; scale (N, K) of its series for MASE.
    """

    target: tuple[str, ...]
    levels: tuple[float, ...]
    forecasts: dict[str, Array]
    actual: Array
    number: Integers
    row: Integers
    scale: Array
    season: int = 1
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        """The table of scores over all targets."""
        rows = self.results()
        names = list(METRICS)
        lines = ["  ".join([f"{'model':16}", *(f"{name:>11}" for name in names)])]
        for row in rows:
            values = [f"{row['metrics'].get(name, float('nan')):11.4g}" for name in names]
            lines.append("  ".join([f"{row['model']:16}", *values]))
        return "\n".join([*lines, f"{self.windows} windows", *self.notes])

    @property
    def windows(self) -> int:
        return len(self.number)

    def results(self, target: str | None = None) -> list[dict[str, Any]]:
        """One row {"model", "source", "metrics"} per model, over all targets or one of them."""
        chosen = [k for k, name in enumerate(self.target) if target in (None, name)]
        actual = self.actual[:, chosen].reshape(-1, self.actual.shape[2])
        group = (self.number[:, None] * len(self.target) + np.array(chosen)).reshape(-1)
        scale = self.scale[:, chosen].reshape(-1)
        rows = []
        for model, made in self.forecasts.items():
            quantiles = made[:, chosen].reshape(-1, *made.shape[2:])
            metrics = score(actual, quantiles, self.levels, scale, group)
            rows.append({"model": model, "source": "measured", "metrics": metrics})
        return rows

    def error_by_horizon(self, target: str) -> dict[str, Array]:
        """Mean |error| of each model's median, per step ahead (h,)."""
        k, median = self.target.index(target), self.levels.index(0.5)
        known = np.isfinite(self.actual[:, k])
        count = np.maximum(known.sum(0), 1)
        truth = np.where(known, self.actual[:, k], 0.0)
        return {
            model: np.where(known, np.abs(truth - made[:, k, :, median]), 0.0).sum(0) / count
            for model, made in self.forecasts.items()
        }

    def details(self) -> dict[str, Any]:
        """What the report draws: errors by step ahead, and calibration, per target."""
        return {
            "levels": list(self.levels),
            "error_by_horizon": {
                name: {m: e.tolist() for m, e in self.error_by_horizon(name).items()}
                for name in self.target
            },
            "calibration": {name: self.calibration(name).tolist() for name in self.target},
        }

    def calibration(self, target: str) -> Array:
        """Share of actual values at or below each of our quantiles, (Q,)."""
        k = self.target.index(target)
        known = np.isfinite(self.actual[:, k])
        below = self.actual[:, k, :, None] <= self.forecasts[OURS][:, k]
        return np.asarray(below[known].mean(0))


def rolling_origins(
    series: Sequence[Series], ends: Integers, horizon: int, windows: int | None
) -> tuple[Integers, Integers, tuple[str, ...]]:
    """(number, row, notes): windows side by side, counted back from each series' last row.

    Every origin is at or after the series' training end. `windows` per series, all that fit when
    None. Raises: DataError when no series has one, or none has as many as asked for.
    """
    if windows is not None and windows < 1:
        raise ConfigError(f"windows={windows}; expected 1 or more.")
    numbers, rows, most, short = [], [], 0, 0
    for n, one in enumerate(series):
        last = len(one.target) - 1 - horizon
        first = max(int(ends[n]) - one.start, 0)
        fit = max((last - first) // horizon + 1, 0) if last >= first else 0
        most = max(most, fit)
        count = fit if windows is None else min(fit, windows)
        short += count < (windows or 1)
        numbers += [n] * count
        rows += [last - horizon * j for j in range(count)][::-1]
    if not numbers:
        raise DataError(
            f"no window of {horizon} rows lies after the end of the training data, so there is "
            "nothing to score. Train with --until TIME (fit(..., until=...)) to keep the end of "
            "the table for evaluation, give newer rows, or use backtest, which trains again."
        )
    if windows is not None and most < windows:
        raise DataError(
            f"{windows} windows of {horizon} rows were asked for, but at most {most} fit after the "
            f"end of the training data. Ask for --windows {most}, or give newer rows."
        )
    notes: tuple[str, ...] = ()
    if short:
        notes = (f"{short} of {len(series)} series end too early for all windows",)
    return np.array(numbers, dtype=np.int64), np.array(rows, dtype=np.int64), notes


def evaluate(fitted: Fitted, series: Sequence[Series], windows: int | None) -> Evaluation:
    """Forecasts of the fitted model and of the baselines at rolling origins after its training."""
    horizon = fitted.settings.horizon
    ends = fitted.ends(series)
    number, row, notes = rolling_origins(series, ends, horizon, windows)
    if not any(
        np.isfinite(series[n].target[r + 1 : r + 1 + horizon]).any()
        for n, r in zip(number, row, strict=True)
    ):
        raise DataError(
            f"the {len(number)} windows after the training data hold no observed value, so there "
            "is nothing to score. Give rows with targets."
        )
    late = sum(bool(end < one.start) for one, end in zip(series, ends, strict=True))
    if late:
        notes = (
            *notes,
            f"{late} series of the table start after the training data: their forecasts know "
            "nothing of what was before; give the rows of training as well",
        )
    train_rows = [_train_rows(one, int(ends[n]), row[number == n]) for n, one in enumerate(series)]
    ours = fitted.quantiles(series, number, row)
    made, more = baseline_forecasts(fitted, series, number, row, train_rows)
    season = fitted.settings.season
    scale = np.array(
        [
            [mase_scale(one.target[:rows, k], season) for k in range(one.target.shape[1])]
            for one, rows in zip(series, train_rows, strict=True)
        ]
    )
    without = int((~np.isfinite(scale[np.unique(number)])).sum())
    if without:
        notes = (
            *notes,
            f"{without} of {scale[np.unique(number)].size} series and targets have no MASE: their "
            f"training rows are constant or no longer than a season ({season} rows)",
        )
    return Evaluation(
        target=fitted.schema.target,
        levels=fitted.settings.quantile_levels,
        forecasts={OURS: ours, **made},
        actual=np.stack(
            [series[n].target[r + 1 : r + 1 + horizon].T for n, r in zip(number, row, strict=True)]
        ),
        number=number,
        row=row,
        scale=scale[number],
        season=season,
        notes=(*notes, *more),
    )


def _train_rows(series: Series, end: int, origins: Integers) -> int:
    """Rows of `series` up to the training end; of one that starts later, up to its first window."""
    if end >= series.start:
        return min(end - series.start + 1, len(series.target))
    return int(origins[0]) + 1 if len(origins) else len(series.target)


def baseline_forecasts(
    fitted: Fitted,
    series: Sequence[Series],
    number: Integers,
    row: Integers,
    train_rows: Sequence[int],
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """(model → (N, K, h, Q), notes) of naive, seasonal naive and, if installed, AutoETS."""
    settings = fitted.settings
    horizon, levels, season = settings.horizon, settings.quantile_levels, settings.season
    targets = len(fitted.schema.target)
    known = [
        [one.target[:rows, k] for k in range(targets)]
        for one, rows in zip(series, train_rows, strict=True)
    ]
    histories = [
        series[n].target[: r + 1, k]
        for n, r in zip(number, row, strict=True)
        for k in range(targets)
    ]
    train = [known[n][k] for n in number for k in range(targets)]
    shape = (len(number), targets, horizon, len(levels))
    made = {"naive": baselines.naive_quantiles(histories, train, horizon, 1, levels).reshape(shape)}
    if season > 1:
        seasonal = baselines.naive_quantiles(histories, train, horizon, season, levels)
        made["seasonal_naive"] = seasonal.reshape(shape)
    reason = baselines.why_no_ets(histories, season)
    if reason:
        return made, (f"AutoETS left out: {reason}",)
    made["auto_ets"] = baselines.auto_ets(histories, horizon, season, levels).reshape(shape)
    return made, baselines.ets_limits(histories, season)
