"""The forecasts that any model must beat: last value, last season, and a statistical one."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.tasks.forecasting.panel import fill_forward

Array = npt.NDArray[np.float64]
LOOK_BACK = 64
MAX_ETS_COST = 1_000_000
"""Rows that AutoETS may be fitted to in all, which takes about a minute; it is fitted anew for
every window, and a season makes a row cost several times as much."""
SEASONAL_COST = 20
MAX_ETS_SEASON = 24
MAX_ETS_ROWS = 2000
MIN_ETS_ROWS = 10


def naive(history: Array, horizon: int) -> Array:
    """The last value observed, repeated: (horizon,)."""
    return seasonal_naive(history, horizon, 1)


def seasonal_naive(history: Array, horizon: int, season: int) -> Array:
    """The last season, repeated: (horizon,). With less than a season of history, `naive`."""
    # The end is enough, and quick, when it shows what came before its last season.
    end = history[-2 * season - LOOK_BACK :]
    if len(end) < len(history) and not np.isfinite(end[:-season]).any():
        end = history
    filled, _ = fill_forward(end)
    if len(filled) < season:
        season = 1
    return np.asarray(filled[len(filled) - season + np.arange(horizon) % season])


def error_quantiles(history: Array, horizon: int, season: int, levels: Sequence[float]) -> Array:
    """Quantiles (horizon, Q) of the errors that the seasonal naive forecast made within `history`.

    Centred so that the median is 0: the point forecast stays the baseline. 0 without enough rows.
    """
    lags = season * (1 + np.arange(horizon) // season)
    spread = {int(lag): _spread(history, int(lag), levels) for lag in np.unique(lags)}
    return np.stack([spread[int(lag)] for lag in lags])


def _spread(history: Array, lag: int, levels: Sequence[float]) -> Array:
    """Quantiles (Q,) of the changes over `lag` rows, less their median."""
    error = history[lag:] - history[:-lag]
    error = error[np.isfinite(error)]
    if len(error) < 2:
        return np.zeros(len(levels))
    *quantiles, median = np.quantile(error, [*levels, 0.5])
    return np.asarray(quantiles) - float(median)


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


def why_no_ets(histories: Sequence[Array], season: int) -> str | None:
    """Why AutoETS cannot be run on these histories, or None when it can."""
    if importlib.util.find_spec("statsforecast") is None:
        return "statsforecast is not installed (pip install 'recurra[baselines]')"
    seasonal = SEASONAL_COST if 1 < season <= MAX_ETS_SEASON else 1
    cost = seasonal * sum(min(len(history), MAX_ETS_ROWS) for history in histories)
    if cost > MAX_ETS_COST:
        return (
            f"fitting it anew for {len(histories)} windows of up to {MAX_ETS_ROWS} rows would take "
            "minutes; ask for fewer windows (--windows)"
        )
    shortest = min(int(np.isfinite(history).sum()) for history in histories)
    if shortest < MIN_ETS_ROWS:
        return f"a history has {shortest} values, fewer than {MIN_ETS_ROWS}"
    return None


def ets_limits(histories: Sequence[Array], season: int) -> tuple[str, ...]:
    """What AutoETS is not given, in words."""
    notes = []
    if season > MAX_ETS_SEASON:
        notes.append(
            f"auto_ets knows no season here: {season} rows are more than the {MAX_ETS_SEASON} that "
            "it can take"
        )
    longest = max(len(history) for history in histories)
    if longest > MAX_ETS_ROWS:
        notes.append(f"auto_ets is fitted to the last {MAX_ETS_ROWS} of up to {longest} rows")
    return tuple(notes)


def auto_ets(
    histories: Sequence[Array], horizon: int, season: int, levels: Sequence[float]
) -> Array:
    """Quantiles (N, horizon, Q) of statsforecast's AutoETS, fitted to each history.

    Seasons longer than 24 rows are beyond it and are left out, as are rows before the last 2,000.
    Gaps are filled forward, as it takes none.
    Source: Hyndman et al. 2002, "A state space framework for automatic forecasting using
    exponential smoothing methods".
    """
    from statsforecast.models import AutoETS

    widths: list[Any] = sorted({_width(level) for level in levels} - {0})
    out = []
    for history in histories:
        filled, _ = fill_forward(history)
        seen = filled[np.argmax(np.isfinite(history)) :][-MAX_ETS_ROWS:]
        period = season if season <= MAX_ETS_SEASON and len(seen) >= 2 * season else 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = AutoETS(season_length=period).forecast(y=seen, h=horizon, level=widths or None)
        columns = []
        for level in levels:
            side = "hi" if level > 0.5 else "lo"
            name = "mean" if level == 0.5 else f"{side}-{_width(level)}"
            columns.append(np.asarray(made[name], dtype=np.float64))
        out.append(np.stack(columns, axis=1))
    return np.stack(out)


def _width(level: float) -> float:
    """Width in per cent of the interval that ends at a quantile, a whole number where it is one."""
    width = round(100 * abs(2 * level - 1), 6)
    return int(width) if width == int(width) else width
