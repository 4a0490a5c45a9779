"""Forecaster: fit, predict, evaluate, backtest, save, load, stream."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from recurra.data.series import Columns, SeriesSet, read_series
from recurra.data.tables import read_table
from recurra.errors import ConfigError, DataError, NotFittedError, RunError
from recurra.runs import RunFolder, read_json, write_json
from recurra.tasks.forecasting.evaluation import Evaluation, evaluate, rolling_origins
from recurra.tasks.forecasting.fitted import TASK, Fitted, make_network
from recurra.tasks.forecasting.fitting import ForecastTask
from recurra.tasks.forecasting.frames import last_indices, prediction_frame
from recurra.tasks.forecasting.schema import build_panel, learn_schema
from recurra.tasks.forecasting.season import choose_baseline, design, detect_season
from recurra.tasks.forecasting.settings import ForecasterSettings, ModelSettings
from recurra.tasks.forecasting.stream import ForecastStream, index_of
from recurra.training.loop import TrainingResult, train
from recurra.training.settings import TrainingSettings

DEFAULT_MINUTES = 10.0
STEPS_WITHOUT_VALIDATION = 500
NETWORK_FIELDS = ("cell", "hidden_size", "num_layers", "dropout", "quantile_levels")
ROLES = ("time", "target", "series", "future", "past", "static")
Names = str | Sequence[str]


class Forecaster:
    """Probabilistic forecasts of one or many time series by a recurrent network.

    One causal network is trained on all series and targets of a long table. Each step sees a window
    normalised by what is known then, and forecasts every step ahead, nine quantiles each.

    horizon         steps ahead
    context         rows in the window of one step; from the frequency and season when None
    season          rows in one season; found in the data when None, 1 for none
    cell            "gru", "lstm" or "rnn", with hidden_size, num_layers, dropout
    minutes, steps  length of training, on the clock or in updates; 10 minutes when both are None
    validation      share of the end of each series that is kept to stop at the best weights; 0 for
                    none. Training ends early after `patience` validations without a better one
    frequency       step of the time column, such as "1h"; inferred when None
    duplicates      what to do with repeated times: "error", "mean", "first", "last"
    training        further settings of the training loop, as {"learning_rate": 1e-3}

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

    def __init__(self, *, horizon: int, progress: bool = True, **settings: Any) -> None:
        self.settings = ForecasterSettings(horizon=horizon, **settings)
        self.progress = progress
        self.result: TrainingResult | None = None
        self._fitted: Fitted | None = None
        TrainingSettings(**self._training_values(validated=True))

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
        until                  last time to train on; later rows are left for `evaluate`
        out, force, resume     run folder to write; replace the run in it; go on with it

        Raises: DataError for a table that cannot be used, RunError for the folder.
        """
        table = self._read_new(data, time, target, series, future, past, static)
        if until is not None:
            table = _cut(table, index_of(until, table.frequency, table.time_format), until)
        run = None
        if out is not None:
            run = RunFolder.create(out, force=force, resume=resume)
            _check_same_fit(run, self.settings, table, resume)
        self._fit(table, run, resume)
        if run is not None:
            self.fitted.save(run, self.settings.model_dump(mode="json"))
        return self

    def predict(self, data: Any = None) -> Any:
        """Quantiles of the `horizon` steps after the last row of each series.

        data    a table with the columns of training; None forecasts from the end of the training
                table, which the run remembers
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
        number = np.arange(len(table.series))
        row = np.array([len(one.target) - 1 for one in table.series])
        quantiles = fitted.quantiles(table.series, number, row)
        return prediction_frame(
            fitted.schema,
            [one.name for one in table.series],
            last_indices(table.series),
            quantiles,
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
        if refit not in ("once", "each"):
            raise ConfigError(f"refit={refit!r}; expected 'once' or 'each'.")
        if columns or self._fitted is None:
            usual = {"time": "time", "target": "target", "series": None}
            empty = {"future": (), "past": (), "static": ()}
            table = self._read_new(data, **{**usual, **empty, **columns})
        else:
            used = self._fitted.schema.columns
            table = self._read_new(data, **{role: getattr(used, role) for role in ROLES})
        horizon = self.settings.horizon
        start = np.array([-1] * len(table.series))
        number, row, _ = rolling_origins(table.series, start, horizon, windows)
        rounds = [row] if refit == "once" else [row[j::windows] for j in range(windows)]
        parts = []
        for j, rows in enumerate(rounds):
            members = number if refit == "once" else number[j::windows]
            parts.append(
                self._backtest_round(table, members, rows, windows if refit == "once" else 1)
            )
        return _join(parts)

    def _backtest_round(
        self,
        table: SeriesSet,
        number: npt.NDArray[np.int64],
        row: npt.NDArray[np.int64],
        windows: int,
    ) -> Evaluation:
        """Fit on the rows up to each series' first origin and evaluate the windows after it."""
        horizon = self.settings.horizon
        train, seen = [], []
        for n, one in enumerate(table.series):
            origins = row[number == n]
            if len(origins):
                first, last = int(origins[0]) + 1, int(origins[-1]) + 1 + horizon
                train.append(replace(one, target=one.target[:first], past=one.past[:first]))
                seen.append(replace(one, target=one.target[:last], past=one.past[:last]))
        clone = Forecaster(**self.settings.model_dump(), progress=self.progress)
        clone._fit(replace(table, series=tuple(train)), None, False)
        return evaluate(clone.fitted, seen, windows)

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
        fitted = self.fitted
        if data is None:
            return ForecastStream(fitted, fitted.states)
        table = self.read(data)
        return ForecastStream(fitted, {**fitted.states, **fitted.read(table.series)})

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
            forecaster = cls(**settings)
        except (ConfigError, TypeError) as error:
            raise RunError(f"{run.config_path} is damaged or was edited: {error}") from error
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

    def _training_values(self, *, validated: bool) -> dict[str, Any]:
        """Arguments of TrainingSettings."""
        chosen = self.settings
        minutes, steps = chosen.minutes, chosen.steps
        if minutes is None and steps is None:
            minutes = DEFAULT_MINUTES
        if not validated and steps is None:
            minutes, steps = None, STEPS_WITHOUT_VALIDATION
        return {
            "minutes": minutes,
            "steps": steps,
            "seed": chosen.seed,
            "device": chosen.device,
            "patience": chosen.patience if validated else None,
            **chosen.training,
        }

    def _fit(self, table: SeriesSet, run: RunFolder | None, resume: bool) -> None:
        """Train on all of `table`."""
        settings = self.settings
        model, baseline = self._design(table)
        schema = learn_schema(table, baseline)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = make_network(schema, model)
        panel = build_panel(table.series, schema, model.horizon)
        kept = [
            _validation_rows(len(one.target), model, settings.validation) for one in table.series
        ]
        lengths = [len(one.target) - rows for one, rows in zip(table.series, kept, strict=True)]
        train_rows = torch.tensor(lengths).repeat_interleave(len(schema.target))
        task = ForecastTask(network, panel, train_rows, settings.batch_size, settings.seed)
        values = self._training_values(validated=any(kept))
        values.setdefault("validate_every", task.validate_every)
        training = TrainingSettings(**values)
        folder = None if run is None else run.path
        self.result = train(task, training, folder=folder, resume=resume, progress=self.progress)
        network.to("cpu").eval()
        fitted = Fitted(
            schema=schema,
            settings=model,
            network=network,
            states={},
            training={**training.model_dump(mode="json"), **_summary(self.result)},
            notes=(*table.notes, *_describe(table, model, kept)),
        )
        self._fitted = replace(fitted, states=fitted.read(table.series))

    def _design(self, table: SeriesSet) -> tuple[ModelSettings, Literal["naive", "seasonal_naive"]]:
        settings, frequency = self.settings, table.frequency
        values = [one.target[:, k] for one in table.series for k in range(one.target.shape[1])]
        season = settings.season or detect_season(values, frequency.seasons())
        length = int(np.median([len(one.target) for one in table.series]))
        model = design(
            frequency,
            season,
            length,
            horizon=settings.horizon,
            context=settings.context,
            stride=settings.stride,
            sequence_length=settings.sequence_length,
            **{name: getattr(settings, name) for name in NETWORK_FIELDS},
        )
        return model, choose_baseline(values, season, settings.horizon)

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


def _names(value: Names) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _validation_rows(length: int, model: ModelSettings, share: float) -> int:
    """Rows kept at the end of a series for validation; 0 when too little would be left."""
    if share == 0:
        return 0
    wanted = max(model.horizon, round(share * length))
    for rows in (wanted, model.horizon):
        if length - rows >= max(2 * model.horizon, model.context + model.horizon):
            return rows
    return 0


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
            f"{table.frequency.times(np.array([first]))[0]}. Choose a later time."
        )
    left = len(table.series) - len(series)
    notes = (f"{left} series start after {until!s} and were not trained on",) if left else ()
    return replace(table, series=tuple(series), notes=(*table.notes, *notes))


