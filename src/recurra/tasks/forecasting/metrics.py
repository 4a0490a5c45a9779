"""Forecast errors on the original scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
METRICS = ("mase", "smape", "mae", "rmse", "wql", "coverage_80")


def mase_scale(history: Array, season: int) -> float:
    """Mean |y_t − y_{t−season}| of a training history (n,), missing values left out.

    A history without such pairs, or in which they never differ, has no scale: NaN.
    Source: Hyndman and Koehler 2006, "Another look at measures of forecast accuracy", section 3.
    """
    if len(history) <= season:
        return float("nan")
    d = np.abs(history[season:] - history[:-season])
    d = d[np.isfinite(d)]
    return float(d.mean()) if len(d) and d.mean() > 0 else float("nan")


def smape(actual: Array, point: Array) -> Array:
    """200 |y − f| / (|y| + |f|), per value, from 0 to 200; 0 where both are 0 (M4 competition)."""
    total = np.abs(actual) + np.abs(point)
    error = 200.0 * np.abs(actual - point)
    return np.asarray(np.divide(error, total, out=np.zeros_like(error), where=total > 0))


def quantile_loss(actual: Array, quantiles: Array, levels: Sequence[float]) -> Array:
    """2 max(τ (y − q), (τ − 1)(y − q)), averaged over levels: (..., ) from quantiles (..., Q)."""
    tau = np.asarray(levels)
    error = actual[..., None] - quantiles
    return np.asarray(2.0 * np.maximum(tau * error, (tau - 1.0) * error).mean(-1))


def score(
    actual: Array,
    quantiles: Array,
    levels: Sequence[float],
    scale: Array,
    group: npt.NDArray[np.int64],
) -> dict[str, float]:
    """All metrics over N windows; missing actual values count for nothing.

    mase is the mean over series of each series' mean |error| / scale, windows without a scale left
    out; mae, rmse, smape are means over all values; wql is Σ quantile loss / Σ |y|; coverage_80 the
    share of values inside the 10 % and 90 % quantiles, present when those levels are.

    Shapes: actual (N, h), quantiles (N, h, Q), scale (N,) and group (N,) of each window's series.
    """
    known = np.isfinite(actual)
    truth = np.where(known, actual, 0.0)
    levels = list(levels)
    point = quantiles[..., levels.index(0.5)]
    error = np.where(known, np.abs(truth - point), 0.0)
    count = int(known.sum())
    if not count:
        return dict.fromkeys(METRICS, float("nan"))
    result = {
        "mase": _mean_by_series(error, known, scale, group),
        "smape": float(np.where(known, smape(truth, point), 0.0).sum() / count),
        "mae": float(error.sum() / count),
        "rmse": float(np.sqrt((error**2).sum() / count)),
    }
    size = float(np.abs(truth)[known].sum())
    loss = float(np.where(known, quantile_loss(truth, quantiles, levels), 0.0).sum())
    result["wql"] = loss / size if size > 0 else float("nan")
    if 0.1 in levels and 0.9 in levels:
        lower, upper = quantiles[..., levels.index(0.1)], quantiles[..., levels.index(0.9)]
        inside = known & (truth >= lower) & (truth <= upper)
        result["coverage_80"] = float(inside.sum() / count)
    return result


def _mean_by_series(
    error: Array, known: npt.NDArray[np.bool_], scale: Array, group: npt.NDArray[np.int64]
) -> float:
    scaled = np.isfinite(scale)
    counted = np.where(scaled, known.sum(1), 0)
    total = np.where(scaled, error.sum(1) / np.where(scaled, scale, 1.0), 0.0)
    series, member = np.unique(group, return_inverse=True)
    counts = np.bincount(member, counted, len(series))
    sums = np.bincount(member, total, len(series))
    used = counts > 0
    return float((sums[used] / counts[used]).mean()) if used.any() else float("nan")
