"""From a table to a fitted forecaster: choose the design, train, read where each series stands."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurra.data.series import Series, SeriesSet
from recurra.errors import ConfigError, DataError
from recurra.runs import RunFolder
from recurra.tasks.forecasting.counts import check_counts, is_intermittent
from recurra.tasks.forecasting.fitted import Fitted, make_network
from recurra.tasks.forecasting.fitting import ForecastTask
from recurra.tasks.forecasting.frames import quantile_name
from recurra.tasks.forecasting.held_out import (
    held_out_origins,
    learn_calibration,
    with_dependence,
)
from recurra.tasks.forecasting.linear_skip import solve_linear
from recurra.tasks.forecasting.panel import Panel
from recurra.tasks.forecasting.schema import Schema, build_panel, check_size, learn_schema
from recurra.tasks.forecasting.season import choose_baseline, design, detect_season
from recurra.tasks.forecasting.settings import ForecasterSettings, ModelSettings, members
from recurra.tasks.forecasting.weighting import with_weights
from recurra.training.learner import choose_device
from recurra.training.loop import TrainingResult, train
from recurra.training.same_fit import Fingerprint
from recurra.training.settings import DEFAULT_MINUTES, TrainingSettings, common_values

FINE_TUNING = 1 / 3
"""Learning rate of fine-tuning, as a share of the usual one."""
STEPS_WITHOUT_VALIDATION = 500
NETWORK_FIELDS = (
    "model",
    "segment",
    "linear",
    "cell",
    "hidden_size",
    "num_layers",
    "dropout",
    "quantile_levels",
    "loss",
    "skip",
    "profile",
    "level",
    "aligned",
    "smoothing",
    "head",
)
RESERVED = ("step", "target", "sample", "value", "input", "attribution")
SMALL_NETWORK = 128


@dataclass(frozen=True)
class Member:
    """One network to train: its batches and loss, and the settings of the training loop."""

    task: ForecastTask
    training: TrainingSettings


@dataclass(frozen=True)
class Plan:
    """Everything that training needs, checked: nothing has been trained or written yet.

    The last `kept` rows of each series were kept from all networks: they weigh the networks or
    calibrate the quantiles when that is asked for.
    """

    table: SeriesSet
    schema: Schema
    members: tuple[Member, ...]
    notes: tuple[str, ...]
    kept: tuple[int, ...] = ()
    weigh: bool = False
    calibrate: bool = False

    @property
    def task(self) -> ForecastTask:
        """The task of the first network."""
        return self.members[0].task


def training_settings(
    settings: ForecasterSettings, validate_every: int | None, share: int = 1
) -> TrainingSettings:
    """Settings of the training loop; `validate_every` None means that nothing can be validated.

    `share` networks share the default time.

    Raises: ConfigError when they contradict each other.
    """
    values = common_values(settings, DEFAULT_MINUTES / share)
    if validate_every is None and settings.steps is None:
        values |= {"minutes": None, "steps": STEPS_WITHOUT_VALIDATION}
    if validate_every:
        values["validate_every"] = validate_every
    else:
        values["patience"] = None
    return TrainingSettings(**{**values, **settings.training})


def fine_tuning(
    settings: ForecasterSettings,
    minutes: float | None,
    steps: int | None,
    training: Mapping[str, Any],
) -> ForecasterSettings:
    """The settings with which training goes on from weights, at a lower rate if none is given."""
    usual = TrainingSettings.model_fields["learning_rate"].default
    rate = FINE_TUNING * float(settings.training.get("learning_rate", usual))
    changed = {**settings.training, "learning_rate": rate, **training}
    values = {"minutes": minutes, "steps": steps, "training": changed}
    return ForecasterSettings(**{**settings.model_dump(), **values})


def plan(
    table: SeriesSet,
    settings: ForecasterSettings,
    start: Fitted | None = None,
    kept: Sequence[int] | None = None,
) -> Plan:
    """Choose season, design and split for a table, and lay everything out.

    With `start` training goes on from the weights, designs and schema of what was fitted before;
    with `kept` that many rows of each series validate, whatever the design.

    Raises: DataError when there is nothing to learn from, ConfigError for wrong settings.
    """
    _check_names(table, settings)
    for series in table.series:
        check_size(series.target)
    longest = max(int(np.isfinite(one.target).any(axis=1).sum()) for one in table.series)
    if longest <= settings.horizon:
        raise DataError(
            f"no series has more than {longest} rows with a value, and the horizon is "
            f"{settings.horizon}: there is no full window to learn from. Give longer series, or a "
            "shorter horizon."
        )
    each = members(settings)
    _check_covariates(table, each)
    if settings.head == "counts":
        check_counts(table.columns.target, table.series)
    if start is None:
        models, schema = _designs(table, each)
    else:
        models, schema = list(start.members), start.schema
    panel = build_panel(table.series, schema, settings.horizon)
    made: list[Member] = []
    kept_each: list[Sequence[int]] = []
    notes: list[str] = [*table.notes]
    for one, model in zip(each, models, strict=True):
        rows = kept
        if rows is None:
            rows = [_validation_rows(series, model, one.validation) for series in table.series]
        weights = None if start is None else start.networks[len(made)].state_dict()
        made.append(_member(table, one, model, schema, panel, len(each), rows, weights))
        kept_each.append(rows)
        notes += (note for note in _describe(table, schema, model, rows) if note not in notes)
    # A network with a longer window keeps fewer rows of a short series, and was trained on others.
    kept_rows = [min(rows) for rows in zip(*kept_each, strict=True)]
    if len(each) > 1 and settings.weights == "equal":
        notes.append(f"the mean of {len(each)} networks")
    if settings.weights == "validation" and not any(kept_rows):
        raise ConfigError(
            "weights='validation' needs rows that are kept from training, and there are none: the "
            "series are too short, or validation is 0. Use weights='equal'."
        )
    if settings.calibrate and not any(kept_rows):
        raise ConfigError(
            "calibrate=True needs rows that are kept from training, and there are none: the series "
            "are too short, or validation is 0. Leave it out, or call calibrate with newer rows."
        )
    weigh = settings.weights == "validation"
    return Plan(
        table, schema, tuple(made), tuple(notes), tuple(kept_rows), weigh, settings.calibrate
    )


def _member(
    table: SeriesSet,
    settings: ForecasterSettings,
    model: ModelSettings,
    schema: Schema,
    panel: Panel,
    share: int,
    kept: Sequence[int],
    weights: Mapping[str, Tensor] | None = None,
) -> Member:
    """One network's training on all rows but the last `kept` of each series."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = make_network(schema, model)
    if weights is not None:
        network.load_state_dict(weights)
    lengths = [len(one.target) - rows for one, rows in zip(table.series, kept, strict=True)]
    train_rows = torch.tensor(lengths).repeat_interleave(len(schema.target))
    batch_size, seed = settings.batch_size, settings.seed
    task = ForecastTask(network, panel, train_rows, batch_size, seed, schema.logarithm)
    if model.linear and weights is None:
        solve_linear(task, seed)
    training = training_settings(settings, task.validate_every if any(kept) else None, share)
    if model.linear or weights is not None:
        # Such weights forecast well before any step; training may well make them worse.
        training = training.model_copy(update={"validate_start": True})
    choose_device(training)
    return Member(task, training)


