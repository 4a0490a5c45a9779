"""Inferring the frequency of a table from its times."""

from __future__ import annotations

import numpy as np

from recurra.data.calendar import (
    DAY,
    Indices,
    TimeValues,
    day_of_month,
    format_time,
    months,
    most_common,
)
from recurra.data.frequency import Frequency
from recurra.errors import DataError

_STRAYS = 0.05  # share of times that may be off the grid; reading then names the first of them
_DENSITY = 1 / 3  # share of grid points that must be filled, where the commonest step does not fit


def infer(times: TimeValues) -> Frequency:
    """Frequency of the times of all series together; order and repetition do not matter.

    Dates on the same day of the month (or at its end) are months, quarters or years, and so are
    dates in one week at the month's begin or end, which move with its weekends; days from Monday
    to Friday only are business days; all others have a fixed step. The commonest distance
    is the step if nearly all times fit it; otherwise the greatest common divisor, if at least a
    third of its grid is filled. Gaps are allowed.

    Raises: DataError for fewer than two times, or times that lie on no such grid.

    >>> infer(np.array(["2020-01-31", "2020-02-29", "2020-04-30"], "datetime64[ns]")).name
    '1 month'
    """
    if np.asarray(times).dtype.kind == "M":
        raw = np.unique(times.astype("datetime64[ns]").view(np.int64))
    else:
        raw = np.unique(np.asarray(times, np.int64))
    if len(raw) < 2:
        raise DataError(
            f"the table has {len(raw)} different time(s), so its frequency cannot be inferred. "
            "Give it: frequency='1d' (--freq 1d), or another step."
        )
    if np.asarray(times).dtype.kind != "M":
        step = _step(raw)
        if step is None:
            raise _irregular(times)
        return Frequency("integer", step).anchored(raw)
    found = _monthly(raw) or _business_daily(raw) or _fixed(raw) or _edges(raw)
    if found is None:
        raise _irregular(times)
    return found


def _fixed(raw: Indices) -> Frequency | None:
    step = _step(raw)
    if step is None:
        return None
    return Frequency("fixed", step).anchored(raw.view("datetime64[ns]"))


def _monthly(raw: Indices) -> Frequency | None:
    days, clock = np.divmod(raw, DAY)
    if np.median(np.diff(days)) < 28:
        return None
    usual_clock, same_clock = most_common(clock)
    day, same_day = day_of_month(days)
    if min(same_clock, same_day) < len(raw) - _strays(len(raw)):
        return None
    month, _, _ = months(days)
    step = _step(np.unique(month))
    if step is None:
        return None
    phase = most_common(month % step)[0]
    return Frequency("month", step, phase=phase, day=day, clock=usual_clock)


def _edges(raw: Indices) -> Frequency | None:
    """Months by their first or last trading day: once a month, in the week at one of its ends."""
    month, day, length = months(raw // DAY)
    gaps = np.diff(month)
    begins, ends = bool((day <= 7).all()), bool((day > length - 7).all())
    if not (begins or ends) or gaps.min() < 1:
        return None
    step = _step(month)
    if step is None:
        return None
    phase = most_common(month % step)[0]
    clock = most_common(raw % DAY)[0]
    return Frequency("month", step, phase=phase, day=-1 if begins else -31, clock=clock)


def _business_daily(raw: Indices) -> Frequency | None:
    """Business days: never a weekend over two of them, and most weekdays present."""
    days, clock = np.divmod(raw, DAY)
    usual_clock, same_clock = most_common(clock)
    if (
        same_clock < len(raw) - _strays(len(raw))
        or not np.is_busday(days.view("datetime64[D]")).all()
    ):
        return None
    gaps = np.diff(days)
    if most_common(gaps)[0] != 1 or (gaps == 3).sum() < 2:
        return None
    found = Frequency("business_day", 1, clock=usual_clock)
    index = found.floor(raw.view("datetime64[ns]"))
    return found if len(raw) > (index[-1] - index[0]) / 2 else None


def _step(values: Indices) -> int | None:
    """Step of sorted, distinct values, or None when they are irregular."""
    gaps = np.diff(values)
    if not len(gaps):
        return 1
    if gaps.min() < 0:  # a gap of centuries, more nanoseconds than a number holds
        return None
    usual = most_common(gaps)[0]
    fitting = most_common(values % usual)[1]
    if fitting >= len(values) - _strays(len(values)):
        return usual
    common = int(np.gcd.reduce(gaps))
    filled = len(values) / ((int(values[-1]) - int(values[0])) // common + 1)
    return common if filled >= _DENSITY else None


def _strays(count: int) -> int:
    return max(int(count * _STRAYS), 1 if count >= 5 else 0)


def _irregular(times: TimeValues) -> DataError:
    times = np.unique(times)
    gaps = np.diff(times.astype(np.int64))
    widest, closest = int(gaps.argmax()), int(gaps.argmin())
    return DataError(
        "the times lie on no regular grid: neighbours are between "
        f"{format_time(times[closest])} and {format_time(times[closest + 1])} close, and between "
        f"{format_time(times[widest])} and {format_time(times[widest + 1])} far apart. "
        "Resample the table to equal steps, or give the step (frequency=..., --freq)."
    )
