"""The detector over many series at once, some rows of each at a time.

A series has C channels, each a lane of the head. Its surprise is the largest of its channels', less
log10 C, since the rarest of C channels is rare C times as often. Channels without a value in a row
are left out of it; their lanes wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recurra.tasks.anomaly.lanes import (
    PIECE,
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
from recurra.tasks.anomaly.thresholds import raise_alarms

STATUS = ("missing", "warming", "normal", "alarm", "drifted")
_LANES, _SHORTEST = 8192, 8
_OF_SERIES = ("shifted", "since", "alarmed")


class Head(Protocol):
    """What gives each lane's surprise."""

    threshold: float
    """Surprise from which an alarm is raised, unless the user sets another."""
    holds: bool
    """Whether surprise lasts as long as what is strange, so that no refractory time is needed."""

    def initial_state(self, lanes: int) -> State: ...

    def run(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at rows x (T, L), T up to `PIECE`, with clock (T, L, 2), one after another."""

    def together(self, lanes: State, surprise: Array, detail: Array, known: Flags) -> Array:
        """Surprise (T, S, C) of channels with what they show together, after each was run."""

    def join(self, surprise: Array) -> Array:
        """Surprise (...,) of series out of their channels' (..., C), NaN where there is none."""


def _any(flags: Flags) -> Flags:
    """Whether any channel's flag is set: (T, S) of (T, S, C)."""
    return flags[:, :, 0] if flags.shape[2] == 1 else np.logical_or.reduce(flags, axis=2)


def _share(surprise: Array) -> Array:
    """Each channel's part (T, S, C) of the sum; a missing one has none."""
    if surprise.shape[2] == 1:
        return np.asarray(surprise > 0, np.float64)
    part = np.where(np.isfinite(surprise), surprise, 0.0)
    whole = np.add.reduce(part, axis=2)[:, :, None]
    return np.asarray(np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0))


