"""Arithmetic of times: units in nanoseconds, months, the calendar's waves, and how times print."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
TimeValues = npt.NDArray[Any]  # datetime64[ns], or int64 for an integer index

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
YEAR = DAY * 1461 // 4  # the Julian year, 365.25 days
EARLIEST, LATEST = np.datetime64("1678-01-01"), np.datetime64("2262-01-01")  # fits nanoseconds
MONDAY = 4  # 1970-01-05, the first Monday after the epoch, in days


def format_time(time: Any) -> str:
    """A time as people write it: 2020-01-31, 2020-01-31 06:30:00, or the integer."""
    if not isinstance(time, np.datetime64):
        return str(int(time))
    nanoseconds = int(time.astype("datetime64[ns]").astype(np.int64))
    if nanoseconds % DAY == 0:
        return str(time.astype("datetime64[D]"))
    unit = "s" if nanoseconds % SECOND == 0 else "us" if nanoseconds % 1000 == 0 else "ns"
    return str(time.astype(f"datetime64[{unit}]")).replace("T", " ")


def months(days: Indices) -> tuple[Indices, Indices, Indices]:
    """(month number since 1970-01, day of the month from 1, days in the month) of day numbers."""
    month = days.view("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    first = first_day(month)
    return month, days - first + 1, first_day(month + 1) - first


def first_day(month: Indices) -> Indices:
    return month.view("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def most_common(values: Indices) -> tuple[int, int]:
    """(the most frequent value, how often it occurs); the smallest of equals."""
    distinct, counts = np.unique(values, return_counts=True)
    best = int(counts.argmax())
    return int(distinct[best]), int(counts[best])


def day_of_month(days: Indices) -> tuple[int, int]:
    """(the day of the month that fits most of the days, how many it fits); month ends are 31."""
    _, day, length = months(days)
    candidates = [31, 30, 29, most_common(day)[0]]
    fits = [int((day == np.minimum(candidate, length)).sum()) for candidate in candidates]
    best = int(np.argmax(fits))
    return candidates[best], fits[best]


def waves(times: TimeValues, cycles: list[tuple[str, int]]) -> npt.NDArray[np.float64]:
    """Sine and cosine of where in each (cycle, harmonic) the times lie.

    Cycles are hour_of_day, day_of_week (from Monday) and day_of_year.
    Shapes: times (n,) -> (n, 2 * len(cycles)).
    """
    if not cycles:
        return np.zeros((len(times), 0))
    day, clock = np.divmod(times.view(np.int64), DAY)
    january = times.astype("datetime64[Y]")
    first = january.astype("datetime64[D]").astype(np.int64)
    length = (january + 1).astype("datetime64[D]").astype(np.int64) - first
    part = {
        "hour_of_day": clock / DAY,
        "day_of_week": ((day - MONDAY) % 7 + clock / DAY) / 7,
        "day_of_year": (day - first + clock / DAY) / length,
    }
    angles = np.stack([2 * np.pi * harmonic * part[cycle] for cycle, harmonic in cycles], axis=1)
    return np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(times), 2 * len(cycles))
