"""Forecasting a stream: one observation in, one fresh forecast out, in constant time and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import format_time
from recurra.data.frequency import Frequency
from recurra.data.times import read_times
from recurra.errors import DataError
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.frames import quantile_name
from recurra.tasks.forecasting.schema import restore, transform
from recurra.tasks.forecasting.state import Row, SeriesState, forecast, push, start_state

Array = npt.NDArray[np.float64]
MAX_GAP = 10_000
"""Missing rows that are stepped through for one observation; a longer gap is a wrong time."""


class ForecastStream:
    """Streams of observations, one per series, each answered with a forecast of the whole horizon.

    It goes on from the end of the training data, or of the table given to `Forecaster.stream`. The
    model's scaling is causal, so an answer costs O(1) however long the stream is, and equals what
    `predict` says of the same rows. A series that was not trained on starts from nothing.
    """

    def __init__(self, fitted: Fitted, states: Mapping[str, SeriesState]) -> None:
        self._fitted = fitted
        self._states = dict(states)

    def push(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Take one observation and answer with its key, its time and the forecast.

        The event holds the table's columns by name: the time, the series if there are several,
        every target (None when missing), covariates; `future`, a list of one mapping per step
        ahead, when the model has known-future covariates. Other keys are ignored.

        Raises: DataError for a time that is not after the last one or off the grid, a missing key,
        or a value that is not a finite number. The stream is then as it was before.
        """
        schema = self._fitted.schema
        name = self._series_name(event)
        index = self._index(event, name)
        target = np.array([_number(event, column, required=True) for column in schema.target])
        state = self._states.get(name)
        if state is None and not np.isfinite(target).any():
            return {**self._key(name), schema.time: event[schema.time], "forecast": None}
        if state is None:
            static = self._encode(event, schema.static)
            static = np.nan_to_num(schema.static_scale.apply(static[None])[0])
            past = len(schema.past_scale.mean)
            state = start_state(self._fitted.settings, len(schema.target), past, static)
            state = replace(state, index=index - 1)
        state = self._skip_to(state, index, name)
        past = schema.past_scale.apply(self._encode(event, schema.past)[None])[0]
        now = schema.future_scale.apply(self._encode(event, schema.future)[None])[0]
        if state.rows:
            past = np.where(np.isfinite(past), past, state.past[-1])
            now = np.where(np.isfinite(now), now, state.now[: len(now)])
        row = Row(
            target=transform(target[None], schema)[0],
            past=np.nan_to_num(past),
            now=np.concatenate((np.nan_to_num(now), self._calendar(index, 1)[0])),
        )
        ahead = self._ahead(event, index)
        state = push(self._fitted.network, state, row)
        answer = self._answer(name, event[schema.time], state, ahead)
        self._states[name] = state
        return answer

    def forecast(
        self, series: str = "", future: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """The forecast after the last observation of `series`, without a new one."""
        if series not in self._states:
            raise DataError(f"series {series!r} has no observation yet; push one first.")
        state = self._states[series]
        time = format_time(self._fitted.schema.grid.times(np.array([state.index]))[0])
        ahead = self._ahead({"future": list(future)}, state.index)
        return self._answer(series, time, state, ahead)

    def quantiles(self, series: str, ahead: Array | None = None) -> Array:
        """Forecast (K, horizon, Q) on the original scale after the last observation of `series`.

        ahead (horizon, F): inputs of the steps ahead; the calendar alone when None.
        """
        fitted, state = self._fitted, self._states[series]
        if ahead is None:
            ahead = self._calendar(state.index + 1, fitted.settings.horizon)
        made = forecast(fitted.network, state, ahead)
        return restore(made, np.arange(len(fitted.schema.target)), fitted.schema)

    def _series_name(self, event: Mapping[str, Any]) -> str:
        column = self._fitted.schema.series
        if column is None:
            return ""
        if event.get(column) is None:
            raise DataError(f"the event has no {column!r}, which names the series. Add it.")
        return str(event[column])

    def _key(self, name: str) -> dict[str, Any]:
        column = self._fitted.schema.series
        return {} if column is None else {column: name}

    def _index(self, event: Mapping[str, Any], name: str) -> int:
        schema = self._fitted.schema
        if event.get(schema.time) is None:
            raise DataError(f"the event has no {schema.time!r}, its time. Add it.")
        index = index_of(event[schema.time], schema.grid, schema.time_format)
        state = self._states.get(name)
        if state is not None and index <= state.index:
            last = format_time(schema.grid.times(np.array([state.index]))[0])
            raise DataError(
                f"time {event[schema.time]} of series {name!r} is not after its last one, {last}. "
                "Send each time once, in order."
            )
        if state is not None and index - state.index > MAX_GAP:
            raise DataError(
                f"time {event[schema.time]} of series {name!r} is {index - state.index} steps of "
                f"{schema.grid.name} after its last one; expected at most {MAX_GAP}. Check the "
                "time."
            )
        return index

    def _skip_to(self, state: SeriesState, index: int, name: str) -> SeriesState:
        """Step through the rows that are missing before grid index `index`."""
        targets = len(self._fitted.schema.target)
        while state.index < index - 1:
            calendar = self._calendar(state.index + 1, 1)[0]
            known = state.now[: len(state.now) - len(calendar)]
            row = Row(np.full(targets, np.nan), state.past[-1], np.concatenate((known, calendar)))
            state = push(self._fitted.network, state, row)
        return state

    def _calendar(self, index: int, rows: int) -> Array:
        return self._fitted.schema.grid.calendar(np.arange(index, index + rows, dtype=np.int64))

    def _encode(self, event: Mapping[str, Any], columns: Sequence[str]) -> Array:
        """Covariates of an event as numbers; text is one-hot over the categories of training."""
        values: list[float] = []
        for column in columns:
            categories = self._fitted.schema.categories.get(column)
            if categories is None:
                values.append(_number(event, column))
            else:
                values += [float(str(event.get(column)) == category) for category in categories]
        return np.array(values, dtype=np.float64)

    def _ahead(self, event: Mapping[str, Any], index: int) -> Array:
        schema, horizon = self._fitted.schema, self._fitted.settings.horizon
        calendar = self._calendar(index + 1, horizon)
        if not schema.future:
            return calendar
        rows = event.get("future")
        if not isinstance(rows, list) or len(rows) < horizon:
            seen = len(rows) if isinstance(rows, list) else "none"
            raise DataError(
                f"the event's 'future' has {seen} rows; expected {horizon}, one object per step "
                f"ahead with {', '.join(schema.future)}."
            )
        known = np.stack([self._encode(row, schema.future) for row in rows[:horizon]])
        if not np.isfinite(known).all():
            raise DataError(f"'future' lacks a number for one of {', '.join(schema.future)}.")
        return np.concatenate((schema.future_scale.apply(known), calendar), axis=1)

    def _answer(self, name: str, time: Any, state: SeriesState, ahead: Array) -> dict[str, Any]:
        fitted = self._fitted
        schema, levels = fitted.schema, fitted.settings.quantile_levels
        made = forecast(fitted.network, state, ahead)
        made = restore(made, np.arange(len(schema.target)), schema)
        times = schema.grid.times(state.index + 1 + np.arange(fitted.settings.horizon))
        future: dict[str, Any] = {"time": [format_time(t) for t in times]}
        for k, column in enumerate(schema.target):
            future[column] = {
                quantile_name(level): made[k, :, j].tolist() for j, level in enumerate(levels)
            }
        return {**self._key(name), schema.time: time, "forecast": future}


def index_of(time: Any, grid: Frequency, time_format: str | None) -> int:
    """Grid index of one time, in any form that a table's time column may have.

    Raises: DataError when it cannot be read or is off the grid.
    """
    import narwhals as nw
    import polars as pl

    column = nw.from_native(pl.Series("time", [time], strict=False), series_only=True)
    times = read_times(
        column, frequency=grid, time_format=time_format, where=lambda _: f"time {time!r}"
    )
    if times.missing[0]:
        raise DataError(f"time {time!r} is missing; expected one like the table's times.")
    return int(grid.index(times.values)[0])


def _number(event: Mapping[str, Any], column: str, *, required: bool = False) -> float:
    """The number under a key, NaN for null; true and false are 1 and 0, as in tables."""
    if required and column not in event:
        raise DataError(f"the event has no {column!r}. Add it; null when it is missing.")
    value = event.get(column)
    if value is None:
        return math.nan
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        raise DataError(f"{column!r} is {value!r}; expected a finite number, or null when missing.")
    return float(value)