def learn(
    chosen: Plan, folder: Path | None, *, resume: bool, progress: bool
) -> tuple[Fitted, TrainingResult]:
    """Train what was planned, and return it with the result of the first network's training.

    With `folder`, log and checkpoints go there; those of an ensemble's further networks into
    folders of their own in it.
    """
    results, networks, lines = [], [], []
    for number, member in enumerate(chosen.members):
        own = None if folder is None else RunFolder(folder).member(number).make()
        with _threads_for(member.task.model.settings):
            result = train(
                member.task, member.training, folder=own, resume=resume, progress=progress
            )
        results.append(result)
        networks.append(member.task.model.to("cpu").eval())
        lines.append(result.record(member.training))
    fitted = Fitted(
        schema=chosen.schema,
        settings=networks[0].settings,
        network=networks[0],
        states={},
        training={**lines[0], "others": lines[1:]} if lines[1:] else lines[0],
        notes=chosen.notes,
        others=tuple(networks[1:]),
    )
    with _threads_for(networks[0].settings):
        fitted = replace(fitted, states=fitted.read(chosen.table.series))
        return _with_probabilities(fitted, chosen), results[0]


def _with_probabilities(fitted: Fitted, chosen: Plan) -> Fitted:
    """What is learned after the weights, from the rows kept from training."""
    series, kept = chosen.table.series, chosen.kept
    if chosen.weigh:
        fitted = with_weights(fitted, series, kept)
    fitted = with_dependence(fitted, series, kept)
    if not chosen.calibrate:
        return fitted
    origins = held_out_origins(series, kept, fitted.settings.horizon)
    return replace(fitted, calibration=learn_calibration(fitted, series, *origins))


@contextlib.contextmanager
def _threads_for(model: ModelSettings) -> Iterator[None]:
    """One thread while a small network trains.

    Two gain 15 % on two idle cores, and lose two thirds of the speed when anything else runs, since
    they wait for each other at every small product. One also gives the same bits on any machine of
    the kind, however many cores it has.
    """
    before = torch.get_num_threads()
    try:
        if model.hidden_size <= SMALL_NETWORK:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def trained_on(table: SeriesSet, start: Fitted | None = None) -> tuple[Fingerprint, ...]:
    """What a resumed run must be given again: the table, and the weights that it went on from."""
    return (
        Fingerprint(
            "start",
            _weights_fingerprint(start),
            "from other weights; --resume needs the same ones. Begin from the same run (--from)",
        ),
        Fingerprint(
            "table",
            _fingerprint(table),
            "on other rows or columns; --resume needs the same table, columns and --until. "
            "Use them",
        ),
    )


