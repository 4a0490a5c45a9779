"""The fitted part of a forecaster: one value that saves, loads, predicts and streams on its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from recurra.data.series import Series
from recurra.errors import ConfigError, DataError, RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.forecasting.encode import forecast_rows
from recurra.tasks.forecasting.features import extra_size, future_size
from recurra.tasks.forecasting.network import ForkingNetwork
from recurra.tasks.forecasting.schema import Schema, build_panel, restore
from recurra.tasks.forecasting.settings import ModelSettings
from recurra.tasks.forecasting.state import SeriesState, read_states

Array = npt.NDArray[np.float64]
TASK = "forecasting"


class RunConfig(BaseModel):
    """What config.json holds under `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Schema
    model: ModelSettings
    training: dict[str, Any]
    forecaster: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A trained network, the table it was trained on, and where each series stood at its end."""

    schema: Schema
    settings: ModelSettings
    network: ForkingNetwork
    states: Mapping[str, SeriesState]
    training: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def ends(self, series: Sequence[Series]) -> npt.NDArray[np.int64]:
        """Grid index of each series' last training row; the latest of all for a new series."""
        latest = max(state.index for state in self.states.values())
        known = {name: state.index for name, state in self.states.items()}
        return np.array([known.get(one.name, latest) for one in series], dtype=np.int64)

    def quantiles(
        self, series: Sequence[Series], number: npt.NDArray[np.int64], row: npt.NDArray[np.int64]
    ) -> Array:
        """Forecasts (N, K, horizon, Q) on the original scale, after `row` of series `number` (N,).

        Raises: DataError when a known-future covariate is missing for a step ahead.
        """
        self.check_future(series, number, row)
        targets = len(self.schema.target)
        panel = build_panel(series, self.schema, self.settings.horizon)
        channel = np.repeat(number * targets, targets) + np.tile(np.arange(targets), len(number))
        with torch.no_grad():
            made = forecast_rows(
                self.network,
                panel,
                torch.from_numpy(channel),
                torch.from_numpy(row.repeat(targets)),
            )
        scaled = restore(made.numpy(), np.tile(np.arange(targets), len(number)), self.schema)
        return scaled.reshape(len(number), targets, *scaled.shape[1:])

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
        states = read_states(self.network, panel, last)
        return {one.name: state for one, state in zip(series, states, strict=True)}

    def save(self, run: RunFolder, forecaster: Mapping[str, Any]) -> None:
        """Write config.json, model.safetensors and state.safetensors; config last, as the seal."""
        write_tensors(run.model_path, self.network.state_dict())
        write_tensors(run.path / "state.safetensors", *_pack_states(self.states))
        config = RunConfig(
            table=self.schema,
            model=self.settings,
            training=dict(self.training),
            forecaster=dict(forecaster),
            notes=self.notes,
        )
        run.write_config(TASK, config.model_dump(mode="json"))

    @classmethod
    def load(cls, run: RunFolder) -> tuple[Fitted, dict[str, Any]]:
        """(fitted, the forecaster's arguments) from a run folder.

        Raises: RunError when a file is damaged or the files do not belong together.
        """
        try:
            config = RunConfig.model_validate(run.read_config()["config"])
            config.table.grid  # noqa: B018 - reading it checks it
        except (ValidationError, ConfigError) as error:
            raise RunError(
                f"{run.config_path} is damaged or was edited: {_first_line(error)}. "
                "Restore it from a copy or train again."
            ) from error
        network = make_network(config.table, config.model)
        weights, _ = read_tensors(run.model_path)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise RunError(
                f"{run.model_path} does not fit {run.config_path}: {_first_line(error)}. "
                "Restore both from the same run."
            ) from error
        network.eval()
        tensors, metadata = read_tensors(run.path / "state.safetensors")
        states = _unpack_states(tensors, metadata, run, config)
        fitted = cls(config.table, config.model, network, states, config.training, config.notes)
        return fitted, config.forecaster


def make_network(schema: Schema, settings: ModelSettings) -> ForkingNetwork:
    """An untrained network for tables of this schema."""
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


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])


def _pack_states(states: Mapping[str, SeriesState]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All states in a few tensors: rows of different lengths one after the other."""
    every = list(states.values())
    tensors = {
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
    path = run.path / "state.safetensors"
    try:
        names = json.loads(metadata["names"])
        recent = [int(n) for n in tensors["recent"]]
        tails = torch.split(tensors["tail"], recent, dim=2)
        pasts = torch.split(tensors["past"], recent)
        parts = [tensors[name] for name in sorted(tensors) if name.startswith("recurrent")]
        states = {
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
    except (KeyError, ValueError, RuntimeError, IndexError, TypeError) as error:
        raise RunError(
            f"{path} is damaged: {error}. Restore it from a copy or train again."
        ) from error
    model = config.model
    shape = (len(config.table.target), model.stride, model.num_layers, model.hidden_size)
    if not states or any(part.shape != shape for s in states.values() for part in s.recurrent):
        raise RunError(
            f"{path} does not fit {run.config_path}: expected recurrent states of shape {shape}. "
            "Restore both from the same run."
        )
    return states