@dataclass(frozen=True)
class Rows:
    """Answers to rows: shapes (T, S) of some rows of S series, and (T, S, C) by channel.

    Of one row of each series the shapes are (S,) and (S, C), of the rows of one (T,) and (T, C).

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
    """Runs the head and raises alarms. All memory is in the state, its first axis the series."""

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

    def know(
        self, state: State, series: int, rows: Whole, scale: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Tell a head that stops learning how many values (C,) of a series training had.

        And their scale, with arrays (C,); other heads find theirs as they go.
        """
        if self.head.holds:
            state["learning"][series] = rows
            state["scaled"][series] = rows > 0
            for name, values in scale.items():
                state[name][series] = values

    def piece(self, series: int) -> int:
        """How many rows to look at together with so many series."""
        rows = _LANES // (series * self.channels)
        return 1 if self.settings.relearn is not None or rows < _SHORTEST else min(rows, PIECE)

    def step(self, state: State, values: Array, clock: Array) -> Rows:
        """Look at one row (S, C), NaN where missing, with clock (S, 2) as in the head; learn it."""
        rows = self.run(state, values[None], clock[None])
        return Rows(**{name: part[0] for name, part in vars(rows).items()})

    def run(self, state: State, values: Array, clock: Array) -> Rows:
        """Look at T rows (T, S, C), one after another, with clock (T, S, 2); T up to `PIECE`.

        With `relearn`, T must be 1.
        """
        steps, series, channels = values.shape
        # Views, whose writes go to the state; of one channel also where series lie apart in memory.
        lanes = {
            name: array[:, 0] if channels == 1 else array.reshape(-1, *array.shape[2:])
            for name, array in state.items()
            if name not in _OF_SERIES
        }
        known = np.isfinite(values)
        rows = lanes["seen" if self.head.holds else "rows"].reshape(series, channels)
        warm = known & (rows + np.add.accumulate(known, axis=0, dtype=np.int64) > WARMING)
        x = values.reshape(steps, -1)
        if channels > 1:
            clock = np.repeat(clock, channels, axis=1)
        answer = self._run_known(lanes, x, clock, known.reshape(x.shape))
        parts: list[Array] = [part.reshape(values.shape) for part in answer[:5]]
        surprise, expected, lower, upper, detail = parts
        drifted = answer.drifted.reshape(values.shape)
        surprise = self.head.together(lanes, surprise, detail, known)
        joined = self.head.join(surprise)
        alarm = self._alarm(state, joined)
        status = np.where(_any(drifted & known), np.int8(4), np.int8(2))
        status[alarm] = 3
        status[~_any(warm)] = 1
        status[~_any(known)] = 0
        self._relearn(lanes, state, drifted[0], known[0])
        return Rows(joined, alarm, expected, lower, upper, _share(surprise), status)

    def _run_known(self, lanes: State, x: Array, clock: Array, known: Flags) -> Answer:
        """Answers (T, L), NaN without a value: lanes without gaps together, others alone."""
        if known.all():
            return self.head.run(lanes, x, clock)
        parts = [np.full(x.shape, np.nan) for _ in Answer._fields[:-1]]
        made = Answer._make([*parts, np.zeros(x.shape, bool)])
        whole = known.all(axis=0)
        groups = [np.flatnonzero(whole)] if whole.any() else []
        groups += [np.array([n]) for n in np.flatnonzero(known.any(axis=0) & ~whole)]
        for lane in groups:
            rows = np.flatnonzero(known[:, lane[0]])[:, None]
            some = take_lanes(lanes, lane)
            answer = self.head.run(some, x[rows, lane], clock[rows, lane])
            put_lanes(lanes, lane, some)
            for part, found in zip(made, answer, strict=True):
                part[rows, lane] = found
        return made

    def _alarm(self, state: State, surprise: Array) -> Flags:
        """Which rows (T, S) raise an alarm; a refractory time counts those that had a value."""
        high = surprise >= self.threshold
        present = np.isfinite(surprise)
        if not high.any():
            state["since"] += np.add.reduce(present, axis=0, dtype=np.int64)
            return np.asarray(high, dtype=bool)
        count = np.add.accumulate(present, axis=0, dtype=np.int64)
        since, alarmed = state["since"], state["alarmed"]
        at = -since  # the last alarm's count; below 0 when it was before these rows
        for t, n in np.argwhere(high).tolist():
            if not self.head.holds:
                rested = count[t, n] - at[n] > self.settings.refractory
                if not rested and surprise[t, n] <= alarmed[n] + self.settings.jump:
                    high[t, n] = False
                    continue
            at[n], alarmed[n] = count[t, n], surprise[t, n]
        since[...] = count[-1] - at
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

    `state` (S, ...) is left as it was. All series are run together, some rows of each at a time,
    and the answers are those of single steps, bit for bit.
    """
    lengths = np.array([len(one) for one in values], np.int64)
    order = np.argsort(-lengths, kind="stable")  # those that still have rows are always the first
    state = take_lanes(state, order)
    record = _Record(int(lengths.max(initial=0)), len(values), watch.channels)
    start = 0
    while start < record.length:
        count = int((lengths > start).sum())
        piece = watch.piece(count)
        end = min(start + piece, int(lengths[order[count - 1]]))
        rows = np.stack([values[n][start:end] for n in order[:count]], axis=1)
        clock = np.stack([clocks[n][start:end] for n in order[:count]], axis=1)
        record.put(start, watch.run(first_lanes(state, count), rows, clock))
        start = end
    back = np.argsort(order)
    made = [record.rows(int(place), int(lengths[n])) for n, place in enumerate(back)]
    return made, take_lanes(state, back)


def raise_later(
    watch: Watch, state: State, answers: Sequence[Rows], threshold: float
) -> list[Rows]:
    """The answers with the alarms of `threshold`, where none were raised while watching.

    Answers (n,) of each of S series since a fresh start; `state` (S, ...) after them is changed.
    """
    rest, jump = watch.settings.refractory, watch.settings.jump
    if watch.head.holds:
        rest, jump = 0, np.inf
    made = []
    for n, rows in enumerate(answers):
        alarm = raise_alarms(rows.surprise, threshold, rest, jump)
        status = np.where(alarm & (rows.status > 1), np.int8(3), rows.status)
        made.append(replace(rows, alarm=alarm, status=status))
        if alarm.any():
            last = int(np.flatnonzero(alarm)[-1])
            state["alarmed"][n] = rows.surprise[last]
            state["since"][n] = np.isfinite(rows.surprise[last + 1 :]).sum()
    return made


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

    def put(self, start: int, rows: Rows) -> None:
        for name, part in self.parts.items():
            values = getattr(rows, name)
            part[start : start + len(values), : values.shape[1]] = values

    def rows(self, place: int, length: int) -> Rows:
        return Rows(**{name: part[:length, place].copy() for name, part in self.parts.items()})
