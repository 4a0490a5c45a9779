"""Forecaster: fit, predict, evaluate, backtest, save, load, stream."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from recurra.data.calendar import DAY, format_time
from recurra.data.series import Columns, SeriesSet, read_series
from recurra.data.tables import read_table
from recurra.errors import ConfigError, DataError, NotFittedError, RunError, unknown
from recurra.runs import RunFolder
from recurra.tasks.forecasting.backtest import backtest
from recurra.tasks.forecasting.clock import index_of
from recurra.tasks.forecasting.evaluation import Evaluation, evaluate
from recurra.tasks.forecasting.fitted import TASK, Fitted
from recurra.tasks.forecasting.frames import prediction_frame
from recurra.tasks.forecasting.learning import (
    check_same_fit,
    learn,
    note_fit,
    plan,
    training_settings,
)
from recurra.tasks.forecasting.settings import QUANTILE_LEVELS, ForecasterSettings, Loss, members
from recurra.tasks.forecasting.state import SeriesState
from recurra.tasks.forecasting.stepper import ForecastStepper
from recurra.tasks.forecasting.stream import ForecastStream, last_quantiles
from recurra.training.loop import TrainingResult

ROLES = ("time", "target", "series", "future", "past", "static")
Names = str | Sequence[str]


class Forecaster:
    """Probabilistic forecasts of one or many time series by a recurrent network.

    One causal network is trained on all series and targets of a long table. Each step sees a window
    normalised by what is known then, and forecasts every step ahead, nine quantiles each.

    horizon         steps ahead
    context         rows in the window of one step; from the frequency and season when None, as are
                    stride, the rows between steps, and sequence_length, the steps in training
    season          rows in one season; found in the data when None, 1 for none
    cell            "gru", "lstm" or "rnn", with hidden_size, num_layers, dropout
    quantile_levels quantiles to forecast; the median must be among them
    loss            what errors are measured in: "scaled" by each window's spread, "relative" to the
                    series, or by the two measures of "competition"s; see `losses.py`
    skip            rows that the seasonal skip path looks back before training; a season when None
    logarithm       whether targets are modelled by their logarithm, values of 0 or less then being
                    missing; where all values keep away from 0 when None
    minutes, steps  length of training, on the clock or in updates; 10 minutes when both are None
    validation      share of the end of each series that is kept to stop at the best weights; 0 for
                    none. Training ends early after `patience` validations without a better one
    frequency       step of the time column, such as "1h"; inferred when None
    duplicates      what to do with repeated times: "error", "mean", "first", "last"
    time_format     "dmy", "mdy" or a pattern, where the table's times could be read in two ways
    seed, device    seed of all chance; "auto", "cpu" or "cuda" to train on
    progress        show a bar, or lines, on stderr
    training        further settings of the training loop, as {"learning_rate": 1e-3}
    ensemble        how many networks forecast together, each with a seed of its own; or a list of
                    what is different in each, as [{"loss": "relative"}, {"context": 64}]. They
                    share `minutes`, and their mean is the forecast

    Raises: ConfigError for a setting that is unknown or out of range.

    Example:
        >>> import numpy as np, polars as pl
        >>> days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 6, 30), eager=True)
        >>> units = 10 + 3 * np.sin(np.arange(len(days)) * 2 * np.pi / 7)
        >>> table = pl.DataFrame({"time": days, "target": units})
        >>> forecaster = Forecaster(horizon=7, steps=5, progress=False).fit(table)
        >>> forecaster.predict(table).shape
        (7, 12)

    Source: forking sequences and quantile heads, Wen et al. 2017, "A Multi-Horizon Quantile
    Recurrent Forecaster"; the network is described in `network.py`, its inputs in `features.py`.
    """

    def __init__(
        self,
        *,
        horizon: int,
        context: int | None = None,
        season: int | None = None,
        stride: int | None = None,
        sequence_length: int | None = None,
        cell: Literal["gru", "lstm", "rnn"] = "gru",
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.1,
        quantile_levels: Sequence[float] = QUANTILE_LEVELS,
        loss: Loss = "scaled",
        skip: int | None = None,
        logarithm: bool | None = None,
        minutes: float | None = None,
        steps: int | None = None,
        batch_size: int = 48,
        validation: float = 0.15,
        patience: int = 10,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        frequency: str | None = None,
        duplicates: Literal["error", "mean", "first", "last"] = "error",
        time_format: str | None = None,
        training: Mapping[str, Any] | None = None,
        ensemble: int | Sequence[Mapping[str, Any]] = 1,
        progress: bool = True,
    ) -> None:
        given = locals()
        values = {name: given[name] for name in ForecasterSettings.model_fields}
        self.settings = ForecasterSettings(**{**values, "training": dict(training or {})})
        self.progress = progress
        self.result: TrainingResult | None = None
        self._fitted: Fitted | None = None
        for member in members(self.settings):
            training_settings(member, validate_every=1)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], *, progress: bool = True) -> Self:
        """A forecaster from settings by name, as a file holds them.

        Raises: ConfigError naming every one that is unknown (and the nearest), or out of range.
        """
        checked = ForecasterSettings(**settings)
        return cls(**checked.model_dump(), progress=progress)

    def __repr__(self) -> str:
        given = self.settings.model_dump(exclude_defaults=True)
        words = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"Forecaster({words}), {'fitted' if self._fitted else 'not fitted'}"

    @property
    def fitted(self) -> Fitted:
        """The trained part: network, table schema and the state of each series.

        Raises: NotFittedError before `fit` or `load`.
        """
        if self._fitted is None:
            raise NotFittedError(
                "this Forecaster has not been trained; call fit(table) first, or "
                "Forecaster.load(folder)."
            )
        return self._fitted

    def fit(
        self,
        data: Any,
        *,
        time: str = "time",
        target: Names = "target",
        series: str | None = None,
        future: Names = (),
        past: Names = (),
        static: Names = (),
        until: Any = None,
        out: str | Path | None = None,
        force: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train on a long table: a pandas or polars frame, or the path of a CSV or Parquet file.

        time, target, series   columns; several targets are forecast together. Without `series` a
                               column called "series" is used if there is one
        future, past, static   covariates known ahead, known up to now, fixed per series
        until                  last time to train on, a date to its end; later rows are left for
                               `evaluate`
        out, force, resume     run folder to write; replace the run in it; go on with it

        Raises: DataError for a table that cannot be used, RunError for the folder.
        """
        table = self._read_new(data, time, target, series, future, past, static)
        if until is not None:
            table = _cut(table, _last_index(until, table), until)
        chosen = plan(table, self.settings)
        if resume and out is not None:
            check_same_fit(RunFolder(out), self.settings, table)
        # Only now, when nothing of the new run can be refused any more, an old one may go.
        run = None if out is None else RunFolder.create(out, force=force, resume=resume)
        if run is not None:
            note_fit(run, self.settings, table)
        self._fitted, self.result = learn(
            chosen, None if run is None else run.path, resume=resume, progress=self.progress
        )
        if run is not None:
            self.fitted.save(run, self.settings.model_dump(mode="json"))
        return self

    def predict(self, data: Any = None) -> Any:
        """Quantiles of the `horizon` steps after the last row of each series.

        data    a table with the columns of training; a series whose rows all come after its
                training rows goes on from there. None forecasts from the end of the training table
        Known-future covariates are given as further rows of the table with empty targets.

        Returns a long frame of the kind of `data`: series, time, target, step, q0.1 … q0.9.
        """
        fitted = self.fitted
        if data is None:
            return self._predict_from_states()
        frame = read_table(
            data, text=() if fitted.schema.series is None else (fitted.schema.series,)
        )
        table = self.read(frame)
        return prediction_frame(
            fitted.schema,
            [one.name for one in table.series],
            np.array([one.start + len(one.target) - 1 for one in table.series]),
            last_quantiles(fitted, table.series),
            fitted.settings.quantile_levels,
            frame.implementation,
        )

    def evaluate(self, data: Any, *, windows: int | None = None) -> Evaluation:
        """Rolling-origin scores on the rows after the training data, next to the baselines.

        windows   how many per series, `horizon` rows each, counted back from the last row; None
                  for all that fit

        Raises: DataError when no window lies after the end of the training data.
        """
        return evaluate(self.fitted, self.read(data).series, windows)

    def backtest(
        self,
        data: Any,
        *,
        windows: int = 8,
        refit: Literal["once", "each"] = "once",
        **columns: Any,
    ) -> Evaluation:
        """Train on what lies before the windows and score them: once, or again before each window.

        Every fit starts from fresh weights; this forecaster itself is left as it was. `columns` are
        the arguments of `fit` that name columns; those of `fit` when it was trained before.
        """
        if columns or self._fitted is None:
            usual = {"time": "time", "target": "target", "series": None}
            empty = {"future": (), "past": (), "static": ()}
            table = self._read_new(data, **{**usual, **empty, **columns})
        else:
            used = self._fitted.schema.columns
            table = self._read_new(data, **{role: getattr(used, role) for role in ROLES})
        return backtest(table, self.settings, windows, refit, progress=self.progress)

    def read(self, data: Any) -> SeriesSet:
        """The series of a table, read as the training table was: its grid, its categories.

        Raises: DataError for a table that cannot be used.
        """
        schema = self.fitted.schema
        return read_series(
            data,
            schema.columns,
            frequency=schema.grid,
            duplicates=self.settings.duplicates,
            categories=schema.categories,
            time_format=schema.time_format,
        )

    def stream(self, data: Any = None) -> ForecastStream:
        """Go on from the end of the training table, or of `data`, one observation at a time."""
        return ForecastStream(self.fitted, self._states_after(data))

    def stepper(
        self, data: Any = None, *, key: str | None = None, seq: str | None = None
    ) -> ForecastStepper:
        """What a `recurra.streaming.StreamEngine` steps, from the same states as `stream`.

        key: the column that names streams, for a model of one series; seq: the column of an event's
        identity, its time when None. Raises: ConfigError for a key beside the model's own.
        """
        return ForecastStepper(self.fitted, self._states_after(data), key=key, seq=seq)

    def _states_after(self, data: Any) -> Mapping[str, SeriesState]:
        """Where each series stands after the training table, or after `data`."""
        fitted = self.fitted
        if data is None:
            return fitted.states
        return {**fitted.states, **fitted.read(self.read(data).series)}

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the run folder: config.json, model.safetensors, state.safetensors.

        Raises: RunError when the folder already holds files and `force` is not given.
        """
        fitted = self.fitted
        fitted.save(RunFolder.create(path, force=force), self.settings.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a run folder. No code is run. Raises: RunError when it is damaged."""
        run = RunFolder.open(path, TASK)
        fitted, settings = Fitted.load(run)
        try:
            forecaster = cls.from_settings(settings)
        except ConfigError as error:
            raise RunError(
                f"{run.config_path} is damaged or was edited: {error} Restore it from a copy or "
                "train again."
            ) from error
        forecaster._fitted = fitted
        return forecaster

    def _read_new(
        self,
        data: Any,
        time: str,
        target: Names,
        series: str | None,
        future: Names,
        past: Names,
        static: Names,
    ) -> SeriesSet:
        """The series of a table to train on."""
        frame = read_table(data, text=("series",) if series is None else (series,))
        if time not in frame.columns:
            raise DataError(
                f"{unknown('time column', time, frame.columns)} Name the column of times: "
                f"time=... (--time).{_wide_hint(len(frame.columns))}"
            )
        if series is None and "series" in frame.columns:
            series = "series"
        columns = Columns(
            time=time,
            target=_names(target),
            series=series,
            future=_names(future),
            past=_names(past),
            static=_names(static),
        )
        return read_series(
            frame,
            columns,
            frequency=self.settings.frequency,
            duplicates=self.settings.duplicates,
            time_format=self.settings.time_format,
        )

    def _predict_from_states(self) -> Any:
        fitted = self.fitted
        if fitted.schema.future:
            raise DataError(
                f"the model has known-future covariates ({', '.join(fitted.schema.future)}); "
                "give the table with rows for the steps ahead, their targets empty."
            )
        stream = ForecastStream(fitted, fitted.states)
        quantiles = np.stack([stream.quantiles(name) for name in fitted.states])
        last = np.array([state.index for state in fitted.states.values()])
        names, levels = list(fitted.states), fitted.settings.quantile_levels
        return prediction_frame(fitted.schema, names, last, quantiles, levels, "polars")


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


def _cut(table: SeriesSet, last: int, until: Any) -> SeriesSet:
    """The rows of each series up to grid index `last`; what follows is not even known future."""
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
