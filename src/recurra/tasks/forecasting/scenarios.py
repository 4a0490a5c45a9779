"""Scenario paths of a fitted forecaster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError
from recurra.tasks.forecasting.dependence import draw
from recurra.tasks.forecasting.fitted import Fitted

Array = npt.NDArray[np.float64]
MOST_VALUES = 200_000_000


def draw_paths(fitted: Fitted, quantiles: Array, count: int, seed: int) -> Array:
    """Paths (S, count, K, horizon) from forecasts (S, K, horizon, Q).

    Raises: ConfigError for a count that is out of range, or when only the median is forecast.
    """
    if count < 1:
        raise ConfigError(f"count={count}; expected 1 or more paths.")
    if quantiles[..., 0].size * count > MOST_VALUES:
        raise ConfigError(
            f"count={count} paths of {quantiles[..., 0].size} values each are too many at once; "
            f"expected at most {MOST_VALUES:,} values. Ask for fewer, or for fewer series."
        )
    if fitted.dependence is None:
        raise ConfigError(
            "this forecaster cannot draw paths: only the median is forecast, or its series were "
            "too short to learn how steps move together. Train with quantile_levels such as "
            "[0.1, 0.5, 0.9], or on longer series."
        )
    paths = draw(quantiles, fitted.settings.quantile_levels, fitted.dependence, count, seed)
    if fitted.settings.head == "counts":
        paths = np.rint(paths)
    positive = np.array(fitted.schema.non_negative)[:, None]
    return np.where(positive, np.maximum(paths, 0.0), paths)
