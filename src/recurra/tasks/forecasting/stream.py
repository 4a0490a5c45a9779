"""Forecasting a stream: one observation in, one fresh forecast out, in constant time and memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import format_time
from recurra.errors import DataError
from recurra.tasks.forecasting.clock import index_of
from recurra.tasks.forecasting.continuing import Rows, advance
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.frames import quantile_name
from recurra.tasks.forecasting.quick import RowReader
from recurra.tasks.forecasting.schema import LARGEST, check_size, transform
from recurra.tasks.forecasting.state import SeriesState, start_state
from recurra.tasks.forecasting.updating import forecast_states, skip_to

Array = npt.NDArray[np.float64]
MAX_GAP = 10_000
"""Missing rows that are stepped through for one observation; a longer gap is a wrong time."""
CALENDAR_ROWS = 1024
"""Rows of the calendar that are computed at once, because one alone costs as much."""
MOST_WAITING = 128
"""Rows of a series that are read together: one alone costs nearly as much as some dozens."""


class Row(NamedTuple):
    """A row of one series, NaN where a value is missing.

    target (K,) as given; past (P,) scaled; now (F,): known-future covariates and calendar.
    """

    target: Array
    past: Array
    now: Array


class ForecastStream:
    """Streams of observations, one per series, each answered with a forecast of the whole horizon.

    It goes on from the end of the training data, or of the table given to `Forecaster.stream`. The
    model's scaling is causal, so an answer costs O(1) however long the stream is, and equals what
    `predict` says of the same rows. A series that was not trained on starts from nothing.
    """

    def __init__(self, fitted: Fitted, states: Mapping[str, SeriesState]) -> None:
        self._fitted = fitted
        self._states = dict(states)
        self._waiting: dict[str, list[Row]] = {}
        self._grid = fitted.schema.grid
        self._transformed = any(fitted.schema.logarithm)
        self._block = functools.lru_cache(maxsize=8)(self._calendar_block)

    @functools.cached_property
    def _reader(self) -> RowReader:
        return RowReader(self._fitted.networks, len(self._fitted.schema.target))

    def push(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Take one observation and answer with its key, its time and the forecast.

        The event holds the table's columns by name: the time, the series if there are several,
        every target (None when missing), covariates; `future`, a list of one mapping per step
        ahead, when the model has known-future covariates. Other keys are ignored.

        Raises: DataError for a time that is not after the last one or off the grid, a missing key,
        or a value that is not a finite number. The stream is then as it was before.
        """
        name = self.series_name(event)
        self._read_waiting(name)
        state, answer = self.advance(self._states.get(name), name, self.index_of(event), event)
        if state is not None:
            self._states[name] = state
        return {**self._key(name), **answer}

    def update(self, event: Mapping[str, Any]) -> None:
        """Take one observation as `push` does, without a forecast; `future` is not needed.

        Rows wait until a forecast is asked for, or there are many: they are then read together.

        Raises: DataError as `push`. The stream is then as it was before.
        """
        name, index = self.series_name(event), self.index_of(event)
        waiting, state = self._waiting.get(name, []), self._states.get(name)
        if state is not None and index == state.index + len(waiting) + 1:
            waiting.append(self._row(event, index))
            self._waiting[name] = waiting
            if len(waiting) >= MOST_WAITING:
                self._read_waiting(name)
            return
        self._read_waiting(name)
        state = self._read(self._states.get(name), name, index, event)
        if state is not None:
            self._states[name] = state

    def _read_waiting(self, name: str) -> None:
        """Bring the state of a series up to its last row."""
        waiting = self._waiting.pop(name, None)
        if not waiting:
            return
        target, past, now = (np.stack(parts) for parts in zip(*waiting, strict=True))
        rows = Rows(self._transform(target), past, now)
        (state,) = advance(self._fitted.networks, [self._states[name]], [rows])
        self._states[name] = state

    def advance(
        self, state: SeriesState | None, name: str, index: int, event: Mapping[str, Any]
    ) -> tuple[SeriesState | None, dict[str, Any]]:
        """(state, answer) after an event at grid index `index`; a state of None is a new series.

        Raises: DataError as `push`. The state given is left as it was.
        """
        time = self._fitted.schema.time
        state = self._read(state, name, index, event)
        if state is None:
            return None, {time: event[time], "forecast": None}
        answer = self._answer(event[time], state, self._ahead(event, state.index))
        if state.rows == 1:
            answer["note"] = "first row of a series that training did not know"
        return state, answer

    def _read(
        self, state: SeriesState | None, name: str, index: int, event: Mapping[str, Any]
    ) -> SeriesState | None:
        """The state of a series after an event; None for a new series without a value yet."""
        schema = self._fitted.schema
        self._check_index(state, name, index, event)
        row = self._row(event, index)
        if state is None and not np.isfinite(row.target).any():
            return None
        if state is None:
            static = self._static(event, name)
            static = np.nan_to_num(schema.static_scale.apply(static[None])[0])
            past = len(schema.past_scale.mean)
            state = start_state(self._fitted.members, len(schema.target), past, static)
            state = replace(state, index=index - 1)
        elif index > state.index + 1:
            state = skip_to(self._fitted, state, index)
        return self._reader.read(state, self._transform(row.target[None])[0], row.past, row.now)

    def _transform(self, target: Array) -> Array:
        return transform(target, self._fitted.schema) if self._transformed else target

    def _row(self, event: Mapping[str, Any], index: int) -> Row:
        """The row that an event at grid index `index` brings. Raises: DataError."""
        schema = self._fitted.schema
        target = np.array([_number(event, column, required=True) for column in schema.target])
        if not (np.abs(target) <= LARGEST).all():
            check_size(target[None])
        past = np.zeros(0)
        now = self._calendar(index, 1)[0]
        if schema.past:
            past = schema.past_scale.apply(self._encode(event, schema.past)[None])[0]
        if schema.future:
            known = schema.future_scale.apply(self._encode(event, schema.future)[None])[0]
            now = np.concatenate((known, now))
        return Row(target, past, now)

    def forecast(
        self, series: str = "", future: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """The forecast after the last observation of `series`, without a new one."""
        if series not in self._states:
            raise DataError(f"{_called(series)} has no observation yet; push one first.")
        self._read_waiting(series)
        state = self._states[series]
        time = format_time(self._grid.times(np.array([state.index]))[0])
        ahead = self._ahead({"future": list(future)}, state.index)
        return {**self._key(series), **self._answer(time, state, ahead)}

    @property
    def state(self) -> dict[str, SeriesState]:
        """The state of every series, as values: later pushes do not change them."""
        for name in list(self._waiting):
            self._read_waiting(name)
        return dict(self._states)

    def restore(self, state: Mapping[str, SeriesState]) -> None:
        """Go on from a `state` of this model."""
        self._waiting = {}
        self._states = dict(state)

    def series_name(self, event: Mapping[str, Any]) -> str:
        """The series that an event is of; "" when there is only one. Raises: DataError."""
        column = self._fitted.schema.series
        if column is None:
            return ""
        if event.get(column) is None:
            raise DataError(f"the event has no {column!r}, which names the series. Add it.")
        return str(event[column])

    def _key(self, name: str) -> dict[str, Any]:
        column = self._fitted.schema.series
        return {} if column is None else {column: name}

    def index_of(self, event: Mapping[str, Any]) -> int:
        """The grid index of an event's time. Raises: DataError."""
        schema = self._fitted.schema
        if event.get(schema.time) is None:
            raise DataError(f"the event has no {schema.time!r}, its time. Add it.")
        return index_of(event[schema.time], self._grid, schema.time_format)

    def _check_index(
        self, state: SeriesState | None, name: str, index: int, event: Mapping[str, Any]
    ) -> None:
        schema = self._fitted.schema
        if state is not None and index <= state.index:
            last = format_time(self._grid.times(np.array([state.index]))[0])
            raise DataError(
                f"time {event[schema.time]} of {_called(name)} is not after its last one, {last}. "
                "Send each time once, in order."
            )
        if state is not None and index - state.index > MAX_GAP:
            raise DataError(
                f"time {event[schema.time]} of {_called(name)} is {index - state.index} steps of "
                f"{self._grid.name} after its last one; expected at most {MAX_GAP}. Check the "
                "time."
            )

    def _calendar(self, index: int, rows: int) -> Array:
        first = index // CALENDAR_ROWS
        last = (index + rows - 1) // CALENDAR_ROWS
        start = index - first * CALENDAR_ROWS
        if first == last:
            return self._block(first)[start : start + rows]
        blocks = [self._block(number) for number in range(first, last + 1)]
        return np.concatenate(blocks)[start : start + rows]

    def _calendar_block(self, number: int) -> Array:
        first = number * CALENDAR_ROWS
        return self._grid.calendar_between(first, first + CALENDAR_ROWS)

    def _encode(self, event: Mapping[str, Any], columns: Sequence[str]) -> Array:
        """Covariates of an event as numbers; text is one-hot over the categories of training."""
        values: list[float] = []
        for column in columns:
            categories = self._fitted.schema.categories.get(column)
            if categories is None:
                values.append(_number(event, column))
            elif event.get(column) is None:
                values += [math.nan] * len(categories)
            else:
                values += [float(str(event[column]) == category) for category in categories]
        return np.array(values, dtype=np.float64)

    def _static(self, event: Mapping[str, Any], name: str) -> Array:
        """Static covariates of a new series, which must all be there."""
        missing = [column for column in self._fitted.schema.static if event.get(column) is None]
        if missing:
            raise DataError(
                f"{_called(name)} is new, and its first event lacks the static covariates "
                f"{', '.join(missing)}. Add them, or correct the name of the series."
            )
        return self._encode(event, self._fitted.schema.static)

    def _ahead(self, event: Mapping[str, Any], index: int) -> Array:
        schema, horizon = self._fitted.schema, self._fitted.settings.horizon
        calendar = self._calendar(index + 1, horizon)
        if not schema.future:
            return calendar
        rows = event.get("future")
        if not isinstance(rows, list) or len(rows) < horizon:
            seen = len(rows) if isinstance(rows, list) else "no"
            raise DataError(
                f"the event's 'future' has {seen} rows; expected {horizon}, one object per step "
                f"ahead with {', '.join(schema.future)}."
            )
        if not all(isinstance(row, Mapping) for row in rows[:horizon]):
            raise DataError("'future' holds something else than objects; expected one per step.")
        known = np.stack([self._encode(row, schema.future) for row in rows[:horizon]])
        if not np.isfinite(known).all():
            raise DataError(f"'future' lacks a number for one of {', '.join(schema.future)}.")
        return np.concatenate((schema.future_scale.apply(known), calendar), axis=1)

    def _answer(self, time: Any, state: SeriesState, ahead: Array) -> dict[str, Any]:
        fitted = self._fitted
        schema, levels = fitted.schema, fitted.settings.quantile_levels
        made = forecast_states(fitted, [state], [ahead])[0]
        times = self._grid.times(state.index + 1 + np.arange(fitted.settings.horizon))
        future: dict[str, Any] = {"time": [format_time(t) for t in times]}
        for k, column in enumerate(schema.target):
            future[column] = {
                quantile_name(level): made[k, :, j].tolist() for j, level in enumerate(levels)
            }
        return {schema.time: time, "forecast": future}


def _called(name: str) -> str:
    return f"series {name!r}" if name else "the series"


def _number(event: Mapping[str, Any], column: str, *, required: bool = False) -> float:
    """The number under a key, NaN for null; true and false are 1 and 0, as in tables."""
    if required and column not in event:
        raise DataError(f"the event has no {column!r}. Add it; null when it is missing.")
    value = event.get(column)
    if value is None:
        return math.nan
    if required and isinstance(value, bool):
        raise DataError(f"{column!r} is {value}; expected a number, or null when missing.")
    try:
        number = float(value) if isinstance(value, (bool, int, float)) else math.inf
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        shown = repr(value)[:40]
        raise DataError(f"{column!r} is {shown}; expected a finite number, or null when missing.")
    return number
