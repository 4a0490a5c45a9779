"""The trained part as one value: columns, settings, threshold, and the state of every series."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import TimeValues
from recurra.errors import ConfigError, RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.anomaly.forecast import weight_shapes
from recurra.tasks.anomaly.heads import make_watch
from recurra.tasks.anomaly.lanes import Array, State, take_lanes
from recurra.tasks.anomaly.leaky import SCALE
from recurra.tasks.anomaly.settings import AnomalySettings
from recurra.tasks.anomaly.table import Columns, Watched
from recurra.tasks.anomaly.watch import Rows, Watch, watch_series

TASK = "anomaly"
TRACED_SERIES, TRACED_ROWS = 6, 4000
"""How much of the training table a run keeps for its report."""
_DAMAGED = "Restore it from a copy or train again."


@dataclass(frozen=True)
class Trace:
    """The last rows of one series as they were watched: times (n,), values (n, C), answers."""

    name: str
    times: TimeValues
    values: Array
    rows: Rows


@dataclass(frozen=True)
class Fitted:
    """Everything that watching goes on from.

    names      the series of training       last     time of each one's last row, (S,)
    rows       values each channel was trained on, (S, C)
    state      arrays (S, ...) after these rows
    weights    of a forecaster's network, by name; empty for another model
    clocked    whether times are dates, not whole numbers
    is_utc     whether times with a zone were converted; None without a zone
    """

    columns: Columns
    settings: AnomalySettings
    threshold: float
    names: tuple[str, ...]
    clocked: bool
    last: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    state: State
    training: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    time_format: str | None = None
    is_utc: bool | None = None
    weights: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    traces: tuple[Trace, ...] = field(default=())

    @property
    def watch(self) -> Watch:
        """The detector with the threshold of this model."""
        settings = self.settings.model_copy(update={"threshold": self.threshold})
        return make_watch(settings, len(self.columns.value), self.weights)

    def start(self, watch: Watch, series: Sequence[Watched]) -> State:
        """Where each series begins: after its training rows if all of its rows are later."""
        state = watch.initial_state(len(series))
        for n, one in enumerate(series):
            if one.name not in self.names:
                continue
            known = self.names.index(one.name)
            watch.know(state, n, self.rows[known], {k: self.state[k][known] for k in SCALE})
            first = int(one.times[:1].astype(np.int64).min(initial=np.iinfo(np.int64).max))
            if len(one) and first > self.last[known]:
                for name, values in state.items():
                    values[n] = self.state[name][known]
        return state

    def answer(self, series: Sequence[Watched]) -> list[Rows]:
        """Answers to all rows of the series."""
        watch = self.watch
        made, _ = watch_series(
            watch,
            self.start(watch, series),
            [one.values for one in series],
            [one.clock for one in series],
        )
        return made

    def state_of(self, name: str) -> State | None:
        """The state (1, ...) of a series after training, None for one that training did not see."""
        if name not in self.names:
            return None
        return take_lanes(self.state, np.array([self.names.index(name)]))

    def save(self, run: RunFolder) -> None:
        """Write state.safetensors and, last, config.json."""
        import torch

        tensors = {f"state.{name}": torch.from_numpy(v) for name, v in self.state.items()}
        tensors |= {f"weights.{k}": torch.from_numpy(v) for k, v in self.weights.items()}
        tensors |= {"last": torch.from_numpy(self.last), "rows": torch.from_numpy(self.rows)}
        for n, trace in enumerate(self.traces):
            parts = {"times": trace.times.astype(np.int64), "values": trace.values}
            parts |= {name: getattr(trace.rows, name) for name in _ROW_PARTS}
            tensors |= {f"trace.{n}.{k}": torch.from_numpy(np.array(v)) for k, v in parts.items()}
        metadata = {"traces": json.dumps([one.name for one in self.traces], ensure_ascii=False)}
        metadata["names"] = json.dumps(list(self.names), ensure_ascii=False)
        write_tensors(run.state_path, tensors, metadata)
        config = {
            "columns": {
                "time": self.columns.time,
                "value": list(self.columns.value),
                "series": self.columns.series,
            },
            "settings": self.settings.model_dump(mode="json"),
            "threshold": self.threshold,
            "clocked": self.clocked,
            "time_format": self.time_format,
            "is_utc": self.is_utc,
            "training": dict(self.training),
            "notes": list(self.notes),
        }
        run.write_config(TASK, config, [run.state_path])

    @classmethod
    def load(cls, run: RunFolder) -> Fitted:
        """Read a run folder.

        Raises: RunError when a file is missing, damaged, or does not fit the others.
        """
        sealed = run.read_config()
        run.check_files(sealed)
        config = sealed["config"]
        tensors, metadata = read_tensors(run.state_path)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            settings = AnomalySettings(**config["settings"])
            columns = Columns(
                config["columns"]["time"],
                tuple(config["columns"]["value"]),
                config["columns"]["series"],
            )
            names = tuple(str(name) for name in json.loads(metadata["names"]))
            traced = [str(name) for name in json.loads(metadata["traces"])]
            fitted = cls(
                columns=columns,
                settings=settings,
                threshold=float(config["threshold"]),
                names=names,
                clocked=bool(config["clocked"]),
                last=arrays["last"],
                rows=arrays["rows"],
                state={k.removeprefix("state."): v for k, v in arrays.items() if k[:6] == "state."},
                weights=_read_weights(arrays, settings),
                training=dict(config["training"]),
                notes=tuple(config["notes"]),
                time_format=config["time_format"],
                is_utc=config["is_utc"],
                traces=tuple(
                    _read_trace(arrays, n, name, bool(config["clocked"]))
                    for n, name in enumerate(traced)
                ),
            )
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise RunError(
                f"{run.path} is damaged or was edited ({type(error).__name__}: {error}). {_DAMAGED}"
            ) from error
        fitted._check(run)
        return fitted

    def _check(self, run: RunFolder) -> None:
        """That the state has the arrays, shapes and kinds of number that the settings ask for."""
        wanted = self.watch.initial_state(len(self.names))
        for name in sorted(wanted.keys() | self.state.keys()):
            here = _described(self.state.get(name))
            if here != _described(wanted.get(name)):
                raise RunError(
                    f"{run.state_path} does not fit {run.config_path}: {name!r} is {here}, "
                    f"expected {_described(wanted.get(name))}. Restore both from the same run."
                )
            if self.state[name].dtype.kind == "f" and np.isnan(self.state[name]).any():
                raise RunError(f"{run.state_path} holds NaN in {name!r}. {_DAMAGED}")


_ROW_PARTS = ("surprise", "alarm", "expected", "lower", "upper", "share", "status")


def _read_weights(arrays: Mapping[str, Any], settings: AnomalySettings) -> dict[str, Any]:
    """Those of the settings' network. Raises: ValueError when one is not there, or not finite."""
    if settings.model != "forecaster":
        return {}
    made = {}
    for name, shape in weight_shapes(settings.hidden_size).items():
        values = arrays.get(f"weights.{name}")
        if values is None or values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"the weights {name!r} are {_described(values)}, expected {shape}")
        made[name] = values
    return made


def _described(values: npt.NDArray[Any] | None) -> str:
    return "not there" if values is None else f"{values.dtype} {values.shape}"


def _read_trace(arrays: Mapping[str, npt.NDArray[Any]], n: int, name: str, clocked: bool) -> Trace:
    times = arrays[f"trace.{n}.times"]
    parts = {part: arrays[f"trace.{n}.{part}"] for part in _ROW_PARTS}
    return Trace(
        name,
        times.view("datetime64[ns]") if clocked else times,
        arrays[f"trace.{n}.values"],
        Rows(**parts),
    )


def make_trace(one: Watched, rows: Rows, most: int = TRACED_ROWS) -> Trace:
    """The last rows of a series, to be drawn."""
    parts = {name: getattr(rows, name)[-most:] for name in _ROW_PARTS}
    return Trace(one.name, one.times[-most:], one.values[-most:], Rows(**parts))
