"""The detector over many series at once: one step for one row of each.

A series has C channels, each a lane of the head. Its surprise is the largest of its channels', less
log10 C, since the rarest of C channels is rare C times as often. Channels without a value in a row
are left out of it; their lanes wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recurra.tasks.anomaly.lanes import (
    Answer,
    Array,
    Flags,
    State,
    Whole,
    first_lanes,
    put_lanes,
    take_lanes,
)
from recurra.tasks.anomaly.settings import WARMING, AnomalySettings

STATUS = ("missing", "warming", "normal", "alarm", "drifted")


class Head(Protocol):
    """What gives each lane's surprise."""

    threshold: float
    """Surprise from which an alarm is raised, unless the user sets another."""
    holds: bool
    """Whether surprise lasts as long as what is strange, so that no refractory time is needed."""

    def initial_state(self, lanes: int) -> State: ...

    def step(self, state: State, x: Array, clock: Array) -> Answer: ...

    def together(self, lanes: State, surprise: Array, known: Flags) -> Array:
        """Surprise (S, C) of channels with what they show together, after each was stepped."""

    def join(self, surprise: Array) -> Array:
        """Surprise (S,) of series out of that of their channels (S, C), NaN where there is none."""


@dataclass(frozen=True)
class Rows:
    """Answers to one row of S series, or to all rows of one: shapes (S,), and (S, C) by channel.

    surprise   −log10 of a tail probability, NaN where the row has no value
    share      how much each channel has part in it; together 1, all 0 without any surprise
    status     index into STATUS
    """

    surprise: Array
    alarm: Flags
    expected: Array
    lower: Array
    upper: Array
    share: Array
    status: npt.NDArray[np.int8]

    @property
    def score(self) -> Array:
        """1 − 10^−surprise: in [0, 1], high = strange."""
        return np.asarray(1.0 - np.power(10.0, -self.surprise))


