"""Forecasting a stream: one observation in, one fresh forecast out, in constant time and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import format_time
from recurra.data.series import Series
from recurra.errors import DataError
from recurra.tasks.forecasting.clock import index_of
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
        name = self.series_name(event)
        state, answer = self.advance(self._states.get(name), name, self.index_of(event), event)
        if state is not None:
            self._states[name] = state
        return {**self._key(name), **answer}

    def advance(
        self, state: SeriesState | None, name: str, index: int, event: Mapping[str, Any]
    ) -> tuple[SeriesState | None, dict[str, Any]]:
        """(state, answer) after an event at grid index `index`; a state of None is a new series.

        Raises: DataError as `push`. The state given is left as it was.
        """
        schema = self._fitted.schema
        self._check_index(state, name, index, event)
        target = np.array([_number(event, column, required=True) for column in schema.target])
        if state is None and not np.isfinite(target).any():
            return None, {schema.time: event[schema.time], "forecast": None}
        if state is None:
            static = self._static(event, name)
            static = np.nan_to_num(schema.static_scale.apply(static[None])[0])
            past = len(schema.past_scale.mean)
            state = start_state(self._fitted.members, len(schema.target), past, static)
            state = replace(state, index=index - 1)
        state = self._skip_to(state, index)
        past = schema.past_scale.apply(self._encode(event, schema.past)[None])[0]
        now = schema.future_scale.apply(self._encode(event, schema.future)[None])[0]
        row = self._row(state, index, transform(target[None], schema)[0], past, now)
        ahead = self._ahead(event, index)
        state = push(self._fitted.networks, state, row)
        answer = self._answer(event[schema.time], state, ahead)
        if state.rows == 1:
            answer["note"] = "first row of a series that training did not know"
        return state, answer

    def forecast(
        self, series: str = "", future: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """The forecast after the last observation of `series`, without a new one."""
        if series not in self._states:
            raise DataError(f"{_called(series)} has no observation yet; push one first.")
        state = self._states[series]
        time = format_time(self._fitted.schema.grid.times(np.array([state.index]))[0])
        ahead = self._ahead({"future": list(future)}, state.index)
        return {**self._key(series), **self._answer(time, state, ahead)}

    @property
    def state(self) -> dict[str, SeriesState]:
        """The state of every series, as values: later pushes do not change them."""
        return dict(self._states)

    def restore(self, state: Mapping[str, SeriesState]) -> None:
        """Go on from a `state` of this model."""
        self._states = dict(state)

    def follow(self, series: Series) -> None:
        """Step through all rows of a series of a table, which goes on from where it stands."""
        schema = self._fitted.schema
        targets = transform(series.target, schema)
        past = schema.past_scale.apply(series.past)
        future = schema.future_scale.apply(series.future)
        for row, index in enumerate(series.index.tolist()):
            state = self._skip_to(self._states[series.name], index)
            made = self._row(state, index, targets[row], past[row], future[row])
            self._states[series.name] = push(self._fitted.networks, state, made)

    def quantiles(self, series: str, ahead: Array | None = None) -> Array:
        """Forecast (K, horizon, Q) on the original scale after the last observation of `series`.

        ahead (horizon, F): inputs of the steps ahead; the calendar alone when None.
        """
        fitted, state = self._fitted, self._states[series]
        if ahead is None:
            ahead = self._calendar(state.index + 1, fitted.settings.horizon)
        return self._forecast(state, ahead)

    def _forecast(self, state: SeriesState, ahead: Array) -> Array:
        """Forecast (K, horizon, Q) on the original scale, the mean of an ensemble's."""
        schema = self._fitted.schema
        target = np.arange(len(schema.target))
        made = forecast(self._fitted.networks, state, ahead)
        return np.asarray(np.mean([restore(one, target, schema) for one in made], axis=0))

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
        return index_of(event[schema.time], schema.grid, schema.time_format)

    def _check_index(
        self, state: SeriesState | None, name: str, index: int, event: Mapping[str, Any]
    ) -> None:
        schema = self._fitted.schema
        if state is not None and index <= state.index:
            last = format_time(schema.grid.times(np.array([state.index]))[0])
            raise DataError(
                f"time {event[schema.time]} of {_called(name)} is not after its last one, {last}. "
                "Send each time once, in order."
            )
        if state is not None and index - state.index > MAX_GAP:
            raise DataError(
                f"time {event[schema.time]} of {_called(name)} is {index - state.index} steps of "
                f"{schema.grid.name} after its last one; expected at most {MAX_GAP}. Check the "
                "time."
            )

    def _row(self, state: SeriesState, index: int, target: Array, past: Array, now: Array) -> Row:
        """A row with what is missing of the covariates carried on, or at their mean at first."""
        if state.rows:
            past = np.where(np.isfinite(past), past, state.past[-1])
            now = np.where(np.isfinite(now), now, state.now[: len(now)])
        calendar = self._calendar(index, 1)[0]
        return Row(target, np.nan_to_num(past), np.concatenate((np.nan_to_num(now), calendar)))

    def _skip_to(self, state: SeriesState, index: int) -> SeriesState:
        """Step through the rows that are missing before grid index `index`."""
        schema = self._fitted.schema
        target = np.full(len(schema.target), np.nan)
        past = np.full(len(schema.past_scale.mean), np.nan)
        now = np.full(len(schema.future_scale.mean), np.nan)
        while state.index < index - 1:
            row = self._row(state, state.index + 1, target, past, now)
            state = push(self._fitted.networks, state, row)
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
        made = self._forecast(state, ahead)
        times = schema.grid.times(state.index + 1 + np.arange(fitted.settings.horizon))
        future: dict[str, Any] = {"time": [format_time(t) for t in times]}
        for k, column in enumerate(schema.target):
            future[column] = {
                quantile_name(level): made[k, :, j].tolist() for j, level in enumerate(levels)
            }
        return {schema.time: time, "forecast": future}


def last_quantiles(fitted: Fitted, series: Sequence[Series]) -> Array:
    """Forecasts (S, K, horizon, Q) after the last row of each series.

    A series whose rows all come after its training rows goes on from the state it had there; any
    other is read from its first row.
    """
    states = fitted.states
    late = [one.name in states and one.start > states[one.name].index for one in series]
    row = np.array([len(one.target) - 1 for one in series])
    whole = [n for n, after in enumerate(late) if not after]
    fitted.check_future(series, np.arange(len(series)), row)
    settings = fitted.settings
    shape = (len(fitted.schema.target), settings.horizon, len(settings.quantile_levels))
    out = np.empty((len(series), *shape))
    if whole:
        read = [series[n] for n in whole]
        out[whole] = fitted.quantiles(read, np.arange(len(whole)), row[whole])
    stream = ForecastStream(fitted, states)
    for n, one in enumerate(series):
        if not late[n]:
            continue
        stream.follow(one)
        known = one.future[row[n] + 1 : row[n] + 1 + settings.horizon]
        index = int(one.index[-1]) + 1 + np.arange(settings.horizon, dtype=np.int64)
        ahead = (fitted.schema.future_scale.apply(known), fitted.schema.grid.calendar(index))
        made = ahead[1] if not fitted.schema.future else np.concatenate(ahead, axis=1)
        out[n] = stream.quantiles(one.name, made)
    return out


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
