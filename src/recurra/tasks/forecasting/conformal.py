"""Conformal calibration: moving quantiles until held-out values fall below them as they say.

    q'_τ = q_τ + δ_τ c                        c = q_max − q_min, the outermost of the same forecast
    δ_τ = the ⌈(n + 1) τ⌉-th smallest of (y − q_τ) / c, over n held-out values

A forecast that is unsure is moved by more. Below the median the rank is ⌊(n + 1) τ⌋. The median
stays, it is the point forecast, and quantiles never cross it. Steps ahead are calibrated in groups
of neighbours that hold enough values.

Source: conformalized quantile regression, Romano, Patterson and Candès 2019, equations 6 to 9, with
a scaled score and one quantile at a time. The values of one window depend on each other, so what
is guaranteed for exchangeable values is an aim here: `Calibration.coverage` says what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from recurra.errors import ConfigError, DataError

Array = npt.NDArray[np.float64]
FEWEST = 20
ENOUGH = 100
"""Held-out values that a group of steps ahead needs to be calibrated by itself."""


class Coverage(BaseModel):
    """Share of values inside a central interval of nominal size, before and after calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nominal: float
    before: float
    after: float


class Calibration(BaseModel):
    """Shifts δ of K targets, G groups of steps ahead, Q levels.

    `coverage` was measured on the later half of the held-out windows, with the shifts that the
    earlier half asks for; the shifts that are kept come from all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shifts: tuple[tuple[tuple[float, ...], ...], ...]
    windows: int
    coverage: tuple[Coverage, ...]

    def __repr__(self) -> str:
        lines = [f"calibrated on {self.windows} windows", "interval  before   after"]
        lines += [f"{c.nominal:8.0%}  {c.before:6.1%}  {c.after:6.1%}" for c in self.coverage]
        return "\n".join(lines)

    def apply(self, quantiles: Array, levels: Sequence[float]) -> Array:
        """Calibrated quantiles (..., K, h, Q)."""
        return shifted(quantiles, np.array(self.shifts), levels)


def calibrate(quantiles: Array, actual: Array, levels: Sequence[float]) -> Calibration:
    """Learn from N held-out windows: quantiles (N, K, h, Q), actual (N, K, h), NaN where missing.

    Windows are in order of time. Raises: ConfigError when only the median is forecast, DataError
    for too few values.
    """
    if len(levels) < 2:
        raise ConfigError(
            "only the median is forecast, so there is nothing to calibrate. Train with "
            "quantile_levels such as [0.1, 0.5, 0.9]."
        )
    known = int(np.isfinite(actual).reshape(len(actual), -1).any(axis=1).sum())
    seen = int(np.isfinite(actual).sum(axis=(0, 2)).min())
    if known < 2 or seen < FEWEST:
        raise DataError(
            f"{known} held-out windows with {seen} values are too few to calibrate; expected 2 or "
            f"more windows and {FEWEST} values of every target. Keep more rows from training."
        )
    half = len(actual) // 2
    early = _shifts(quantiles[:half], actual[:half], levels)
    later = shifted(quantiles[half:], early, levels)
    return Calibration(
        shifts=tuple(
            tuple(tuple(row) for row in target)
            for target in _shifts(quantiles, actual, levels).tolist()
        ),
        windows=len(actual),
        coverage=tuple(
            Coverage(
                nominal=round(upper - lower, 10),
                before=coverage(quantiles[half:], actual[half:], levels, lower, upper),
                after=coverage(later, actual[half:], levels, lower, upper),
            )
            for lower, upper in intervals(levels)
        ),
    )


def intervals(levels: Sequence[float]) -> list[tuple[float, float]]:
    """Pairs of levels as far below the median as above it, the widest first."""
    return [
        (low, high)
        for low in levels
        for high in levels
        if low < high and math.isclose(low + high, 1.0, abs_tol=1e-9)
    ]


def coverage(
    quantiles: Array, actual: Array, levels: Sequence[float], lower: float, upper: float
) -> float:
    """Share of the known values from the quantile `lower` to the quantile `upper`."""
    levels = list(levels)
    low, high = quantiles[..., levels.index(lower)], quantiles[..., levels.index(upper)]
    known = np.isfinite(actual)
    inside = (actual >= low) & (actual <= high)
    return float(inside[known].mean()) if known.any() else float("nan")


def shifted(quantiles: Array, shifts: Array, levels: Sequence[float]) -> Array:
    """Quantiles (..., K, h, Q) moved by shifts (K, G, Q), in order, their medians as before."""
    horizon, middle = quantiles.shape[-2], list(levels).index(0.5)
    each = shifts[:, _group_of(horizon, shifts.shape[1])]
    width = quantiles[..., -1:] - quantiles[..., :1]
    moved = quantiles + each * width
    moved[..., :middle] = np.minimum(moved[..., :middle], quantiles[..., middle, None])
    moved[..., middle + 1 :] = np.maximum(moved[..., middle + 1 :], quantiles[..., middle, None])
    return np.asarray(np.sort(moved, axis=-1))


def _group_of(horizon: int, groups: int) -> npt.NDArray[np.int64]:
    """The group (h,) of each step ahead: neighbours, as alike in number as can be."""
    return np.arange(horizon) * groups // horizon


def _shifts(quantiles: Array, actual: Array, levels: Sequence[float]) -> Array:
    """Shifts (K, G, Q) that put the right share of the known values below each quantile."""
    targets, horizon = actual.shape[1:]
    fewest = int(np.isfinite(actual).sum(axis=(0, 2)).min())
    groups = max(1, min(horizon, fewest // ENOUGH))
    group = _group_of(horizon, groups)
    middle = list(levels).index(0.5)
    out = np.zeros((targets, groups, len(levels)))
    width = np.maximum(quantiles[..., -1] - quantiles[..., 0], np.finfo(float).tiny)
    for k in range(targets):
        for g in range(groups):
            chosen = group == g
            y, w = actual[:, k, chosen], width[:, k, chosen]
            known = np.isfinite(y)
            for j, level in enumerate(levels):
                if j == middle or not known.any():
                    continue
                score = ((y - quantiles[:, k, chosen, j]) / w)[known]
                out[k, g, j] = _ranked(score, level)
    return out


def _ranked(score: Array, level: float) -> float:
    """The order statistic of n scores that n + 1 exchangeable ones put a share `level` below."""
    count = len(score)
    rank = (count + 1) * level
    number = math.floor(rank) if level < 0.5 else math.ceil(rank)
    return float(np.sort(score)[min(max(number, 1), count) - 1])