class Watch:
    """Steps the head and raises alarms. All memory is in the state, its first axis the series."""

    def __init__(self, head: Head, channels: int, settings: AnomalySettings) -> None:
        self.head, self.channels, self.settings = head, channels, settings
        self.threshold = head.threshold if settings.threshold is None else settings.threshold

    def initial_state(self, series: int) -> State:
        """A state that has seen nothing."""
        lanes = self.head.initial_state(series * self.channels)
        shaped = {
            name: values.reshape(series, self.channels, *values.shape[1:])
            for name, values in lanes.items()
        }
        return {
            **shaped,
            "shifted": np.zeros((series, self.channels), np.int64),
            "since": np.full(series, np.iinfo(np.int64).max // 2),
            "alarmed": np.zeros(series),
        }

    def know(self, state: State, series: int, rows: Whole) -> None:
        """Tell a head that stops learning how many values (C,) of a series training had."""
        if "learning" in state:
            state["learning"][series] = rows

    def step(self, state: State, values: Array, clock: Array) -> Rows:
        """Look at one row (S, C), NaN where missing, with clock (S, 2) as in the head; learn it."""
        series, channels = values.shape
        lanes = {
            name: array.reshape(series * channels, *array.shape[2:])
            for name, array in state.items()
            if name not in ("shifted", "since", "alarmed")
        }
        x, clock = values.reshape(-1), np.repeat(clock, channels, axis=0)
        known = np.isfinite(x)
        rows = lanes["seen" if self.head.holds else "rows"].copy().reshape(series, channels)
        answer = self._step_known(lanes, x, clock, known)
        surprise, expected, lower, upper = (part.reshape(values.shape) for part in answer[:4])
        drifted = answer.drifted.reshape(values.shape)
        surprise = self.head.together(lanes, surprise, known.reshape(values.shape))
        joined = self.head.join(surprise)
        alarm = self._alarm(state, joined)
        present = known.reshape(series, channels)
        warm = np.max(np.where(present, rows, -1), axis=1) >= WARMING
        status = np.select(
            [~present.any(axis=1), ~warm, alarm, (drifted & present).any(axis=1)], [0, 1, 3, 4], 2
        )
        part = np.where(present, surprise, 0.0)
        whole = np.add.reduce(part, axis=1)[:, None]
        share = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        self._relearn(lanes, state, drifted, present)
        return Rows(joined, alarm, expected, lower, upper, share, status.astype(np.int8))

    def _step_known(self, lanes: State, x: Array, clock: Array, known: Flags) -> Answer:
        if known.all():
            return self.head.step(lanes, x, clock)
        at = np.flatnonzero(known)
        if not len(at):
            empty = np.full(len(x), np.nan)
            return Answer(empty, empty, empty, empty, np.zeros(len(x), bool))
        some = take_lanes(lanes, at)
        answer = self.head.step(some, x[at], clock[at])
        put_lanes(lanes, at, some)
        full = []
        for part in answer:
            whole = np.full(len(x), np.nan) if part.dtype != bool else np.zeros(len(x), bool)
            whole[at] = part
            full.append(whole)
        return Answer(*full)

    def _alarm(self, state: State, surprise: Array) -> Flags:
        """Which series raise an alarm; a refractory time counts the rows that had a value."""
        high = np.nan_to_num(surprise, nan=-1.0) >= self.threshold
        if not self.head.holds:
            rested = state["since"] >= self.settings.refractory
            high &= rested | (surprise > state["alarmed"] + self.settings.jump)
        state["since"] += np.isfinite(surprise)
        state["since"][high] = 0
        state["alarmed"][high] = surprise[high]
        return np.asarray(high, dtype=bool)

    def _relearn(self, lanes: State, state: State, drifted: Flags, present: Flags) -> None:
        """Start lanes afresh whose level has been another one for `relearn` rows."""
        if self.settings.relearn is None:
            return
        shifted = state["shifted"]
        shifted[present] = np.where(drifted, shifted + 1, 0)[present]
        gone = np.flatnonzero((shifted >= self.settings.relearn).reshape(-1))
        if len(gone):
            put_lanes(lanes, gone, self.head.initial_state(len(gone)))
            shifted.reshape(-1)[gone] = 0


def watch_series(
    watch: Watch, state: State, values: Sequence[Array], clocks: Sequence[Array]
) -> tuple[list[Rows], State]:
    """Answers to all rows of S series, values (n, C) and clocks (n, 2) each, and the state after.

    `state` (S, ...) is left as it was. All series are stepped together, one row of each at a time,
    and the answers are those of single steps, bit for bit.
    """
    lengths = np.array([len(one) for one in values])
    order = np.argsort(-lengths, kind="stable")  # those that still have rows are always the first
    state = take_lanes(state, order)
    record = _Record(int(lengths.max(initial=0)), len(values), watch.channels)
    active, view = -1, state
    for t in range(record.length):
        count = int((lengths > t).sum())
        if count != active:
            active, view = count, first_lanes(state, count)
        row = np.stack([values[n][t] for n in order[:count]])
        clock = np.stack([clocks[n][t] for n in order[:count]])
        record.put(t, watch.step(view, row, clock))
    back = np.argsort(order)
    made = [record.rows(int(place), int(lengths[n])) for n, place in enumerate(back)]
    return made, take_lanes(state, back)


class _Record:
    """Answers to many steps, kept as arrays (length, S) and (length, S, C)."""

    def __init__(self, length: int, series: int, channels: int) -> None:
        self.length = length
        flat, deep = (length, series), (length, series, channels)
        self.parts: dict[str, npt.NDArray[Any]] = {
            "surprise": np.empty(flat),
            "alarm": np.empty(flat, bool),
            "status": np.empty(flat, np.int8),
            **{name: np.empty(deep) for name in ("expected", "lower", "upper", "share")},
        }

    def put(self, t: int, rows: Rows) -> None:
        for name, part in self.parts.items():
            values = getattr(rows, name)
            part[t, : len(values)] = values

    def rows(self, place: int, length: int) -> Rows:
        return Rows(**{name: part[:length, place].copy() for name, part in self.parts.items()})