def _describe(table: SeriesSet, model: ModelSettings, kept: Sequence[int]) -> tuple[str, ...]:
    """What was inferred, in words."""
    season = f"{model.season} rows" if model.season > 1 else "none found"
    notes = [
        f"frequency: {table.frequency.name}",
        f"season: {season}",
        f"window of {model.context} rows every {model.stride}, horizon {model.horizon}",
    ]
    if not any(kept):
        notes.append("series too short to keep rows for validation; trained for a fixed length")
    return tuple(notes)


def _summary(result: TrainingResult) -> dict[str, Any]:
    return {"result": {name: value for name, value in asdict(result).items() if name != "history"}}


def _check_same_fit(
    run: RunFolder, settings: ForecasterSettings, table: SeriesSet, resume: bool
) -> None:
    """Note what a run is trained on, or check that a resumed one goes on with the same.

    Raises: RunError naming what differs.
    """
    path = run.checkpoints / "fit.json"
    chosen = settings.model_dump(mode="json")
    now = {"settings": chosen, "table": _fingerprint(table)}
    if resume and path.is_file():
        before = read_json(path)
        if before.get("table") != now["table"]:
            raise RunError(
                f"{run.path} was trained on another table or other columns; --resume needs the "
                "same ones. Use them, or start anew with --force."
            )
        changed = [k for k, v in chosen.items() if before.get("settings", {}).get(k) != v]
        if changed:
            raise RunError(
                f"{run.path} was trained with another {', '.join(changed)}; --resume needs the "
                "same settings. Use them, or start anew with --force."
            )
        return
    write_json(path, now)


def _fingerprint(table: SeriesSet) -> str:
    digest = hashlib.sha256(repr((table.columns, table.frequency, table.categories)).encode())
    for one in table.series:
        digest.update(f"{one.name}\0{one.start}\0".encode())
        for values in (one.target, one.past, one.future, one.static):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _join(parts: Sequence[Evaluation]) -> Evaluation:
    """Windows of several evaluations as one; models that only some have are left out."""
    first = parts[0]
    models = [m for m in first.forecasts if all(m in part.forecasts for part in parts)]
    return replace(
        first,
        forecasts={m: np.concatenate([part.forecasts[m] for part in parts]) for m in models},
        actual=np.concatenate([part.actual for part in parts]),
        number=np.concatenate([part.number for part in parts]),
        row=np.concatenate([part.row for part in parts]),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )
