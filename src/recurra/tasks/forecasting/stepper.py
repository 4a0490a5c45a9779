"""The forecaster as a `Stepper`: flat states of fixed size, for an engine of many streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from recurra.errors import ConfigError, DataError
from recurra.streaming.session import Event, read_seq
from recurra.streaming.stepper import Refused, States, model_hash
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.state import (
    TAIL,
    SeriesState,
    longest_reach,
    recurrent_shapes,
)
from recurra.tasks.forecasting.stream import ForecastStream


class Observation(NamedTuple):
    """What one event brings: its series, its time as a grid index, and the row."""

    series: str
    at: int
    row: Mapping[str, Any]


class ForecastStepper:
    """Steps a fitted forecaster for a `StreamEngine`, one series after another.

    key: the column that names a row's stream, for a model of one series that is run over many; a
    model of many series has its own. seq: the column of a row's identity; the time when None.
    states: where the known series stand, `fitted.states` or those after a table.
    Raises: ConfigError for a key beside the model's own.
    """

    answer = None

    def __init__(
        self,
        fitted: Fitted,
        states: Mapping[str, SeriesState],
        *,
        key: str | None = None,
        seq: str | None = None,
    ) -> None:
        series = fitted.schema.series
        if key is not None and series is not None and key != series:
            raise ConfigError(
                f"the run's streams are its series, which {series!r} names; {key!r} cannot be the "
                "key. Leave --key out."
            )
        self._fitted = fitted
        self._states = {} if key is not None and series is None else dict(states)
        self._key, self._seq = series or key, seq
        self._stream = ForecastStream(fitted, {})

    @cached_property
    def record(self) -> np.dtype[Any]:
        """As `Stepper.record`: the fields of `SeriesState`, the ring of rows at its full length."""
        schema, reach = self._fitted.schema, longest_reach(self._fitted.members)
        targets, past = len(schema.target), len(schema.past_scale.mean)
        now = len(schema.future_scale.mean) + len(schema.grid.calendar_names)
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "index": ("<i8", ()),
            "rows": ("<i8", ()),
            "tail": ("<f8", (len(TAIL), targets, reach)),
            "past": ("<f8", (reach, past)),
            "now": ("<f8", (now,)),
            "static": ("<f8", (len(schema.static_scale.mean),)),
            "sums": ("<f8", (targets, 4)),
            "first": ("<i8", (targets,)),
        }
        for j, shape in enumerate(recurrent_shapes(self._fitted.members, targets)):
            shapes[f"recurrent{j}"] = ("<f4", shape)
        return np.dtype([(name, *form) for name, form in shapes.items()])

    @cached_property
    def model_hash(self) -> str:
        """As `Stepper.model_hash`: over the weights, the schema and the settings."""
        fitted = self._fitted
        tensors = {
            f"{number}/{name}": tensor
            for number, network in enumerate(fitted.networks)
            for name, tensor in network.state_dict().items()
        }
        texts = [one.model_dump_json() for one in (fitted.schema, *fitted.members)]
        return model_hash(tensors, texts)

    def read(self, row: dict[str, Any]) -> Event:
        """A line's object as an event. Raises: DataError for a key, time or seq that is no good."""
        schema = self._fitted.schema
        key = self._name(row)
        index = self._stream.index_of(row)
        identity = index if self._seq is None else read_seq(row, self._seq)
        echo: dict[str, Any] = {} if self._key is None else {self._key: key}
        if self._seq is not None:
            echo |= {self._seq: identity}
        echo |= {schema.time: row[schema.time]}
        return Event(key, identity, echo, Observation(key, index, row))

    def start(self, keys: Sequence[str]) -> States:
        """As `Stepper.start`: where training left a known series, else no rows."""
        states = np.zeros(len(keys), self.record)
        for n, key in enumerate(keys):
            if key in self._states:
                self._pack(self._states[key], states, n)
        return states

    def step(self, states: States, inputs: Sequence[Observation]) -> tuple[list[Any], Refused]:
        """As `Stepper.step`."""
        answers: list[Any] = []
        refused: Refused = {}
        for n, (series, index, row) in enumerate(inputs):
            answers.append(None)
            try:
                before = self._unpack(states[n])
                state, answers[n] = self._stream.advance(before, series, index, row)
            except DataError as error:
                refused[n] = error
                continue
            if state is not None:
                self._pack(state, states, n)
        return answers, refused

    def _name(self, row: Mapping[str, Any]) -> str:
        if self._fitted.schema.series is not None or self._key is None:
            return self._stream.series_name(row)
        key = row.get(self._key)
        if isinstance(key, bool) or not isinstance(key, str | int):
            shown = "missing" if key is None else repr(key)[:40]
            raise DataError(f"{self._key!r}, the key, is {shown}; expected text or a whole number.")
        return str(key)

    def _pack(self, state: SeriesState, states: States, n: int) -> None:
        recent = state.tail.shape[2]
        states["tail"][n, :, :, :recent] = state.tail
        states["past"][n, :recent] = state.past
        for name in ("index", "rows", "now", "static", "sums", "first"):
            states[name][n] = getattr(state, name)
        for j, part in enumerate(state.recurrent):
            states[f"recurrent{j}"][n] = part.numpy()

    def _unpack(self, flat: Any) -> SeriesState | None:
        rows = int(flat["rows"])
        if not rows:
            return None
        recent = min(rows, flat["past"].shape[0])
        count = sum(name.startswith("recurrent") for name in self.record.names or ())
        return SeriesState(
            index=int(flat["index"]),
            rows=rows,
            tail=flat["tail"][:, :, :recent].copy(),
            past=flat["past"][:recent].copy(),
            now=flat["now"].copy(),
            static=flat["static"].copy(),
            sums=flat["sums"].copy(),
            first=flat["first"].copy(),
            recurrent=tuple(torch.from_numpy(flat[f"recurrent{j}"].copy()) for j in range(count)),
        )
