"""The forecasts that any model must beat: last value, last season, and a statistical one."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recurra.tasks.forecasting.panel import fill_forward

Array = npt.NDArray[np.float64]
MAX_FITS = 400
"""Statistical models are fitted anew for every window; above this many they would take minutes."""
MAX_ETS_SEASON = 24
MIN_ETS_ROWS = 10


def naive(history: Array, horizon: int) -> Array:
    """The last value observed, repeated: (horizon,)."""
    return seasonal_naive(history, horizon, 1)


def seasonal_naive(history: Array, horizon: int, season: int) -> Array:
    """The last season, repeated: (horizon,). With less than a season of history, `naive`."""
    filled, _ = fill_forward(history)
    if len(filled) < season:
        season = 1
    return np.asarray(filled[len(filled) - season + np.arange(horizon) % season])


def error_quantiles(history: Array, horizon: int, season: int, levels: Sequence[float]) -> Array:
    """Quantiles (horizon, Q) of the errors that the seasonal naive forecast made within `history`.

    Centred so that the median is 0: the point forecast stays the baseline. 0 without enough rows.
    """
    out = np.zeros((horizon, len(levels)))
    for k in range(1, horizon + 1):
        lag = season * (1 + (k - 1) // season)
        if len(history) > lag + 1:
            error = history[lag:] - history[:-lag]
            error = error[np.isfinite(error)]
            if len(error) >= 2:
                out[k - 1] = np.quantile(error, levels) - np.quantile(error, 0.5)
    return out


def naive_quantiles(
    histories: Sequence[Array],
    train: Sequence[Array],
    horizon: int,
    season: int,
    levels: Sequence[float],
) -> Array:
    """Quantiles (N, horizon, Q) of the (seasonal) naive forecast after each of N histories.

    `train` gives each one's training history, whose errors make the interval.
    """
    spread: dict[int, Array] = {}
    out = []
    for history, known in zip(histories, train, strict=True):
        if id(known) not in spread:
            spread[id(known)] = error_quantiles(known, horizon, season, levels)
        out.append(seasonal_naive(history, horizon, season)[:, None] + spread[id(known)])
    return np.stack(out)


def why_no_ets(histories: Sequence[Array]) -> str | None:
    """Why AutoETS cannot be run on these histories, or None when it can."""
    if importlib.util.find_spec("statsforecast") is None:
        return "statsforecast is not installed (pip install 'recurra[baselines]')"
    if len(histories) > MAX_FITS:
        return f"it is fitted anew for each of {len(histories)} windows, more than {MAX_FITS}"
    shortest = min(int(np.isfinite(history).sum()) for history in histories)
    if shortest < MIN_ETS_ROWS:
        return f"a history has {shortest} values, fewer than {MIN_ETS_ROWS}"
    return None


def auto_ets(
    histories: Sequence[Array], horizon: int, season: int, levels: Sequence[float]
) -> Array:
    """Quantiles (N, horizon, Q) of statsforecast's AutoETS, fitted to each history.

    Seasons longer than 24 rows are beyond it and are left out. Gaps are filled forward, as it takes
    none. Source: Hyndman et al. 2002, "A state space framework for automatic forecasting using
    exponential smoothing methods".
    """
    from statsforecast.models import AutoETS

    widths = sorted({round(100 * abs(2 * level - 1)) for level in levels} - {0})
    out = []
    for history in histories:
        filled, _ = fill_forward(history)
        seen = filled[np.argmax(np.isfinite(history)) :]
        period = season if season <= MAX_ETS_SEASON and len(seen) >= 2 * season else 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = AutoETS(season_length=period).forecast(y=seen, h=horizon, level=widths or None)
        columns = []
        for level in levels:
            side = "hi" if level > 0.5 else "lo"
            name = "mean" if level == 0.5 else f"{side}-{round(100 * abs(2 * level - 1))}"
            columns.append(np.asarray(made[name], dtype=np.float64))
        out.append(np.stack(columns, axis=1))
    return np.stack(out)
