"""The grid that a table's times lie on: inferring it, counting along it, seasons and calendar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import (
    DAY,
    HOUR,
    MINUTE,
    MONDAY,
    SECOND,
    WEEK,
    YEAR,
    Indices,
    TimeValues,
    day_of_month,
    first_day,
    format_time,
    months,
    most_common,
    waves,
)
from recurra.errors import ConfigError, DataError, unknown

# Longest first, so that a step is named by the largest unit that divides it.
_FIXED_UNITS = {
    "week": WEEK,
    "day": DAY,
    "hour": HOUR,
    "minute": MINUTE,
    "second": SECOND,
    "millisecond": SECOND // 1000,
    "microsecond": SECOND // 1_000_000,
    "nanosecond": 1,
}
_MONTH_UNITS = {"year": 12, "quarter": 3, "month": 1}
_SHORT = {
    "ns": "nanosecond",
    "us": "microsecond",
    "ms": "millisecond",
    "s": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "q": "quarter",
    "y": "year",
    "b": "business day",
    "i": "step",
}
_KINDS = ("fixed", "month", "business_day", "integer")


@dataclass(frozen=True)
class Frequency:
    """A regular grid of times; grid index and time convert into each other.

    fixed          time = phase + index · step, in nanoseconds since 1970 (UTC or local, as given)
    month          month number since 1970-01 = phase + index · step, on day `day` at `clock`
    business_day   Monday to Friday, counted from 1970-01-05, at `clock`
    integer        time = phase + index · step

    `day` is the day of the month, cut to the month's length (31 is the month's end). A negative
    one accepts any day and time of the month, as for last trading days, and writes that day.
    `clock` is the time of day in nanoseconds.

    >>> hourly = parse("1h")
    >>> hourly.name, hourly.seasons()
    ('1 hour', (24, 168, 8766))
    >>> hourly.index(np.array(["1970-01-01T05"], "datetime64[ns]"))
    array([5])
    """

    kind: str
    step: int
    phase: int = 0
    day: int = 1
    clock: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(unknown("frequency kind", self.kind, _KINDS))
        if self.step < 1 or not 1 <= abs(self.day) <= 31 or not 0 <= self.clock < DAY:
            raise ConfigError(
                f"frequency {self.kind} has step {self.step}, day {self.day}, clock {self.clock}; "
                f"expected step >= 1, day 1 to 31 and clock 0 to {DAY - 1}. Correct the setting."
            )

    @property
    def name(self) -> str:
        """What people call it: '1 hour', '15 minutes', '1 quarter'; `parse` reads it back."""
        if self.kind == "business_day":
            return "1 business day"
        if self.kind == "integer":
            return _counted(self.step, "step")
        units = _MONTH_UNITS if self.kind == "month" else _FIXED_UNITS
        unit = next(unit for unit, size in units.items() if self.step % size == 0)
        return _counted(self.step // units[unit], unit)

    @property
    def is_civil(self) -> bool:
        """True when the grid is made of calendar days, so that clocks of a time zone matter."""
        return self.kind in ("month", "business_day") or (
            self.kind == "fixed" and self.step % DAY == 0
        )

    def on_grid(self, times: TimeValues) -> npt.NDArray[np.bool_]:
        """For each time, whether it is a point of the grid."""
        raw = self._raw(times)
        if self.kind in ("fixed", "integer"):
            return np.equal((raw - self.phase) % self.step, 0)
        days, clock = np.divmod(raw, DAY)
        good: npt.NDArray[np.bool_] = clock == self.clock
        if self.kind == "business_day":
            return good & ((days - MONDAY) % 7 < 5)
        month, day, length = months(days)
        good &= day == np.minimum(self.day, length)
        fits: npt.NDArray[np.bool_] = (month - self.phase) % self.step == 0
        return fits if self.day < 0 else fits & good

    def index(self, times: TimeValues) -> Indices:
        """Grid index of each time.

        Raises: DataError when a time is off the grid; it names the time and its neighbours.
        """
        off = np.flatnonzero(~self.on_grid(times))
        if off.size:
            row = int(off[0])
            raise DataError(f"position {row}: {self.off_grid_message(times[row])}")
        return self.floor(times)

    def floor(self, times: TimeValues) -> Indices:
        """Index of the last grid point that is not after each time."""
        raw = self._raw(times)
        if self.kind in ("fixed", "integer"):
            return (raw - self.phase) // self.step
        days, clock = np.divmod(raw, DAY)
        if self.kind == "business_day":
            days = days - (clock < self.clock)
            week, weekday = np.divmod(days - MONDAY, 7)
            return week * 5 + np.minimum(weekday, 4)
        month, _, _ = months(days)
        index: Indices = (month - self.phase) // self.step
        if self.day < 0:
            return index
        late: Indices = index - (self._raw(self.times(index)) > raw)
        return late

    def times(self, index: Indices) -> TimeValues:
        """Times of grid indices: datetime64[ns], or int64 for an integer index."""
        index = np.asarray(index, np.int64)
        if self.kind == "integer":
            return np.add(self.phase, index * self.step)
        moments = self.phase + index * self.step
        if self.kind == "business_day":
            week, weekday = np.divmod(index, 5)
            moments = (week * 7 + weekday + MONDAY) * DAY + self.clock
        elif self.kind == "month":
            first, after = first_day(moments), first_day(moments + 1)
            moments = (first + np.minimum(abs(self.day), after - first) - 1) * DAY + self.clock
        values: TimeValues = np.asarray(moments, np.int64).view("datetime64[ns]")
        return values

    def off_grid_message(self, time: Any) -> str:
        """Say that `time` is not on the grid, with the grid points before and after it."""
        before = self.floor(np.array([time]))
        around = self.times(np.concatenate([before, before + 1]))
        return (
            f"time {format_time(time)} is not on the grid of {self.name}; expected "
            f"{format_time(around[0])} or {format_time(around[1])}. Correct or remove that row, "
            "resample the table, or give the frequency (frequency=..., --freq)."
        )

    def anchored(self, times: TimeValues) -> Frequency:
        """The same step, shifted to where most of the times lie."""
        if not len(times):
            return self
        raw = self._raw(times)
        if self.kind in ("fixed", "integer"):
            return replace(self, phase=most_common(raw % self.step)[0])
        days, clock = np.divmod(raw, DAY)
        moved = replace(self, clock=most_common(clock)[0])
        if self.kind == "business_day":
            return moved
        month, _, _ = months(days)
        phase = most_common(month % self.step)[0]
        moved = replace(moved, phase=phase, day=day_of_month(days)[0])
        # Asked for months by name, days may differ (the last trading day): any day then counts.
        return moved if bool(moved.on_grid(times).all()) else replace(moved, day=-moved.day)

    def seasons(self) -> tuple[int, ...]:
        """Candidate season lengths in steps, shortest first; empty when none is natural."""
        if self.kind == "business_day":
            return (5, 261)
        if self.kind == "month":
            return (12 // self.step,) if self.step < 12 and 12 % self.step == 0 else ()
        if self.kind == "integer":
            return ()
        found = []
        for period in (MINUTE, HOUR, DAY, WEEK, YEAR):
            exact = period % self.step == 0 or period == YEAR
            # Minutes and hours are cycles of machines: only for data that resolves them finely.
            fine = 60 if period < DAY else 2
            if exact and period / self.step >= fine:
                found.append(round(period / self.step))
        return tuple(found)

    @property
    def calendar_names(self) -> tuple[str, ...]:
        """Names of the columns of `calendar`."""
        cycles = [f"{cycle}{n if n > 1 else ''}" for cycle, n in self._cycles()]
        return tuple(f"{cycle}_{wave}" for cycle in cycles for wave in ("sin", "cos"))

    def calendar(self, index: Indices) -> npt.NDArray[np.float64]:
        """Where in the day, week and year each grid index lies, as sine and cosine.

        Shapes: index (n,) -> (n, C), C = len(calendar_names), 0 for integers and years.
        """
        times = self.times(index)
        if self.kind == "integer":
            return np.zeros((len(times), 0))
        return waves(times, self._cycles())

    def calendar_between(self, first: int, after: int) -> npt.NDArray[np.float64]:
        """`calendar` of the grid indices from `first` to before `after`."""
        return self.calendar(np.arange(first, after, dtype=np.int64))

    def _cycles(self) -> list[tuple[str, int]]:
        if self.kind == "integer":
            return []
        step = {"fixed": self.step, "month": self.step * (YEAR // 12)}.get(self.kind, DAY)
        cycles = [("hour_of_day", 1)] if step < DAY else []
        cycles += [("day_of_week", 1)] if step < WEEK else []
        # A step of 365 days is a year to every reader, though a little shorter than YEAR.
        cycles += [("day_of_year", 1), ("day_of_year", 2)] if step < 365 * DAY else []
        return cycles

    def _raw(self, times: TimeValues) -> Indices:
        """Times as int64, after checking that they are of this grid's sort."""
        times = np.asarray(times)
        if (times.dtype.kind == "M") == (self.kind == "integer"):
            seen = "dates" if times.dtype.kind == "M" else "integers"
            wanted = "integers" if self.kind == "integer" else "dates"
            raise DataError(
                f"the times are {seen}, but the frequency {self.name} counts {wanted}. "
                f"Give a time column of {wanted}, or another frequency."
            )
        if self.kind != "integer":
            return times.astype("datetime64[ns]").view(np.int64)
        return times.astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {
            "name": self.name,
            "kind": self.kind,
            "step": self.step,
            "phase": self.phase,
            "day": self.day,
            "clock": self.clock,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Frequency:
        """Read what `to_json` wrote.

        Raises: ConfigError when a key is missing, unknown or not of its type.
        """
        keys = ("kind", "step", "phase", "day", "clock")
        numbers = all(type(value.get(key)) is int for key in keys[1:])
        if set(value) - {"name"} != set(keys) or not numbers:
            raise ConfigError(
                f"not a frequency: {dict(value)!r}; expected the keys {', '.join(keys)}, whole "
                "numbers but for kind. Restore the file from a copy."
            )
        return cls(**{key: value[key] for key in keys})


def parse(text: str) -> Frequency:
    """Frequency from text such as '1h', '15min', 'd', 'w', '1mo', '1q', '1y', 'b', '2 weeks'.

    'b' is business days and 'i' an integer index. The phase is 0; `anchored` moves it to the data.

    Raises: ConfigError for an unknown unit (the message lists them) or a count of 0.

    >>> parse("1q").name, parse("90min").name
    ('1 quarter', '90 minutes')
    """
    match = re.fullmatch(r"(\d{0,9})\s*([a-z ]+)", text.strip().lower())
    unit = match[2].strip() if match else text
    singular = unit.removesuffix("s")
    unit = _SHORT.get(unit, singular)
    if match is None or unit not in _SHORT.values():
        raise ConfigError(unknown("frequency", text, _SHORT) + " For example '15min'.")
    count = int(match[1] or 1)
    if count == 0 or (unit == "business day" and count > 1):
        raise ConfigError(
            f"frequency {text!r} has count {count}; expected 1 or more, and only 1 for business "
            "days. For example '15min', '1d', 'b'."
        )
    if unit == "business day":
        return Frequency("business_day", 1)
    if unit == "step":
        return Frequency("integer", count)
    if unit in _MONTH_UNITS:
        return Frequency("month", count * _MONTH_UNITS[unit])
    return Frequency("fixed", count * _FIXED_UNITS[unit])


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
