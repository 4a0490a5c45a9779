"""Forecaster: fit, predict, evaluate, backtest, save, load, stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from recurra.data.series import SeriesSet, read_series
from recurra.data.tables import read_table
from recurra.errors import DataError, not_fitted
from recurra.runs import RunFolder
from recurra.tasks.forecasting.attribution import attribute
from recurra.tasks.forecasting.backtest import backtest
from recurra.tasks.forecasting.conformal import Calibration
from recurra.tasks.forecasting.evaluation import Evaluation, evaluate, rolling_origins
from recurra.tasks.forecasting.fitted import TASK, Fitted
from recurra.tasks.forecasting.frames import (
    attribution_frame,
    frame_kind,
    prediction_frame,
    sample_frame,
)
from recurra.tasks.forecasting.held_out import learn_calibration
from recurra.tasks.forecasting.learning import (
    fine_tuning,
    learn,
    plan,
    trained_on,
    training_settings,
)
from recurra.tasks.forecasting.reading import ROLES, Names, cut, read_new
from recurra.tasks.forecasting.scenarios import draw_paths, draw_rows, draws_itself
from recurra.tasks.forecasting.search import Search, Space, search
from recurra.tasks.forecasting.settings import (
    QUANTILE_LEVELS,
    Design,
    ForecasterSettings,
    Head,
    Loss,
    Weights,
    members,
)
from recurra.tasks.forecasting.state import SeriesState
from recurra.tasks.forecasting.stepper import ForecastStepper
from recurra.tasks.forecasting.stream import ForecastStream
from recurra.tasks.forecasting.updating import (
    forecast_states,
    last_quantiles,
    states_after,
    update_states,
)
from recurra.training.loop import TrainingResult
from recurra.training.restore import config_explained
from recurra.training.same_fit import begin_run


class Forecaster:
    """Probabilistic forecasts of one or many time series by a recurrent network.

    One causal network is trained on all series and targets of a long table. Each step sees a window
    normalised by what is known then, and forecasts every step ahead, nine quantiles each.

    horizon         steps ahead
    model           "forking", a causal network that reads every row once and forecasts from every
                    step; "segments", a GRU over pieces of a look-back window, which suits long
                    horizons; or "autoregressive", which draws one row after the other. The latter
                    two take no covariates; see `network.py`, `segments.py`, `autoregressive.py`
    context         rows in the window of one step; from the frequency and season when None, as are
                    stride, the rows between steps, and sequence_length, the steps in training;
                    with model="segments" the look-back, `segment` the rows in one piece of it, and
                    `linear` whether a linear map of it, solved in closed form, comes first
    season          rows in one season; found in the data when None, 1 for none
    cell            "gru", "lstm" or "rnn", with hidden_size, num_layers, dropout
    quantile_levels quantiles to forecast; the median must be among them
    loss            what errors are measured in: "scaled" by each window's spread, "relative" to the
                    series, "balanced" between these two, by the two measures of "competition"s, or
                    "huber" for a point forecast judged by its squares; see `losses.py`
    skip            rows that the seasonal skip path looks back before training; a season when None
    profile         past seasons (of `skip` rows when given) whose mean shape is an input
    level           rows whose mean is a window's level; when None a season, or the last row alone,
                    which it is too for data finer than a day
    aligned         whether training windows end whole seasons before the end of each series, for
                    forecasts that are always made at the same hour or weekday
    smoothing       whether exponential smoothing, its rates learned, takes level and season out of
                    each window and carries them on, for short seasonal series; see `smoothing.py`
    head            "quantiles", or "counts" for whole numbers of 0 or more, many of them 0: a
                    negative binomial distribution, see `counts.py`
    logarithm       whether targets are modelled by their logarithm, values of 0 or less then being
                    missing; where all values keep away from 0 when None
    minutes, steps  length of training, on the clock or in updates; 10 minutes when both are None
    validation      share of the end of each series that is kept to stop at the best weights; 0 for
                    none. Training ends early after `patience` validations without a better one
    frequency       step of the time column, such as "1h"; inferred when None
    duplicates      what to do with repeated times: "error", "mean", "first", "last"
    time_format     "dmy", "mdy" or a pattern, where the table's times could be read in two ways
    seed, device    seed of all chance; "auto", "cpu" or "cuda" to train on
    calibrate       move the quantiles until the rows kept for validation fall below them as often
                    as they say, see `conformal.py`
    progress        show a bar, or lines, on stderr
    training        further settings of the training loop, as {"learning_rate": 1e-3}
    ensemble        how many networks forecast together, each with a seed of its own; or a list of
                    what is different in each, as [{"loss": "relative"}, {"context": 64}]. They
                    share `minutes`, and their mean is the forecast
    weights         how much each network of an ensemble counts: "equal", or as was best on the rows
                    kept for "validation", see `weighting.py`

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
        model: Design = "forking",
        context: int | None = None,
        segment: int | None = None,
        linear: bool = False,
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
        profile: int = 0,
        level: int | None = None,
        aligned: bool = False,
        smoothing: bool = False,
        head: Head = "quantiles",
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
        weights: Weights = "equal",
        calibrate: bool = False,
        progress: bool = True,
    ) -> None:
        given = {**locals(), "training": dict(training or {})}
        self.settings = ForecasterSettings.out_of(given)
        self.progress = progress
        self.result: TrainingResult | None = None
        self._fitted: Fitted | None = None
        self._kind: Any = "polars"  # of the frames that nobody brought a table for
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
        words = self.settings.written()
        return f"Forecaster({words}), {'fitted' if self._fitted else 'not fitted'}"

    @property
    def fitted(self) -> Fitted:
        """The trained part: network, table schema and the state of each series.

        Raises: NotFittedError before `fit` or `load`.
        """
        if self._fitted is None:
            raise not_fitted(self, "fit(table)")
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
        named = {"future": future, "past": past, "static": static}
        table = read_new(
            data, self.settings, {"time": time, "target": target, "series": series, **named}
        )
        if until is not None:
            table = cut(table, until)
        self._kind = frame_kind(data)
        return self._train(table, None, out, force, resume)

    def fine_tune(
        self,
        data: Any,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        training: Mapping[str, Any] | None = None,
        until: Any = None,
        out: str | Path | None = None,
        force: bool = False,
        resume: bool = False,
    ) -> Self:
        """Go on training from the weights that this forecaster has, on a table of the same columns.

        Its series may be others, or newer rows of those it was trained on; afterwards it stands
        where they end. Design, transforms and scales of covariates stay as they were. Each update
        is a third as large as in `fit`, unless `training` has a learning_rate. minutes, steps,
        training: as when made; until, out, force, resume: as in `fit`.

        Raises: DataError for a table that cannot be used, RunError for the folder.
        """
        fitted = self.fitted
        table = self.read(data)
        if until is not None:
            table = cut(table, until)
        settings = fine_tuning(self.settings, minutes, steps, training or {})
        tuned = type(self).from_settings(settings.model_dump(), progress=self.progress)
        tuned._train(table, fitted, out, force, resume)
        self._fitted, self.result, self.settings = tuned._fitted, tuned.result, settings
        self._kind = frame_kind(data)
        return self

    def _train(
        self,
        table: SeriesSet,
        start: Fitted | None,
        out: str | Path | None,
        force: bool,
        resume: bool,
    ) -> Self:
        """Train on a table, from fresh weights or those of `start`."""
        chosen = plan(table, self.settings, start)
        run = begin_run(
            None if out is None else RunFolder(out),
            self.settings,
            trained_on(table, start),
            force=force,
            resume=resume,
        )
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

        Returns a long frame of the kind of `data`, or of what was trained on (polars after `load`):
        series, time, target, step, q0.1 … q0.9.
        """
        backend, names, last, quantiles = self._forecast(data)
        levels = self.fitted.settings.quantile_levels
        return prediction_frame(self.fitted.schema, names, last, quantiles, levels, backend)

    def _forecast(self, data: Any) -> tuple[Any, list[str], Any, Any]:
        """(kind of frame, names, grid indices of the last rows, quantiles (S, K, horizon, Q))."""
        fitted = self.fitted
        if data is None:
            if fitted.schema.future:
                raise DataError(
                    f"the model has known-future covariates ({', '.join(fitted.schema.future)}); "
                    "give the table with rows for the steps ahead, their targets empty."
                )
            last = np.array(list(fitted.indices.values()))
            made = forecast_states(fitted, list(fitted.states.values()))
            return self._kind, list(fitted.states), last, made
        frame = read_table(
            data, text=() if fitted.schema.series is None else (fitted.schema.series,)
        )
        series = self._read_on(frame).series
        last = np.array([one.start + len(one.target) - 1 for one in series])
        made = last_quantiles(fitted, series)
        return frame.implementation, [one.name for one in series], last, made

    def _states(self, data: Any) -> tuple[Any, Mapping[str, SeriesState]]:
        """(kind of frame, state of each series of `data` after its last row)."""
        fitted = self.fitted
        if data is None:
            return self._kind, fitted.states
        frame = read_table(
            data, text=() if fitted.schema.series is None else (fitted.schema.series,)
        )
        return frame.implementation, states_after(fitted, self._read_on(frame).series)

    def sample(self, data: Any = None, *, count: int = 100, seed: int = 0) -> Any:
        """`count` scenario paths for each series: what may come, step for step together.

        Each step has the quantiles that `predict` gives, and steps and targets move together as
        they did in held-out windows; see `dependence.py`. With model="autoregressive" in all
        networks, and no calibration, each row is drawn from what the path came to before it; see
        `autoregressive.py`. `data` as in `predict`.

        Returns a long frame of the kind of `data`: series, time, target, sample, step, value.
        """
        fitted = self.fitted
        if draws_itself(fitted):
            backend, states = self._states(data)
            names, last = list(states), np.array([state.index for state in states.values()])
            paths = draw_rows(fitted, list(states.values()), count, seed)
        else:
            backend, names, last, quantiles = self._forecast(data)
            paths = draw_paths(fitted, quantiles, count, seed)
        return sample_frame(fitted.schema, names, last, paths, backend)

    def calibrate(self, data: Any, *, windows: int | None = None) -> Calibration:
        """Move the quantiles until newer rows fall below them as often as they say.

        The windows are those that `evaluate` would score; to know what came of it on windows that
        calibration did not see, look at the answer's `coverage`, or evaluate on newer rows still.

        Raises: DataError when too little lies after the end of the training data.
        """
        fitted, series = self.fitted, self.read(data).series
        number, row, _ = rolling_origins(
            series, fitted.ends(series), fitted.settings.horizon, windows
        )
        calibration = learn_calibration(fitted, series, number, row)
        self._fitted = replace(fitted, calibration=calibration)
        return calibration

    def update(self, data: Any) -> Self:
        """Read further rows of the series, so that the next forecasts start after them.

        The same as reading the whole histories anew, at the cost of the new rows alone; the weights
        stay. Every row comes after the last one read of its series, rows absent in between count as
        missing, and a series that was not there yet is read from its first row. `evaluate` goes on
        to count from the end of training.

        Raises: DataError for rows that were read before, or that cannot be used. Nothing has then
        been read.
        """
        fitted = self.fitted
        states = update_states(fitted, self._read_on(data).series)
        self._fitted = replace(fitted, states=states, trained=fitted.trained or fitted.indices)
        return self

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
        sliding: int | None = None,
        **columns: Any,
    ) -> Evaluation:
        """Train on what lies before the windows and score them: once, or again before each window.

        A fit sees all rows before its first window, or the last `sliding` of them alone.
        Every fit starts from fresh weights; this forecaster itself is left as it was. `columns` are
        the arguments of `fit` that name columns; those of `fit` when it was trained before.
        """
        table = self._read_columns(data, columns)
        return backtest(table, self.settings, windows, refit, sliding, progress=self.progress)

    def search(
        self,
        data: Any,
        *,
        space: Space | None = None,
        trials: int = 20,
        until: Any = None,
        **columns: Any,
    ) -> Search:
        """Train `trials` forecasters with settings out of `space`, and say which were best.

        They are scored on the rows kept for validation alone; `until` as in `fit`. space maps names
        of settings to a list of choices or a pair (lowest, highest), "training.learning_rate" being
        one of the training loop's; None for the usual ones. columns: as in `backtest`. This
        forecaster stays as it was; make the best one by Forecaster(**found.settings).

        Raises: MissingExtraError without Optuna, ConfigError for a space that is none.
        """
        table = self._read_columns(data, columns)
        if until is not None:
            table = cut(table, until)
        return search(table, self.settings, space, trials, progress=self.progress)

    def explain(self, data: Any) -> Any:
        """What the forecast after the last row of each series was made of.

        Returns a long frame of the kind of `data`, the largest attributions first: series, time,
        target, input, attribution. The attributions of a target add up to what its inputs change,
        see `attribution.py`.
        """
        fitted = self.fitted
        frame = read_table(
            data, text=() if fitted.schema.series is None else (fitted.schema.series,)
        )
        found = [part for one in self.read(frame).series for part in attribute(fitted, one)]
        return attribution_frame(fitted.schema, found, frame.implementation)

    def _read_columns(self, data: Any, columns: Mapping[str, Any]) -> SeriesSet:
        """A table to train on; by the columns of `fit` where none are named."""
        if not columns and self._fitted is not None:
            used = self._fitted.schema.columns
            columns = {role: getattr(used, role) for role in ROLES}
        return read_new(data, self.settings, columns)

    def read(self, data: Any) -> SeriesSet:
        """The series of a table, read as the training table was: its grid, its categories.

        Raises: DataError for a table that cannot be used.
        """
        return self._read(data, {})

    def _read_on(self, data: Any) -> SeriesSet:
        """`read` for series that may go on from where they stand, with a first row of any kind."""
        return self._read(data, self.fitted.indices)

    def _read(self, data: Any, known: Mapping[str, int]) -> SeriesSet:
        schema = self.fitted.schema
        return read_series(
            data,
            schema.columns,
            frequency=schema.grid,
            duplicates=self.settings.duplicates,
            categories=schema.categories,
            time_format=schema.time_format,
            known=known,
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
        return {**fitted.states, **states_after(fitted, self._read_on(data).series)}

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
        with config_explained(run):
            forecaster = cls.from_settings(settings)
        forecaster._fitted = fitted
        return forecaster
