"""Finding the season of a set of series, and the design that suits it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import DAY
from recurra.data.frequency import Frequency
from recurra.tasks.forecasting.settings import ModelSettings

Array = npt.NDArray[np.float64]
CLEAR = 0.95
"""A season is clear when values a season apart differ by less than this share of others, and by
less than 1 − 1/√n: the ratio of n values of noise is seldom lower."""
SHARE = 0.25
"""A season is taken when it is clear in this share of the series: of noise, a twentieth has one."""
BETTER = 0.8
"""A longer season must differ by less than this share of the shorter one."""
SAMPLE = 64
SEGMENTS_LOOK_BACK = 4
"""How many times as far as one step of the forking network the segment network looks back."""


def season_ratio(values: Array, season: int) -> float:
    """Mean |x_t − x_{t−season}| over the same at lags from a third to two thirds of a season.

    Below 1 when values a season apart are alike and values half a season apart are not. A random
    walk has more than 1, white noise 1. NaN when the series is shorter than two seasons, or all
    differences are 0. Missing values are left out.

    The ratio is the idea of the difference function of YIN, de Cheveigné and Kawahara 2002, section
    II.B, at one candidate lag.
    """
    if len(values) < 2 * season:
        return float("nan")
    lags = np.unique(np.linspace(season / 3, 2 * season / 3, 9).round().astype(int))
    half = float(np.mean([_difference(values, int(lag)) for lag in lags]))
    return _difference(values, season) / half if half > 0 else float("nan")


def _deviation(values: Array) -> float:
    return float(np.nanstd(values)) or 1.0


def _noise_ratio(length: int) -> float:
    return min(CLEAR, max(1 - 1 / math.sqrt(length), 0.5))


def _difference(values: Array, lag: int) -> float:
    d = np.abs(values[lag:] - values[:-lag])
    d = d[np.isfinite(d)]
    return float(d.mean()) if len(d) else 0.0


def detect_season(series: Sequence[Array], candidates: Sequence[int]) -> int:
    """The season of `series`, out of `candidates` in rows; 1 when too few show one clearly.

    A series (n,) is judged after its linear trend is removed. The shortest clear season wins,
    unless values a longer one apart are much more alike (by `BETTER`).
    """
    sample = [_detrended(values) for values in _sampled(series)]
    best, difference = 1, np.inf
    for season in sorted(candidates):
        if season < 2:
            continue
        ratios = np.array([season_ratio(x, season) / _noise_ratio(len(x)) for x in sample])
        ratios = ratios[np.isfinite(ratios)]
        if len(ratios) * 2 <= len(sample) or np.mean(ratios < 1) < SHARE:
            continue
        spread = [_difference(x, season) / _deviation(x) for x in sample if len(x) > season]
        if np.median(spread) < BETTER * difference:
            best, difference = season, float(np.median(spread))
    return best


def _sampled(series: Sequence[Array]) -> list[Array]:
    """At most `SAMPLE` of the series that hold enough to be judged, the same ones every time."""
    useful = [values for values in series if np.isfinite(values).sum() >= 3]
    # Drawn, not every n-th: with several targets that would always be the same target.
    order = np.random.default_rng(0).permutation(len(useful))
    return [useful[number] for number in sorted(order[:SAMPLE])]


def _detrended(values: Array) -> Array:
    rows = np.arange(len(values), dtype=np.float64)
    seen = np.isfinite(values)
    line = np.polyfit(rows[seen], values[seen], 1)
    return np.asarray(values - np.polyval(line, rows))


def default_context(frequency: Frequency, season: int, length: int) -> int:
    """Window of a step, in rows, for series of `length` training rows.

    Below a day a week of rows, at most 336; with a season of up to 60 rows whole seasons, at least
    two and 24 rows; otherwise 28 rows for days and 64 for all else. At most a third of `length`.
    """
    if frequency.kind == "fixed" and frequency.step < DAY and season > 1:
        context = min(7 * DAY // frequency.step, 336)
    elif 1 < season <= 60:
        context = season * max(2, -(-24 // season))
    elif frequency.kind == "fixed" and frequency.step == DAY:
        context = 28
    else:
        context = 64
    shortest = season if season <= context else 1
    return int(max(min(context, length // 3), shortest, min(4, length)))


def default_stride(frequency: Frequency, season: int, context: int) -> int:
    """Rows between recurrent steps: a day for data finer than a day, else 1/16 of a window."""
    if frequency.kind == "fixed" and frequency.step < DAY and 1 < season <= context:
        return season
    return max(1, context // 16)


def default_level(frequency: Frequency) -> int | None:
    """Rows whose mean is a window's level: the last alone for data finer than a day.

    Over hours the last value says more than the last day's mean where a day's level moves, as the
    weather's does, and hardly less elsewhere: docs/results/forecast-designs.md. None otherwise.
    """
    return 1 if frequency.kind == "fixed" and frequency.step < DAY else None


def default_segment(season: int, context: int) -> int:
    """Rows in a segment: a season where two fit in the window, else an eighth of the window."""
    if 4 <= season <= context // 2:
        return season
    return max(1, context // 8)


def default_sequence_length(stride: int) -> int:
    """Recurrent steps of one training sequence."""
    return 24 if stride == 1 else 14


def design(
    frequency: Frequency,
    season: int,
    length: int,
    *,
    horizon: int,
    context: int | None = None,
    stride: int | None = None,
    sequence_length: int | None = None,
    **network: Any,
) -> ModelSettings:
    """Model settings for series of `length` training rows; what is given is kept."""
    if network.get("model") == "autoregressive":
        return ModelSettings(
            horizon=horizon,
            context=context or max(default_context(frequency, season, length), 2),
            season=season,
            stride=stride or 1,
            sequence_length=sequence_length or 1,
            **network,
        )
    if network.get("model") == "segments":
        context = context or min(
            SEGMENTS_LOOK_BACK * default_context(frequency, season, length), max(length // 3, 1)
        )
        segment = network.pop("segment", None) or default_segment(season, context)
        return ModelSettings(
            horizon=horizon,
            context=context,
            season=season,
            segment=segment,
            stride=stride or 1,
            sequence_length=sequence_length or 1,
            **network,
        )
    context = context or default_context(frequency, season, length)
    stride = stride or default_stride(frequency, season, context)
    level = network.pop("level", None) or default_level(frequency)
    return ModelSettings(
        horizon=horizon,
        context=context,
        season=season,
        stride=stride,
        sequence_length=sequence_length or default_sequence_length(stride),
        level=level,
        **network,
    )


def choose_baseline(
    series: Sequence[Array], season: int, horizon: int
) -> Literal["naive", "seasonal_naive"]:
    """Last value or last season, whichever repeats better in most of `series`."""
    if season == 1:
        return "naive"
    ahead = np.arange(1, horizon + 1)
    seasonal_lags = season * (1 + (ahead - 1) // season)
    votes = []
    for values in _sampled(series):
        fits = seasonal_lags < len(values)
        if fits.any():
            last = np.mean([_difference(values, int(lag)) for lag in ahead[fits]])
            same_phase = np.mean([_difference(values, int(lag)) for lag in seasonal_lags[fits]])
            votes.append(same_phase < last)
    return "seasonal_naive" if votes and np.mean(votes) > 0.5 else "naive"
