"""The fitted part of a forecaster: one value that saves, loads, predicts and streams on its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from recurra.data.series import Series
from recurra.errors import ConfigError, DataError, RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.forecasting.autoregressive import AutoregressiveNetwork
from recurra.tasks.forecasting.conformal import Calibration
from recurra.tasks.forecasting.dependence import Dependence, is_correlation
from recurra.tasks.forecasting.encode import Network, forecast_rows
from recurra.tasks.forecasting.features import extra_size, future_size
from recurra.tasks.forecasting.network import ForkingNetwork
from recurra.tasks.forecasting.schema import Schema, build_panel, restore
from recurra.tasks.forecasting.segments import SegmentNetwork
from recurra.tasks.forecasting.settings import ModelSettings
from recurra.tasks.forecasting.state import (
    TAIL,
    SeriesState,
    longest_reach,
    read_states,
    recurrent_shapes,
)

Array = npt.NDArray[np.float64]
TASK = "forecasting"
NEVER_TRAINED = -(2**63)
"""Stands for the last training row of a series that came later."""


class RunConfig(BaseModel):
    """What config.json holds under `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Schema
    model: ModelSettings
    others: tuple[ModelSettings, ...] = ()
    training: dict[str, Any]
    forecaster: dict[str, Any]
    notes: tuple[str, ...]
    dependence: Dependence | None = None
    calibration: Calibration | None = None
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Fitted:
    """A trained network, the table it was trained on, and where each series stood at its end.

    `others` are the further networks of an ensemble, whose forecast is the mean of all quantiles on
    the original scale, each counted by its share of `weights`, alike when None. All have the
    horizon, season and quantile levels of `settings`. `trained` holds the grid index of each
    series' last training row, where rows were read since.
    `dependence` makes paths of quantiles, `calibration` moves them, where it was asked for.
    """

    schema: Schema
    settings: ModelSettings
    network: Network
    states: Mapping[str, SeriesState]
    training: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    others: tuple[Network, ...] = ()
    trained: Mapping[str, int] = field(default_factory=dict)
    dependence: Dependence | None = None
    calibration: Calibration | None = None
    weights: tuple[float, ...] | None = None

    @property
    def networks(self) -> tuple[Network, ...]:
        """All networks of the ensemble; the first alone when it is none."""
        return (self.network, *self.others)

    @property
    def members(self) -> tuple[ModelSettings, ...]:
        """The settings of each of `networks`."""
        return tuple(network.settings for network in self.networks)

    @property
    def shares(self) -> tuple[float, ...]:
        """What each of `networks` counts; 1 together."""
        count = len(self.networks)
        return self.weights if self.weights is not None else (1 / count,) * count

    @property
    def indices(self) -> dict[str, int]:
        """Grid index of the last row read of each series."""
        return {name: state.index for name, state in self.states.items()}

    def ends(self, series: Sequence[Series]) -> npt.NDArray[np.int64]:
        """Grid index of each series' last training row; the latest of all for a new series."""
        known = self.trained or self.indices
        latest = max(known.values())
        return np.array([known.get(one.name, latest) for one in series], dtype=np.int64)

    def quantiles(
        self, series: Sequence[Series], number: npt.NDArray[np.int64], row: npt.NDArray[np.int64]
    ) -> Array:
        """Forecasts (N, K, horizon, Q) on the original scale, after `row` of series `number` (N,).

        Raises: DataError when a known-future covariate is missing for a step ahead.
        """
        self.check_future(series, number, row)
        return self.unchecked_quantiles(series, number, row)

    def unchecked_quantiles(
        self, series: Sequence[Series], number: npt.NDArray[np.int64], row: npt.NDArray[np.int64]
    ) -> Array:
        """`quantiles`, with unknown covariates of steps ahead at their mean."""
        total: Array | None = None
        each = self.each_quantiles(series, number, row)
        for share, made in zip(self.shares, each, strict=True):
            total = share * made if total is None else total + share * made
        assert total is not None
        return self.calibrated(total)

    def each_quantiles(
        self, series: Sequence[Series], number: npt.NDArray[np.int64], row: npt.NDArray[np.int64]
    ) -> Iterator[Array]:
        """`unchecked_quantiles` of each network in turn, as they are before any calibration."""
        targets = len(self.schema.target)
        panel = build_panel(series, self.schema, self.settings.horizon)
        channel = np.repeat(number * targets, targets) + np.tile(np.arange(targets), len(number))
        origins = (torch.from_numpy(channel), torch.from_numpy(row.repeat(targets)))
        target = np.tile(np.arange(targets), len(number))
        for network in self.networks:
            with torch.no_grad():
                made = forecast_rows(network, panel, *origins).numpy()
            yield restore(made, target, self.schema).reshape(len(number), targets, *made.shape[1:])

    def calibrated(self, quantiles: Array) -> Array:
        """Quantiles (..., K, horizon, Q) as they are given out: moved, where that was learned.

        Raises: DataError when one is not a finite number, which nobody should take for a forecast.
        """
        if not np.isfinite(quantiles).all():
            bad = int((~np.isfinite(quantiles)).sum())
            raise DataError(
                f"{bad} of {quantiles.size} forecast values are NaN or infinite: the targets are "
                f"too large to be counted on ({self.schema.target}), or the weights are broken. "
                "Change the unit of the target, or train again."
            )
        if self.calibration is None:
            return np.asarray(quantiles)
        moved = self.calibration.apply(quantiles, self.settings.quantile_levels)
        positive = np.array(self.schema.non_negative)[:, None, None]
        return np.where(positive, np.maximum(moved, 0.0), moved)

    def check_future(
        self, series: Sequence[Series], number: npt.NDArray[np.int64], row: npt.NDArray[np.int64]
    ) -> None:
        """Raises: DataError naming the first series whose known-future covariates end too early."""
        if not self.schema.future:
            return
        horizon = self.settings.horizon
        for n, r in zip(number, row, strict=True):
            ahead = series[n].future[r + 1 : r + 1 + horizon]
            bad = np.flatnonzero(~np.isfinite(ahead).all(1))
            step = int(bad[0]) if len(bad) else len(ahead)
            if step < horizon:
                time = self.schema.grid.times(np.array([series[n].start + r + 1 + step]))[0]
                raise DataError(
                    f"series {series[n].name!r}: the known-future covariates "
                    f"({', '.join(self.schema.future)}) are missing at {str(time)[:19]}; a "
                    f"forecast of {horizon} steps needs them for all of these. Add rows with "
                    "them, the target empty."
                )

    def read(self, series: Sequence[Series]) -> dict[str, SeriesState]:
        """The states after all rows of `series`, from which a stream goes on."""
        panel = build_panel(series, self.schema, self.settings.horizon)
        last = np.array([one.start + len(one.target) - 1 for one in series], dtype=np.int64)
        states = read_states(self.networks, panel, last)
        return {one.name: state for one, state in zip(series, states, strict=True)}

    def save(self, run: RunFolder, forecaster: Mapping[str, Any]) -> None:
        """Write model.safetensors, state.safetensors and config.json, the seal of both."""
        weights = self.network.state_dict()
        for number, other in enumerate(self.others, start=1):
            named = other.state_dict().items()
            weights |= {f"{_prefix(number)}{name}": tensor for name, tensor in named}
        write_tensors(run.model_path, weights)
        write_tensors(run.state_path, *_pack_states(self.states, self.trained))
        config = RunConfig(
            table=self.schema,
            model=self.settings,
            others=self.members[1:],
            training=dict(self.training),
            forecaster=dict(forecaster),
            notes=self.notes,
            dependence=self.dependence,
            calibration=self.calibration,
            weights=self.weights,
        )
        files = (run.model_path, run.state_path)
        run.write_config(TASK, config.model_dump(mode="json"), files)

    @classmethod
    def load(cls, run: RunFolder) -> tuple[Fitted, dict[str, Any]]:
        """(fitted, the forecaster's arguments) from a run folder.

        Raises: RunError when a file is damaged or the files do not belong together.
        """
        sealed = run.read_config()
        run.check_files(sealed)
        try:
            config = RunConfig.model_validate(sealed["config"])
            config.table.grid  # noqa: B018 - reading it checks it
        except (ValidationError, ConfigError) as error:
            raise RunError(
                f"{run.config_path} is damaged or was edited: {_first_line(error)}. "
                "Restore it from a copy or train again."
            ) from error
        weights, _ = read_tensors(run.model_path)
        _check_shapes(weights, config, run)
        _check_finite(weights, run.model_path)
        _check_probabilities(config, run)
        networks = []
        for number, model in enumerate((config.model, *config.others)):
            networks.append(make_network(config.table, model).eval())
            networks[-1].load_state_dict(_weights_of(number, weights))
        tensors, metadata = read_tensors(run.state_path)
        states = _unpack_states(tensors, metadata, run, config)
        ends = zip(states, tensors["trained"].tolist(), strict=True)
        fitted = cls(
            config.table,
            config.model,
            networks[0],
            states,
            config.training,
            config.notes,
            tuple(networks[1:]),
            {name: end for name, end in ends if end != NEVER_TRAINED},
            config.dependence,
            config.calibration,
            config.weights,
        )
        return fitted, config.forecaster


def _check_probabilities(config: RunConfig, run: RunFolder) -> None:
    """That weights are of the networks, dependence and calibration of targets and quantiles."""
    targets, levels = len(config.table.target), len(config.model.quantile_levels)
    problem = None
    if config.weights is not None:
        count = 1 + len(config.others)
        whole = len(config.weights) == count and min(config.weights) >= 0
        if not whole or abs(sum(config.weights) - 1) > 1e-9:
            problem = f"weights are not {count} shares of one"
    if config.dependence is not None:
        rows = config.dependence.targets
        square = len(rows) == targets and all(len(row) == targets for row in rows)
        if not square or not is_correlation(np.array(rows)):
            problem = f"dependence.targets is no correlation of {targets} targets"
    if config.calibration is not None:
        shifts = config.calibration.shifts
        groups = len(shifts[0]) if len(shifts) == targets else 0
        whole = all(len(one) == groups and all(len(g) == levels for g in one) for one in shifts)
        if not whole or not 1 <= groups <= config.model.horizon:
            problem = f"calibration.shifts is not of {targets} targets and {levels} levels"
    if problem:
        raise RunError(
            f"{run.config_path} is damaged or was edited: {problem}. Restore it from a copy or "
            "train again."
        )


def make_network(schema: Schema, settings: ModelSettings) -> Network:
    """An untrained network for tables of this schema."""
    if settings.model == "segments":
        return SegmentNetwork(settings, len(schema.target))
    if settings.model == "autoregressive":
        return AutoregressiveNetwork(settings, len(schema.target), schema.baseline)
    calendar = len(schema.grid.calendar_names)
    future = len(schema.future_scale.mean) + calendar
    extra = extra_size(
        settings,
        len(schema.past_scale.mean),
        future,
        len(schema.static_scale.mean),
        len(schema.target),
    )
    return ForkingNetwork(settings, extra, future_size(settings, future), schema.baseline)


def _prefix(number: int) -> str:
    """What the names of a network's weights begin with: nothing for the first of an ensemble."""
    return f"{number}/" if number else ""


def _weights_of(number: int, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of network `number`, by their names in it."""
    prefix = _prefix(number)
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix) and (prefix or "/" not in name)
    }


def _check_shapes(weights: Mapping[str, Tensor], config: RunConfig, run: RunFolder) -> None:
    """Compare shapes before any memory is taken for a network of the config's size."""
    wanted: dict[str, tuple[int, ...]] = {}
    try:
        for number, model in enumerate((config.model, *config.others)):
            if model.num_layers > len(weights):  # each has several; never build a billion
                raise RuntimeError(f"{model.num_layers} layers out of {len(weights)} tensors")
            with torch.device("meta"):
                named = make_network(config.table, model).state_dict().items()
            wanted |= {f"{_prefix(number)}{name}": tuple(tensor.shape) for name, tensor in named}
    except RuntimeError as error:  # sizes whose product is no integer
        raise RunError(
            f"{run.model_path} does not fit {run.config_path}: {_first_line(error)}. "
            "Restore both from the same run."
        ) from error
    for name in sorted(wanted.keys() | weights.keys()):
        shape = tuple(weights[name].shape) if name in weights else None
        if shape != wanted.get(name):
            raise RunError(
                f"{run.model_path} does not fit {run.config_path}: {name!r} has the shape {shape}, "
                f"expected {wanted.get(name)}. Restore both from the same run."
            )


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise RunError(
                f"{path} cannot be used: {bad} of {tensor.numel()} numbers of {name!r} are NaN or "
                "infinite. Restore it from a copy or train again."
            )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])


def _pack_states(
    states: Mapping[str, SeriesState], trained: Mapping[str, int]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All states in a few tensors: rows of different lengths one after the other."""
    every = list(states.values())
    trained = trained or {name: state.index for name, state in states.items()}
    tensors = {
        "trained": torch.tensor([trained.get(name, NEVER_TRAINED) for name in states]),
        "index": torch.tensor([state.index for state in every]),
        "rows": torch.tensor([state.rows for state in every]),
        "recent": torch.tensor([state.tail.shape[2] for state in every]),
        "tail": torch.from_numpy(np.concatenate([state.tail for state in every], axis=2)),
        "past": torch.from_numpy(np.concatenate([state.past for state in every])),
    }
    for name in ("now", "static", "sums", "first"):
        tensors[name] = torch.from_numpy(np.stack([getattr(state, name) for state in every]))
    for j in range(len(every[0].recurrent)):
        tensors[f"recurrent{j}"] = torch.stack([state.recurrent[j] for state in every])
    return tensors, {"names": json.dumps(list(states), ensure_ascii=False)}


def _unpack_states(
    tensors: dict[str, Tensor], metadata: Mapping[str, str], run: RunFolder, config: RunConfig
) -> dict[str, SeriesState]:
    names = _read_names(metadata.get("names", ""), run)
    wanted = _state_shapes(config, len(names), int(tensors.get("recent", torch.tensor(0)).sum()))
    for name in sorted(wanted.keys() | tensors.keys()):
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape != wanted.get(name):
            raise RunError(
                f"{run.state_path} does not fit {run.config_path}: {name!r} has the shape {shape}, "
                f"expected {wanted.get(name)}. Restore both from the same run."
            )
    members = (config.model, *config.others)
    recent = tensors["recent"].tolist()
    if recent != tensors["rows"].clamp(max=longest_reach(members)).tolist() or min(recent) < 1:
        raise RunError(
            f"{run.state_path} is damaged: it holds {recent} recent rows of {names}. "
            "Restore it from a copy or train again."
        )
    parts = [tensors[name] for name in wanted if name.startswith("recurrent")]
    for part in parts:
        _check_finite({"recurrent state": part}, run.state_path)
    tails = torch.split(tensors["tail"], recent, dim=2)
    pasts = torch.split(tensors["past"], recent)
    return {
        name: SeriesState(
            index=int(tensors["index"][n]),
            rows=int(tensors["rows"][n]),
            tail=tails[n].numpy(),
            past=pasts[n].numpy(),
            now=tensors["now"][n].numpy(),
            static=tensors["static"][n].numpy(),
            sums=tensors["sums"][n].numpy(),
            first=tensors["first"][n].numpy(),
            recurrent=tuple(part[n] for part in parts),
        )
        for n, name in enumerate(names)
    }


def _read_names(text: str, run: RunFolder) -> list[str]:
    """Names of the series, each once."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
    ):
        raise RunError(
            f"{run.state_path} is damaged: it does not name its series. "
            "Restore it from a copy or train again."
        )
    return names


def _state_shapes(config: RunConfig, series: int, recent: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of state.safetensors, for this many series and recent rows in all."""
    table = config.table
    targets, past = len(table.target), len(table.past_scale.mean)
    future = len(table.future_scale.mean) + len(table.grid.calendar_names)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("index", "trained", "rows", "recent"), (series,)
    )
    shapes |= {
        "tail": (len(TAIL), targets, recent),
        "past": (recent, past),
        "now": (series, future),
        "static": (series, len(table.static_scale.mean)),
        "sums": (series, targets, 4),
        "first": (series, targets),
    }
    for j, shape in enumerate(recurrent_shapes((config.model, *config.others), targets)):
        shapes[f"recurrent{j}"] = (series, *shape)
    return shapes
