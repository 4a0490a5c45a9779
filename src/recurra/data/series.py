"""Time series of a table in long form: one row a time, an optional column to name the series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import Indices, TimeValues
from recurra.data.covariates import encode, static_rows
from recurra.data.frequency import Frequency, parse
from recurra.data.infer import infer
from recurra.data.layout import Rows, lay_out
from recurra.data.rows import read_long
from recurra.data.times import Where, read_times
from recurra.data.values import read_numbers
from recurra.errors import ConfigError, DataError, unknown

Values = npt.NDArray[np.float64]

_DUPLICATES = ("error", "mean", "first", "last")


@dataclass(frozen=True)
class Columns:
    """Which column of a table plays which part.

    `future` covariates are known ahead, `past` ones only up to now, `static` ones do not change
    within a series. Without `series` the table is one series.
    """

    time: str
    target: tuple[str, ...]
    series: str | None = None
    future: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for role in ("target", "future", "past", "static"):
            if isinstance(getattr(self, role), str):
                raise ConfigError(
                    f"Columns: {role}={getattr(self, role)!r} is text; expected a tuple of names. "
                    f"Write {role}=({getattr(self, role)!r},)."
                )
            object.__setattr__(self, role, tuple(getattr(self, role)))
        if not self.target:
            raise ConfigError("Columns: no target; expected at least one column to forecast.")
        for position, name in enumerate(self.names):
            if name in self.names[:position]:
                raise ConfigError(
                    f"Columns: {name!r} is given twice; expected one part for each column. "
                    "Remove it from one of series, time, target, future, past, static."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are used."""
        series = () if self.series is None else (self.series,)
        return (self.time, *series, *self.target, *self.future, *self.past, *self.static)


@dataclass(frozen=True)
class Series:
    """One series on its grid.

    `start` is the grid index of row 0. Shapes: target (n, K), NaN = missing; past (n, P);
    future (n + extra, F), where `extra` rows after the last target are its known future;
    static (S,).
    """

    name: str
    start: int
    target: Values
    past: Values
    future: Values
    static: Values

    def __len__(self) -> int:
        return len(self.target)

    @property
    def extra(self) -> int:
        """Rows of known future after the last target row."""
        return len(self.future) - len(self.target)

    @property
    def index(self) -> Indices:
        """Grid index of each target row, (n,)."""
        return np.arange(self.start, self.start + len(self.target), dtype=np.int64)


@dataclass(frozen=True)
class SeriesSet:
    """All series of a table, in the order in which they first appear.

    `categories` holds the values of each text covariate, in the order of its one-hot columns;
    `notes` says what was changed while reading; `time_format` reads further tables alike.
    """

    columns: Columns
    frequency: Frequency
    series: tuple[Series, ...]
    categories: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    time_format: str | None = None

    def __len__(self) -> int:
        return len(self.series)

    def times(self, series: Series) -> TimeValues:
        """Times of the target rows of one of the series."""
        return self.frequency.times(series.index)

    def feature_names(self, role: str) -> tuple[str, ...]:
        """Names of the features of 'past', 'future' or 'static': 'price', 'weather=rain', ..."""
        names: list[str] = []
        for column in getattr(self.columns, role):
            values = self.categories.get(column)
            names += [column] if values is None else [f"{column}={value}" for value in values]
        return tuple(names)


def read_series(
    source: Any,
    columns: Columns,
    *,
    frequency: Frequency | str | None = None,
    duplicates: str = "error",
    categories: Mapping[str, Sequence[str]] | None = None,
    time_format: str | None = None,
    known: Mapping[str, int] | None = None,
) -> SeriesSet:
    """Series of a frame or of a file, each on a regular grid.

    Rows may come in any order. Absent rows become missing ones; covariates there take their last
    known value (before the first: the first). Leading rows without any target are left out.
    Without `future` columns trailing rows without a target stay, as missing; with them they are
    the known future. Text covariates become one-hot columns over `categories`, learned when None;
    a value that is not in them is all zeros. `known` gives the grid index up to which series were
    read before: one whose rows all come after it keeps leading rows without a target, and may
    have no target at all. `duplicates` says which row of equal times counts:
    'error' refuses, 'first' and 'last' follow the table's order, 'mean' averages the numbers.
    Everything changed is said in `notes`. A `frequency` given as text starts where the data lie.

    Raises: DataError naming series, row (from 1, after the header) and value for an unknown
    column, a missing or unreadable time, an irregular or repeated one, a target that is no finite
    number, a static covariate that changes, and a series without any target.

    >>> import polars
    >>> frame = polars.DataFrame({"t": ["2020-01", "2020-02", "2020-04"], "y": [1, 2, 4]})
    >>> data = read_series(frame, Columns(time="t", target=("y",)))
    >>> data.frequency.name, data.series[0].target[:, 0].tolist()
    ('1 month', [1.0, 2.0, nan, 4.0])
    """
    if duplicates not in _DUPLICATES:
        raise ConfigError(unknown("choice for duplicates", duplicates, _DUPLICATES))
    long = read_long(source, columns.series, columns.names)
    table, where, names = long.frame, long.where, long.names
    given = parse(frequency) if isinstance(frequency, str) else frequency
    times = read_times(table[columns.time], frequency=given, time_format=time_format, where=where)
    long.check_present(times, columns.time)
    if given is None:
        given = infer(times.values)
    elif isinstance(frequency, str):
        given = given.anchored(times.values)
    index = _grid_index(times.values, given, where)
    numbers = np.stack([read_numbers(table[name], name, where) for name in columns.target], axis=1)
    past = encode(table, columns.past, categories, where)
    future = encode(table, columns.future, categories, where)
    static = encode(table, columns.static, categories, where)

    fixed = static_rows(static, long.codes, names)
    rows = Rows(names, long.codes, index, numbers, past, future, given)
    laid, layout_notes = lay_out(rows, duplicates, where, known)
    series = tuple(
        Series(name, one.start, one.target, one.past, one.future, fixed[number])
        for number, (name, one) in enumerate(zip(names, laid, strict=True))
    )
    notes = (*times.notes, *past.notes, *future.notes, *static.notes, *layout_notes)
    learned = {**past.categories, **future.categories, **static.categories}
    return SeriesSet(columns, given, series, learned, notes, times.time_format)


def _grid_index(times: TimeValues, frequency: Frequency, where: Where) -> Indices:
    off = np.flatnonzero(~frequency.on_grid(times))
    if off.size:
        row = int(off[0])
        raise DataError(
            f"{where(row + 1)}: {frequency.off_grid_message(times[row])} "
            f"({off.size} such row(s) in all)"
        )
    return frequency.floor(times)