def _weights_fingerprint(start: Fitted | None) -> str | None:
    """Hash of the weights that training goes on from; None for fresh ones."""
    if start is None:
        return None
    digest = hashlib.sha256()
    for network in start.networks:
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(table: SeriesSet) -> str:
    digest = hashlib.sha256(repr((table.columns, table.frequency, table.categories)).encode())
    for one in table.series:
        digest.update(f"{one.name}\0{one.start}\0".encode())
        for values in (one.target, one.past, one.future, one.static):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _check_names(table: SeriesSet, settings: ForecasterSettings) -> None:
    """Forecasts have columns of their own, which must not meet the table's."""
    reserved = (*RESERVED, *map(quantile_name, settings.quantile_levels))
    for name in (table.columns.time, table.columns.series):
        if name in reserved:
            raise ConfigError(
                f"the column {name!r} has a name that forecasts use for a column of their own "
                f"({', '.join(reserved)}). Rename it in the table."
            )


def _check_covariates(table: SeriesSet, each: Sequence[ForecasterSettings]) -> None:
    """A network that reads windows of the targets alone has no use for covariates."""
    columns = table.columns
    given = (*columns.future, *columns.past, *columns.static)
    windowed = [one.model for one in each if one.model != "forking"]
    if given and windowed:
        raise ConfigError(
            f"model={windowed[0]!r} reads the targets alone and takes no covariates, but "
            f"{', '.join(given)} are given. Leave them out, or use model='forking'."
        )


def _designs(
    table: SeriesSet, each: Sequence[ForecasterSettings]
) -> tuple[list[ModelSettings], Schema]:
    """The design of each network, and the schema that they share."""
    values = [one.target[:, k] for one in table.series for k in range(one.target.shape[1])]
    season = each[0].season or detect_season(values, table.frequency.seasons())
    models = [
        design(
            table.frequency,
            season,
            int(np.median([len(one.target) for one in table.series])),
            horizon=settings.horizon,
            context=settings.context,
            stride=settings.stride,
            sequence_length=settings.sequence_length,
            **{name: getattr(settings, name) for name in NETWORK_FIELDS},
        )
        for settings in each
    ]
    baseline = choose_baseline(values, season, each[0].horizon)
    logarithm = False if each[0].head == "counts" else each[0].logarithm
    return models, learn_schema(table, baseline, logarithm)


def _validation_rows(series: Series, model: ModelSettings, share: float) -> int:
    """Rows kept at the end of a series for validation; 0 when too little would be left.

    They are counted back from the last observed row: a sensor that went silent validates nothing.
    """
    if share == 0:
        return 0
    observed = np.flatnonzero(np.isfinite(series.target).any(axis=1))
    silent = len(series.target) - 1 - int(observed[-1])
    length = len(series.target) - silent
    for rows in (max(model.horizon, round(share * length)), model.horizon):
        if length - rows >= max(2 * model.horizon, model.context + model.horizon):
            return rows + silent
    return 0


def _describe(
    table: SeriesSet, schema: Schema, model: ModelSettings, kept: Sequence[int]
) -> tuple[str, ...]:
    """What was inferred, in words."""
    season = f"{model.season} rows" if model.season > 1 else "none found"
    notes = [
        f"frequency: {table.frequency.name}",
        f"season: {season}",
        _describe_window(model),
    ]
    logarithm = [name for name, log in zip(schema.target, schema.logarithm, strict=True) if log]
    if logarithm:
        notes.append(
            f"modelled by logarithm: {', '.join(logarithm)}; values of 0 or less count as missing"
        )
    for k, name in enumerate(schema.target):
        if model.head != "counts" and is_intermittent([one.target[:, k] for one in table.series]):
            notes.append(f"{name} holds counts with many zeros; head='counts' models them as such")
    for name, values in table.categories.items():
        notes.append(f"{name}: read as categories, {', '.join(values[:8])}")
    if not any(kept):
        notes.append("too short to keep rows for validation; trained for a fixed length")
    return tuple(notes)


def _describe_window(model: ModelSettings) -> str:
    if model.windowed:
        cut = f" in segments of {model.segment}" if model.segment else ", row by row"
        return (
            f"window of {model.context} rows{cut}, horizon {model.horizon}; a stream keeps these "
            "rows and no recurrent state"
        )
    return f"window of {model.context} rows every {model.stride}, horizon {model.horizon}"
