"""Scenario paths of a fitted forecaster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from recurra.errors import ConfigError
from recurra.tasks.forecasting import dependence
from recurra.tasks.forecasting.autoregressive import AutoregressiveNetwork
from recurra.tasks.forecasting.continuing import draw
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.schema import restore
from recurra.tasks.forecasting.state import SeriesState

Array = npt.NDArray[np.float64]
MOST_VALUES = 200_000_000


def draw_paths(fitted: Fitted, quantiles: Array, count: int, seed: int) -> Array:
    """Paths (S, count, K, horizon) from forecasts (S, K, horizon, Q).

    Raises: ConfigError for a count that is out of range, or when only the median is forecast.
    """
    _check_count(count, quantiles[..., 0].size)
    if fitted.dependence is None:
        raise ConfigError(
            "this forecaster cannot draw paths: only the median is forecast, or its series were "
            "too short to learn how steps move together. Train with quantile_levels such as "
            "[0.1, 0.5, 0.9], or on longer series."
        )
    levels = fitted.settings.quantile_levels
    paths = dependence.draw(quantiles, levels, fitted.dependence, count, seed)
    if fitted.settings.head == "counts":
        paths = np.rint(paths)
    positive = np.array(fitted.schema.non_negative)[:, None]
    return np.where(positive, np.maximum(paths, 0.0), paths)


def draws_itself(fitted: Fitted) -> bool:
    """Whether every network makes paths of its own, and nothing moves its quantiles after."""
    own = all(isinstance(network, AutoregressiveNetwork) for network in fitted.networks)
    return own and fitted.calibration is None


def draw_rows(fitted: Fitted, states: Sequence[SeriesState], count: int, seed: int) -> Array:
    """Paths (S, count, K, horizon) after each state, each row drawn from those before it.

    Each network of an ensemble draws as many as its share of the forecast. Targets share chance as
    far as they moved together in held-out windows.

    Raises: ConfigError for a count that is out of range.
    """
    targets, horizon = len(fitted.schema.target), fitted.settings.horizon
    _check_count(count, len(states) * targets * horizon)
    z = np.random.default_rng(seed).standard_normal((len(states), count, targets, horizon))
    if fitted.dependence is not None:
        root = np.linalg.cholesky(np.array(fitted.dependence.targets))
        z = np.einsum("ij,scjh->scih", root, z)
    shares = torch.special.ndtr(torch.from_numpy(z)).clamp(1e-6, 1 - 1e-6).numpy()
    paths = np.empty_like(z)
    ends = np.rint(count * np.cumsum(fitted.shares)).astype(int).tolist()
    for network, first, end in zip(fitted.networks, [0, *ends], ends, strict=False):
        if isinstance(network, AutoregressiveNetwork) and first < end:
            mine = slice(first, end)
            paths[:, mine] = draw(network, states, shares[:, mine])
    flat = paths.transpose(0, 2, 1, 3).reshape(-1, count, horizon)
    target = np.tile(np.arange(targets), len(states))
    restored = restore(flat, target, fitted.schema).reshape(len(states), targets, count, horizon)
    return np.asarray(restored.transpose(0, 2, 1, 3))


def _check_count(count: int, values: int) -> None:
    if count < 1:
        raise ConfigError(f"count={count}; expected 1 or more paths.")
    if values * count > MOST_VALUES:
        raise ConfigError(
            f"count={count} paths of {values} values each are too many at once; expected at most "
            f"{MOST_VALUES:,} values. Ask for fewer, or for fewer series."
        )
