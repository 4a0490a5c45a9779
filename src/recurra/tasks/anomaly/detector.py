"""AnomalyDetector: fit, predict, evaluate, save, load, stream."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from recurra.data.calendar import DAY, format_time
from recurra.data.tables import read_table
from recurra.data.times import read_times
from recurra.errors import ConfigError, DataError, not_fitted, unknown
from recurra.runs import RunFolder
from recurra.tasks.anomaly.evaluation import Evaluation, evaluate
from recurra.tasks.anomaly.fitted import TASK, TRACED_SERIES, Fitted, make_trace
from recurra.tasks.anomaly.frames import answer_frame
from recurra.tasks.anomaly.heads import make_watch
from recurra.tasks.anomaly.lanes import Array
from recurra.tasks.anomaly.segment import scale_of
from recurra.tasks.anomaly.settings import AnomalySettings
from recurra.tasks.anomaly.stepper import AnomalyStepper
from recurra.tasks.anomaly.stream import AnomalyStream
from recurra.tasks.anomaly.table import Columns, Watched, WatchedSet, read_watched
from recurra.tasks.anomaly.thresholds import threshold_for
from recurra.tasks.anomaly.watch import Rows, raise_later, watch_series

Names = str | Sequence[str]
STEPS = 1000
HELD_ALARMS, MARGIN = 5.0, 1.5
"""Alarmed rows of the segment head for each thousand rows of the second half of training."""


class AnomalyDetector:
    """Watches one or many series, each of one or several channels, and says what is strange.

    Every score uses rows up to its own alone, at a cost that does not grow with the stream. Nothing
    needs labels. The detector learns as it goes; `fit` lets it begin with what a table
    has shown.

    model         "memory" learns as it goes, with nothing to train; "forecaster" trains a GRU on
                  the table, whose forecasts rows are held against
    head          "alarm" answers when something begins and learns it at once; "segment" compares
                  with what was normal in training, for as long as it lasts
    threshold     surprise from which an alarm is raised. None: 1.15 for the alarm head; for the
                  other half more than five rows in a thousand of the end of training reached
    false_alarms  alarms wanted for each thousand rows: the threshold is set so on the training rows
    refractory    rows after an alarm without another one, unless the surprise is
    jump          this much above that of the last one (alarm head only)
    relearn       rows after which a lasting shift of the level makes a channel start afresh; never,
                  when None
    hidden_size   of a forecaster's GRU
    steps         of a forecaster's training, 1,000 when None; or minutes of it on the clock
    seed          of a forecaster's first weights; nothing else involves chance
    time_format   "dmy", "mdy" or a pattern, where the table's times could be read in two ways

    Raises: ConfigError for a setting that is unknown or out of range.

    Example:
        >>> import numpy as np, polars as pl
        >>> value = np.sin(np.arange(900) / 7) + np.where(np.arange(900) == 700, 5, 0)
        >>> table = pl.DataFrame({"time": np.arange(900), "value": value})
        >>> answers = AnomalyDetector().fit(table).predict(table)
        >>> answers.filter(pl.col("alarm"))["time"].to_list()
        [700]
    """

    def __init__(
        self,
        *,
        model: Literal["memory", "forecaster"] = "memory",
        head: Literal["alarm", "segment"] = "alarm",
        threshold: float | None = None,
        false_alarms: float | None = None,
        refractory: int = 100,
        jump: float = 1.5,
        relearn: int | None = None,
        hidden_size: int = 32,
        steps: int | None = None,
        minutes: float | None = None,
        seed: int = 0,
        time_format: str | None = None,
    ) -> None:
        self.settings = AnomalySettings.out_of(locals())
        self._fitted: Fitted | None = None
        if threshold is not None and false_alarms is not None:
            raise ConfigError(
                f"threshold={threshold:g} and false_alarms={false_alarms:g} contradict each other: "
                "the second sets the first. Give one of them."
            )
        if steps is not None and minutes is not None:
            raise ConfigError(
                f"steps={steps} and minutes={minutes:g} both say when training ends. Give one of "
                "them."
            )
        if model != "forecaster" and (steps, minutes) != (None, None):
            raise ConfigError(
                f"model={model!r} has nothing to train; steps and minutes are a forecaster's. "
                "Leave them out, or choose model='forecaster'."
            )
        if model == "forecaster" and head == "segment":
            raise ConfigError(
                "head='segment' and model='forecaster' do not go together: a forecaster has the "
                "alarm head. Leave one of them out."
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """A detector from settings by name, as a file holds them.

        Raises: ConfigError naming every one that is unknown (and the nearest), or out of range.
        """
        return cls(**AnomalySettings(**settings).model_dump())

    def __repr__(self) -> str:
        words = self.settings.written()
        return f"AnomalyDetector({words}), {'fitted' if self._fitted else 'not fitted'}"

    @property
    def fitted(self) -> Fitted:
        """The trained part. Raises: NotFittedError before `fit` or `load`."""
        if self._fitted is None:
            raise not_fitted(self, "fit(table)")
        return self._fitted

    def fit(
        self,
        data: Any,
        *,
        time: str = "time",
        value: Names = "value",
        series: str | None = None,
        until: Any = None,
        out: str | Path | None = None,
        force: bool = False,
        progress: bool = False,
    ) -> Self:
        """Watch a table from its first row, and keep what was learned.

        data           a pandas or polars frame, or the path of a CSV or Parquet file, in long form
        time, value,   columns; several values are channels of one series. Without `series` the
        series         column called "series" is used if there is one
        until          last time to learn from, a date to its end; later rows are for `evaluate`
        out, force     run folder to write; replace the run in it
        progress       show on stderr how a forecaster's training goes

        Raises: DataError for a table that cannot be used, RunError for the folder.
        """
        table = self._read_new(data, time, value, series)
        if until is not None:
            table = _cut(table, until)
        run = None if out is None else RunFolder.create(out, force=force)
        self._fitted = self.learn(table, progress=progress)
        if run is not None:
            self._fitted.save(run)
        return self

    def predict(self, data: Any) -> Any:
        """Answers to all rows of a table with the columns of training, in its order.

        A series whose rows all come after its training rows goes on from there; any other is
        watched from its first row. Returns a frame of the kind of `data` with time, series, score,
        surprise, alarm, expected, lower, upper, status; see `frames.py`.
        """
        table = self.read(data)
        answers = self.fitted.answer(table.series)
        return answer_frame(table, answers)

    def evaluate(self, data: Any, *, label: str = "label") -> Evaluation:
        """Scores against a column of labels, 0 and 1, next to the baselines.

        Rows up to the end of training are watched, too, but not scored.
        Raises: DataError when no scored row, or every one, is labelled as an anomaly.
        """
        return evaluate(self.fitted, self.read(data, label=label).series)

    def read(self, data: Any, *, label: str | None = None) -> WatchedSet:
        """The series of a table, read as the training table was.

        Raises: DataError for a table that cannot be used.
        """
        fitted = self.fitted
        table = read_watched(
            data,
            fitted.columns,
            label=label,
            time_format=fitted.time_format,
            is_utc=fitted.is_utc,
        )
        for one in table.series:
            if (one.times.dtype.kind == "M") != fitted.clocked:
                kinds = ("whole numbers", "dates")
                raise DataError(
                    f"the times of this table are {kinds[not fitted.clocked]}, but those of "
                    f"training were {kinds[fitted.clocked]}. Give the same kind of time."
                )
        return table

    def stream(self, data: Any = None) -> AnomalyStream:
        """Go on from the end of the training table, or of `data`, one row at a time."""
        stream = AnomalyStream(self.fitted)
        if data is not None:
            stream.follow(self.read(data).series)
        return stream

    def stepper(
        self,
        data: Any = None,
        *,
        key: str | None = None,
        seq: str | None = None,
        timed: bool = False,
    ) -> AnomalyStepper:
        """What a `recurra.streaming.StreamEngine` steps, from the same states as `stream`.

        key, seq and timed say what a stream is and what tells its rows apart, see `AnomalyStepper`.
        """
        states = {} if data is None else self.stream(data).state
        return AnomalyStepper(self.fitted, states, key=key, seq=seq, timed=timed)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the run folder: config.json and state.safetensors.

        Raises: RunError when the folder already holds files and `force` is not given.
        """
        fitted = self.fitted
        fitted.save(RunFolder.create(path, force=force))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a run folder. No code is run. Raises: RunError when it is damaged."""
        fitted = Fitted.load(RunFolder.open(path, TASK))
        detector = cls.from_settings(fitted.settings.model_dump())
        detector._fitted = fitted
        return detector

    def learn(
        self,
        table: WatchedSet,
        *,
        weights: Mapping[str, Array] | None = None,
        progress: bool = False,
    ) -> Fitted:
        """Watch series that are already read; this detector itself is left as it was.

        weights are those of a forecaster that is trained already.
        """
        started = clock.monotonic()
        if weights is None:
            weights = self.train_network(table.series, progress=progress)
        watch = make_watch(self.settings, len(table.columns.value), weights)
        threshold = watch.threshold
        is_known = self.settings.threshold is not None or (
            self.settings.false_alarms is None and not watch.head.holds
        )
        if not is_known:
            watch.threshold = math.inf
        state = watch.initial_state(len(table.series))
        for n, one in enumerate(table.series):
            watch.know(state, n, one.counts, scale_of(one.values) if watch.head.holds else {})
        answers, state = watch_series(
            watch, state, [one.values for one in table.series], [one.clock for one in table.series]
        )
        if not is_known:
            threshold = self._threshold(watch.head.holds, answers)
            answers = raise_later(watch, state, answers, threshold)
        alarms = sum(int(rows.alarm.sum()) for rows in answers)
        rows = sum(len(one) for one in table.series)
        first = table.series[0]
        return Fitted(
            columns=table.columns,
            settings=self.settings,
            threshold=threshold,
            names=tuple(one.name for one in table.series),
            clocked=first.times.dtype.kind == "M",
            last=np.array([int(one.times.astype(np.int64).max()) for one in table.series]),
            rows=np.stack([one.counts for one in table.series]),
            state=state,
            weights=dict(weights),
            training={
                "rows": rows,
                "series": len(table.series),
                "alarms": alarms,
                "seconds": round(clock.monotonic() - started, 3),
            },
            notes=table.notes,
            time_format=table.time_format,
            is_utc=table.is_utc,
            traces=tuple(
                make_trace(one, answer)
                for one, answer in zip(table.series[:TRACED_SERIES], answers, strict=False)
            ),
        )

    def train_network(
        self, series: Sequence[Watched], *, progress: bool = False
    ) -> dict[str, Array]:
        """The weights of a forecaster, trained on these rows; none for another model.

        Raises: DataError when there are too few values.
        """
        if self.settings.model != "forecaster":
            return {}
        from recurra.tasks.anomaly.network import learn_weights

        lanes = []
        for one in series:
            for values in one.values.T:
                known = np.isfinite(values)
                lanes.append((values[known], one.clock[known]))
        given = self.settings
        length = {"steps": given.steps, "minutes": given.minutes}
        if given.steps is None and given.minutes is None:
            length["steps"] = STEPS
        return learn_weights(
            lanes, hidden_size=given.hidden_size, seed=given.seed, progress=progress, **length
        )

    def _threshold(self, holds: bool, answers: Sequence[Rows]) -> float:
        """The threshold that answers to the training rows ask for."""
        rate = self.settings.false_alarms
        surprises = [rows.surprise for rows in answers]
        if not holds:
            rest = (self.settings.refractory, self.settings.jump)
            return threshold_for(surprises, float(rate or 0.0), *rest)
        # What was learned early in training was not strange, only not yet known.
        late = [one[len(one) // 2 :] for one in surprises]
        reached = threshold_for(late, rate or HELD_ALARMS, 0, np.inf)
        return reached if rate is not None else MARGIN * reached

    def _read_new(self, data: Any, time: str, value: Names, series: str | None) -> WatchedSet:
        """The series of a table to learn from."""
        frame = read_table(data, text=("series",) if series is None else (series,))
        if time not in frame.columns:
            raise DataError(
                f"{unknown('time column', time, frame.columns)} Name the column of times: "
                "time=... (--time)."
            )
        if series is None and "series" in frame.columns:
            series = "series"
        columns = Columns(time, (value,) if isinstance(value, str) else tuple(value), series)
        return read_watched(frame, columns, time_format=self.settings.time_format)


def _cut(table: WatchedSet, until: Any) -> WatchedSet:
    """The rows up to a time; a date without a time of day means its end."""
    import narwhals as nw
    import polars as pl

    column = nw.from_native(
        pl.Series("until", [until if isinstance(until, int) else str(until)]), series_only=True
    )
    limit = read_times(column, time_format=table.time_format, is_utc=table.is_utc).values[0]
    kinds = {one.times.dtype.kind for one in table.series}
    if kinds != {limit.dtype.kind}:
        raise DataError(
            f"until={until} is not the kind of time that the table has, such as "
            f"{format_time(table.series[0].times[0])}. Give the same kind."
        )
    if limit.dtype.kind == "M" and int(limit.astype(np.int64)) % DAY == 0:
        limit = limit + np.timedelta64(DAY - 1, "ns")
    cut = [_upto(one, limit) for one in table.series]
    kept = tuple(one for one in cut if len(one))
    if not kept:
        first = min(one.times.min() for one in table.series)
        raise DataError(
            f"no row is at or before until={until}; the first is {format_time(first)}. "
            "Give a later time."
        )
    return replace(table, series=kept)


def _upto(one: Watched, limit: Any) -> Watched:
    """The first rows of a series, until a time after the limit."""
    late = np.flatnonzero(one.times > limit)
    end = int(late[0]) if len(late) else len(one)
    return Watched(one.name, one.times[:end], one.values[:end], one.at[:end])
