"""Tables to train on: which column plays which part, and up to when rows count."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import numpy as np

from recurra.data.calendar import DAY, format_time
from recurra.data.series import Columns, SeriesSet, read_series
from recurra.data.tables import read_table
from recurra.errors import ConfigError, DataError, unknown
from recurra.tasks.forecasting.clock import index_of
from recurra.tasks.forecasting.settings import ForecasterSettings

ROLES = ("time", "target", "series", "future", "past", "static")
Names = str | Sequence[str]


def read_new(data: Any, settings: ForecasterSettings, columns: Mapping[str, Any]) -> SeriesSet:
    """The series of a table to train on; `columns` by their `ROLES`, usual names where not given.

    Without a series column named one called "series" is used if there is one.

    Raises: DataError for a table that cannot be used, ConfigError for a role that there is not.
    """
    for role in columns:
        if role not in ROLES:
            raise ConfigError(unknown("argument", role, ROLES))
    time, series = columns.get("time", "time"), columns.get("series")
    frame = read_table(data, text=("series",) if series is None else (series,))
    if time not in frame.columns:
        raise DataError(
            f"{unknown('time column', time, frame.columns)} Name the column of times: "
            f"time=... (--time).{_wide_hint(len(frame.columns))}"
        )
    if series is None and "series" in frame.columns:
        series = "series"
    named = Columns(
        time=time,
        target=_names(columns.get("target", "target")),
        series=series,
        future=_names(columns.get("future", ())),
        past=_names(columns.get("past", ())),
        static=_names(columns.get("static", ())),
    )
    return read_series(
        frame,
        named,
        frequency=settings.frequency,
        duplicates=settings.duplicates,
        time_format=settings.time_format,
    )


def _wide_hint(columns: int) -> str:
    if columns < 50:
        return ""
    return (
        f" With {columns} columns the table looks wide; one row per series and time is needed "
        "(polars: unpivot, pandas: melt)."
    )


def _names(value: Names) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _last_index(until: Any, table: SeriesSet) -> int:
    """Grid index of the last row up to `until`; a date without a clock is the whole day."""
    last_row = max(int(one.index[-1]) for one in table.series)
    grid = table.frequency
    if grid.kind == "integer" and not str(until).strip().lstrip("-").isdigit():
        raise ConfigError(
            f"until={until!s}, but the column {table.columns.time!r} counts whole numbers. Give "
            f"the last number to train on, as in until={int(grid.times(np.array([last_row]))[0])}."
        )
    day = isinstance(until, date) and not isinstance(until, datetime)
    day = day or bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(until).strip()))
    if day and grid.kind == "fixed" and grid.step < DAY:
        until = f"{str(until).strip()} 23:59:59"
    return index_of(until, grid, table.time_format, floor=True)


def cut(table: SeriesSet, until: Any) -> SeriesSet:
    """The rows of each series up to the time `until`; what follows is not even known future.

    Raises: DataError when no target is left.
    """
    last = _last_index(until, table)
    series = []
    for one in table.series:
        rows = min(last - one.start + 1, len(one.target))
        if rows > 0 and np.isfinite(one.target[:rows]).any():
            series.append(
                replace(
                    one, target=one.target[:rows], past=one.past[:rows], future=one.future[:rows]
                )
            )
    if not series:
        first = min(one.start for one in table.series)
        raise DataError(
            f"until={until!s} is before every row with a target; the first is at "
            f"{format_time(table.frequency.times(np.array([first]))[0])}. Choose a later time."
        )
    left = len(table.series) - len(series)
    notes = (f"{left} series start after {until!s} and were not trained on",) if left else ()
    if all(last >= one.index[-1] for one in table.series):
        notes = (*notes, f"no row comes after {until!s}: there is nothing left to evaluate")
    return replace(table, series=tuple(series), notes=(*table.notes, *notes))
