"""Small tables for the forecaster's tests: ramps of integers, so that a shift in time shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recurra import Forecaster
from recurra.data.series import Columns, SeriesSet, read_series

QUICK: dict[str, Any] = {"steps": 3, "hidden_size": 8, "batch_size": 4, "progress": False}


def days(count: int, start: str = "2020-01-01") -> pl.Series:
    first = np.datetime64(start, "D")
    return pl.Series("time", first + np.arange(count))


def ramp(count: int, start: float = 100.0) -> pl.DataFrame:
    """One daily series 100, 101, 102, ..."""
    return pl.DataFrame({"time": days(count), "target": start + np.arange(count, dtype=float)})


def wave(count: int, period: int = 7, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(count)
    return 10 + 3 * np.sin(2 * np.pi * t / period) + noise * rng.standard_normal(count)


def several(counts: tuple[int, ...] = (60, 90, 40)) -> pl.DataFrame:
    """Series of different lengths and levels, two targets, all kinds of covariates."""
    frames = []
    for n, count in enumerate(counts):
        values = wave(count, seed=n) * 10.0**n
        frames.append(
            pl.DataFrame(
                {
                    "series": [f"s{n}"] * count,
                    "time": days(count, f"2020-01-{1 + n:02}"),
                    "target": values,
                    "other": np.arange(count) - 20.0 * n,
                    "price": np.cos(np.arange(count)),
                    "promo": np.arange(count) % 3 == 0,
                    "sky": ["sun" if k % 2 else "rain" for k in range(count)],
                    "size": [float(n)] * count,
                }
            )
        )
    return pl.concat(frames)


def columns(**extra: Any) -> Columns:
    return Columns(time="time", target=("target",), **extra)


def read(frame: pl.DataFrame, **extra: Any) -> SeriesSet:
    series = "series" if "series" in frame.columns else None
    return read_series(frame, columns(series=series, **extra))


def fitted_on(frame: pl.DataFrame, horizon: int = 5, **settings: Any) -> Forecaster:
    return Forecaster(horizon=horizon, **{**QUICK, **settings}).fit(frame)
