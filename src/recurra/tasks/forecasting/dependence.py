"""Scenario paths: a Gaussian copula over the quantiles of the steps ahead.

    z_k = Φ⁻¹(share of the forecast below y_k)       of step ahead k; N(0, 1) if it is calibrated
    corr(z_i, z_j) = w + (1 − w) ρ^|i − j|           a common part, and one that decays

A path draws z and reads each step's quantile function at Φ(z_k). So paths have the quantiles that
are forecast, and move together from step to step as values did around earlier forecasts. Quantiles
are interpolated over z, linearly, and go on beyond the outermost levels as a normal one's do.

Source: Schefzik, Thorarinsdottir and Gneiting 2013, "Uncertainty Quantification in Complex
Simulation Models Using Ensemble Copula Coupling", section 2, with a parametric correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from recurra.errors import ConfigError

Array = npt.NDArray[np.float64]
GRID = 41
LARGEST_SCORE = 3.0
SHRINK = 20
"""Pairs of values that the correlation of two targets is shrunk by."""


class Dependence(BaseModel):
    """Correlation of the steps ahead, `common` w and `decay` ρ; `targets` (K, K) at one step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    common: float = Field(ge=0.0, le=1.0)
    decay: float = Field(ge=0.0, lt=1.0)
    targets: tuple[tuple[float, ...], ...]


def is_correlation(matrix: Array) -> bool:
    """Whether a square matrix is symmetric, has ones on its diagonal and is positive definite."""
    if not np.allclose(matrix, matrix.T) or not np.allclose(np.diag(matrix), 1.0):
        return False
    return bool(np.linalg.eigvalsh(matrix)[0] > 1e-9)


def learn_dependence(quantiles: Array, actual: Array, levels: Sequence[float]) -> Dependence:
    """From N windows: quantiles (N, K, h, Q), actual (N, K, h), NaN where missing."""
    targets = actual.shape[1]
    z = np.clip(scores(quantiles, actual, levels), -LARGEST_SCORE, LARGEST_SCORE)
    common, decay = _fit_lags(*_lag_correlations(z))
    return Dependence(common=common, decay=decay, targets=_between_targets(z, targets))


def scores(quantiles: Array, actual: Array, levels: Sequence[float]) -> Array:
    """z of every value, by the interpolation that `draw` uses; NaN where it is missing."""
    nodes = _nodes(levels)
    rising = np.maximum.accumulate(quantiles, axis=-1)
    above = (rising <= actual[..., None]).sum(-1)
    left = np.clip(above - 1, 0, len(levels) - 2)
    low = np.take_along_axis(rising, left[..., None], -1)[..., 0]
    high = np.take_along_axis(rising, left[..., None] + 1, -1)[..., 0]
    width = np.maximum(high - low, np.finfo(float).tiny)
    with np.errstate(over="ignore"):
        z = nodes[left] + (actual - low) / width * (nodes[left + 1] - nodes[left])
    return np.asarray(np.where(np.isfinite(actual), z, np.nan))


def draw(
    quantiles: Array, levels: Sequence[float], dependence: Dependence, count: int, seed: int
) -> Array:
    """Paths (S, count, K, h) from quantiles (S, K, h, Q); of one seed always the same.

    Raises: ConfigError when only the median is forecast.
    """
    if len(levels) < 2:
        raise ConfigError(
            "only the median is forecast, so no path can be drawn. Train with quantile_levels such "
            "as [0.1, 0.5, 0.9]."
        )
    series, targets, horizon, _ = quantiles.shape
    rng = np.random.default_rng(seed)
    shape = (series, count, targets)
    free = rng.standard_normal((*shape, horizon + 1))
    z = np.empty((*shape, horizon))
    moving = free[..., 0]
    for k in range(horizon):
        if k:
            moving = dependence.decay * moving + np.sqrt(1 - dependence.decay**2) * free[..., k]
        z[..., k] = np.sqrt(1 - dependence.common) * moving
    z += np.sqrt(dependence.common) * free[..., -1:]
    root = np.linalg.cholesky(np.array(dependence.targets))
    z = np.einsum("ij,scjh->scih", root, z)
    nodes = _nodes(levels)
    left = np.clip(np.searchsorted(nodes, z, side="right") - 1, 0, len(nodes) - 2)
    spread = np.broadcast_to(quantiles[:, None], (*z.shape, len(levels)))
    low = np.take_along_axis(spread, left[..., None], -1)[..., 0]
    high = np.take_along_axis(spread, left[..., None] + 1, -1)[..., 0]
    return np.asarray(low + (z - nodes[left]) / (nodes[left + 1] - nodes[left]) * (high - low))


def _nodes(levels: Sequence[float]) -> Array:
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def _lag_correlations(z: Array) -> tuple[Array, Array]:
    """(correlation, pairs) of values 1 … h − 1 steps apart in one window; z has mean 0 if right."""
    horizon = z.shape[-1]
    known = np.isfinite(z)
    value = np.where(known, z, 0.0)
    variance = float((value**2).sum() / max(known.sum(), 1)) or 1.0
    found, pairs = [], []
    for lag in range(1, horizon):
        both = known[..., lag:] & known[..., :-lag]
        count = int(both.sum())
        product = float((value[..., lag:] * value[..., :-lag]).sum())
        found.append(product / count / variance if count else 0.0)
        pairs.append(count)
    return np.array(found), np.array(pairs, dtype=np.float64)


def _fit_lags(correlation: Array, pairs: Array) -> tuple[float, float]:
    """(w, ρ) of least squares over the lags, each weighted by its pairs; (0, 0) without any."""
    if not pairs.sum():
        return 0.0, 0.0
    lag = np.arange(1, len(correlation) + 1)
    best, found = np.inf, (0.0, 0.0)
    for decay in np.linspace(0.0, 0.995, GRID):
        part = decay**lag
        slope = 1.0 - part
        weight = (pairs * slope**2).sum()
        common = (pairs * slope * (correlation - part)).sum() / weight if weight > 0 else 0.0
        common = float(np.clip(common, 0.0, 0.995))
        error = (pairs * (correlation - common - (1 - common) * part) ** 2).sum()
        if error < best:
            best, found = error, (common, float(decay))
    return found


def _between_targets(z: Array, targets: int) -> tuple[tuple[float, ...], ...]:
    """Correlation of the targets at one step ahead, shrunk towards none when values are few."""
    flat = np.moveaxis(z, 1, -1).reshape(-1, targets)
    flat = flat[np.isfinite(flat).all(1)]
    if targets == 1 or len(flat) < 2:
        return tuple(tuple(row) for row in np.eye(targets).tolist())
    deviation = np.maximum(np.sqrt((flat**2).mean(0)), 1e-12)
    found = (flat / deviation).T @ (flat / deviation) / len(flat)
    found *= len(flat) / (len(flat) + SHRINK)
    np.fill_diagonal(found, 1.0)
    return tuple(tuple(row) for row in found.tolist())
