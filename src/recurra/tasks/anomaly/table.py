"""Tables to watch: rows as they came, on no grid.

Each series' rows are taken in the order of the table, which is the order of a stream. Times may
repeat, be uneven or step back (a clock was set): the detector counts rows, and of the time it uses
the hour of the day alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import DAY, TimeValues, format_time
from recurra.data.rows import read_long
from recurra.data.times import read_times
from recurra.data.values import read_numbers
from recurra.errors import ConfigError, DataError
from recurra.tasks.anomaly.lanes import Array, Flags, Whole


@dataclass(frozen=True)
class Columns:
    """Which column of a table plays which part."""

    time: str
    value: tuple[str, ...]
    series: str | None = None

    def __post_init__(self) -> None:
        if not self.value:
            raise ConfigError("no value column is given; expected at least one column to watch.")
        names = (self.time, *(() if self.series is None else (self.series,)), *self.value)
        for position, name in enumerate(names):
            if name in names[:position]:
                raise ConfigError(
                    f"the column {name!r} is given twice; expected one part for each column. "
                    "Remove it from one of series, time, value."
                )


@dataclass(frozen=True)
class Watched:
    """The rows of one series: times (n,) datetime64[ns] or int64, values (n, C), NaN = missing.

    at (n,) is where each row stands in the table; labels (n,) are there when they were asked for.
    """

    name: str
    times: TimeValues
    values: Array
    at: Whole
    labels: Flags | None = None

    def __len__(self) -> int:
        return len(self.times)

    @property
    def counts(self) -> Whole:
        """How many values each channel has, (C,)."""
        return np.asarray(np.isfinite(self.values).sum(axis=0), np.int64)

    @property
    def clock(self) -> Array:
        """Sine and cosine of the time of day (n, 2); zero for times that are whole numbers."""
        return clock_of(self.times)


@dataclass(frozen=True)
class WatchedSet:
    """All series of a table, in the order in which they first appear, and what is to be said."""

    columns: Columns
    series: tuple[Watched, ...]
    notes: tuple[str, ...]
    backend: Any
    time_format: str | None = None
    is_utc: bool | None = None

    @property
    def order(self) -> Whole:
        """Where each row of the table is among the rows of all series, one series after another."""
        return np.argsort(np.concatenate([one.at for one in self.series]), kind="stable")

    @property
    def values(self) -> Array:
        """Values of every row of the table, in its order, (n, C)."""
        return np.asarray(np.concatenate([one.values for one in self.series])[self.order])


def clock_of(times: TimeValues) -> Array:
    """Sine and cosine of the time of day, (n, 2); zero for whole numbers."""
    if times.dtype.kind != "M":
        return np.zeros((len(times), 2))
    made = np.empty((len(times), 2))
    angle = times.astype("datetime64[ns]", copy=False).view(np.int64) % DAY * (2 * np.pi / DAY)
    np.sin(angle, out=made[:, 0])
    np.cos(angle, out=made[:, 1])
    return made


def read_watched(
    source: Any,
    columns: Columns,
    *,
    label: str | None = None,
    time_format: str | None = None,
    is_utc: bool | None = None,
) -> WatchedSet:
    """The series of a frame, or of a CSV or Parquet file. `label` names a column of 0 and 1.

    is_utc says how another table's times with a zone were read, so that these are read likewise.

    Raises: DataError for an unknown column, a missing or unreadable time, a value that is no finite
    number, a label that is neither 0 nor 1, or a table without rows.
    """
    text = () if columns.series is None else (columns.series,)
    wanted = [columns.time, *text, *columns.value, *(() if label is None else (label,))]
    long = read_long(source, columns.series, wanted)
    table, where, names, codes = long.frame, long.where, long.names, long.codes
    times = read_times(table[columns.time], time_format=time_format, is_utc=is_utc, where=where)
    long.check_present(times, columns.time)
    numbers = np.stack([read_numbers(table[name], name, where) for name in columns.value], axis=1)
    labels = None if label is None else _read_labels(table[label], label, where)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    series = []
    for number, name in enumerate(names):
        at = order[ends[number] : ends[number + 1]]
        known = None if labels is None else labels[at]
        series.append(Watched(name, times.values[at], numbers[at], at, known))
    notes = (*times.notes, *_clock_notes(series))
    backend = table.implementation
    kept = (times.time_format, times.is_utc)
    return WatchedSet(columns, tuple(series), notes, backend, *kept)


def _read_labels(column: Any, name: str, where: Any) -> npt.NDArray[np.bool_]:
    numbers = read_numbers(column, name, where)
    bad = np.flatnonzero((numbers != 0) & (numbers != 1))
    if bad.size:
        row = int(bad[0])
        raise DataError(
            f"{where(row + 1)}: the label {name!r} is {numbers[row]:g}; expected 0 for a normal "
            "row and 1 for an anomaly."
        )
    return np.asarray(numbers == 1, dtype=bool)


def _clock_notes(series: Sequence[Watched]) -> list[str]:
    """What the times say that a reader may not know: steps back, and repeats."""
    notes = []
    back = [(one, np.flatnonzero(np.diff(one.times) < np.zeros(1, _step(one)))) for one in series]
    steps = sum(len(rows) for _, rows in back)
    if steps:
        one, rows = next((one, rows) for one, rows in back if len(rows))
        notes.append(
            f"{steps} row(s) have an earlier time than the row before, first "
            f"{format_time(one.times[rows[0] + 1])}{f' of {one.name!r}' if one.name else ''}; rows "
            "are taken in the order of the table"
        )
    repeats = sum(int((np.diff(one.times) == np.zeros(1, _step(one))).sum()) for one in series)
    if repeats:
        notes.append(f"{repeats} row(s) have the time of the row before; each counts as a row")
    return notes


def _step(one: Watched) -> Any:
    return "timedelta64[ns]" if one.times.dtype.kind == "M" else np.int64
