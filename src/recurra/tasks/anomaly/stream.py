"""Watching a stream: one row in, one answer out, in constant time and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recurra.data.calendar import TimeValues
from recurra.data.times import read_time
from recurra.errors import DataError
from recurra.tasks.anomaly.fitted import Fitted
from recurra.tasks.anomaly.frames import PARTS
from recurra.tasks.anomaly.lanes import Array, State, take_lanes
from recurra.tasks.anomaly.table import Watched, clock_of
from recurra.tasks.anomaly.watch import STATUS, Rows, watch_series

LARGEST_TIME = 1 << 62


class AnomalyStream:
    """Streams of rows, one per series, each row answered with its surprise and status.

    It goes on from the end of the training data. An answer costs the same however long the stream
    is, and its numbers are those that `predict` gives of the same rows, bit for bit. A series that
    training did not see starts from nothing.
    """

    def __init__(self, fitted: Fitted) -> None:
        self._fitted = fitted
        self._watch = fitted.watch
        self._states: dict[str, State] = {}

    def push(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Take one row and answer with its key, its time, and what it means.

        The event holds the table's columns by name: the time, the series if there are several, and
        every value, None where it is missing. Other keys are ignored. A time may repeat or step
        back: rows count in the order in which they come.

        Raises: DataError for a missing key, a time that cannot be read, or a value that is no
        finite number. The stream is then as it was before.
        """
        columns = self._fitted.columns
        name = self.series_name(event)
        (values, clock), _ = self.read(event)
        state = self._states.get(name)
        if state is None:
            state = self._fitted.state_of(name)
        if state is None:
            state = self._watch.initial_state(1)
        rows = self._watch.step(state, values, clock)
        self._states[name] = state
        key = {} if columns.series is None else {columns.series: name}
        return {columns.time: event[columns.time], **key, **self.answers(rows)[0]}

    def read(self, event: Mapping[str, Any]) -> tuple[tuple[Array, Array], int]:
        """((values (1, C), clock (1, 2)), time) of an event, the time in microseconds or a number.

        Raises: DataError as `push`.
        """
        times = self._time(event)
        values = np.array([[_number(event, column) for column in self._fitted.columns.value]])
        scale = 1000 if self._fitted.clocked else 1
        return (values, clock_of(times)), int(times.astype(np.int64)[0]) // scale

    @property
    def state(self) -> dict[str, State]:
        """The state of every series that had a row, as values: later rows do not change them."""
        return {name: _copy(state) for name, state in self._states.items()}

    def restore(self, state: Mapping[str, State]) -> None:
        """Go on from a `state` of this model."""
        self._states = {name: _copy(one) for name, one in state.items()}

    def follow(self, series: Sequence[Watched]) -> None:
        """Read the rows of a table first, each series from where the model says it begins."""
        state = self._fitted.start(self._watch, series)
        _, state = watch_series(
            self._watch, state, [one.values for one in series], [one.clock for one in series]
        )
        for n, one in enumerate(series):
            self._states[one.name] = take_lanes(state, np.array([n]))

    def answers(self, rows: Rows) -> list[dict[str, Any]]:
        """What one row of each of S series means, by name."""
        names = self._fitted.columns.value
        several = len(names) > 1
        columns: dict[str, list[Any]] = {
            "score": rows.score.tolist(),
            "surprise": rows.surprise.tolist(),
            "alarm": rows.alarm.tolist(),
        }
        for part in (*PARTS, *(("share",) if several else ())):
            numbers = getattr(rows, part)
            columns[part] = (
                [dict(zip(names, row, strict=True)) for row in numbers.tolist()]
                if several
                else numbers[:, 0].tolist()
            )
        columns["status"] = [STATUS[code] for code in rows.status.tolist()]
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    def series_name(self, event: Mapping[str, Any]) -> str:
        """The series that an event is of; "" when there is only one. Raises: DataError."""
        column = self._fitted.columns.series
        if column is None:
            return ""
        if event.get(column) is None:
            raise DataError(f"the event has no {column!r}, which names the series. Add it.")
        return str(event[column])

    def _time(self, event: Mapping[str, Any]) -> TimeValues:
        column = self._fitted.columns.time
        time = event.get(column)
        if time is None:
            raise DataError(f"the event has no {column!r}, its time. Add it.")
        if isinstance(time, bool) or not isinstance(time, (int, str)):
            raise DataError(f"{column!r} is {time!r}; expected text or a whole number.")
        if isinstance(time, int) and abs(time) >= LARGEST_TIME:
            raise DataError(f"{column!r} is {time!r}; expected a whole number below 2^62.")
        fitted = self._fitted
        times = read_time(time, time_format=fitted.time_format, is_utc=fitted.is_utc)
        if (times.values.dtype.kind == "M") != self._fitted.clocked or times.missing.any():
            kind = "a date" if self._fitted.clocked else "a whole number"
            raise DataError(f"{column!r} is {time!r}; expected {kind}, as in training.")
        return times.values


def _copy(state: State) -> State:
    return {name: values.copy() for name, values in state.items()}


def _number(event: Mapping[str, Any], column: str) -> float:
    """The number under a key, NaN for null."""
    if column not in event:
        raise DataError(f"the event has no {column!r}. Add it; null when it is missing.")
    value = event[column]
    if value is None:
        return math.nan
    if isinstance(value, bool):
        raise DataError(f"{column!r} is {value}; expected a number, or null when missing.")
    try:
        number = float(value) if isinstance(value, (int, float)) else math.inf
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        shown = repr(value)[:40]
        raise DataError(f"{column!r} is {shown}; expected a finite number, or null when missing.")
    return number
