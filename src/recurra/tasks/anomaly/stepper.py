"""The detector as a `Stepper`: many keys watched as one batch, with states that can be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from recurra.errors import ConfigError, DataError
from recurra.streaming.session import Event, read_seq
from recurra.streaming.stepper import Refused, States, model_hash
from recurra.tasks.anomaly.fitted import Fitted
from recurra.tasks.anomaly.lanes import Array, State
from recurra.tasks.anomaly.stream import AnomalyStream


class Seen(NamedTuple):
    """One row of one series: values (1, C), NaN where missing, and clock (1, 2)."""

    values: Array
    clock: Array


class AnomalyStepper:
    """Steps a fitted detector for a `StreamEngine`, one row of each of many series at once.

    key: the column that names a row's stream, for a model of one series that is run over many; a
    model of many series has its own. seq: the column of a row's identity. timed: whether the time
    is the identity where there is no `seq`; otherwise rows are counted as they come, and none is
    known as sent twice. states: where the series stand, after training or after a table.
    Raises: ConfigError for a key beside the model's own.
    """

    answer = None

    def __init__(
        self,
        fitted: Fitted,
        states: Mapping[str, State],
        *,
        key: str | None = None,
        seq: str | None = None,
        timed: bool = False,
    ) -> None:
        series = fitted.columns.series
        if key is not None and series is not None and key != series:
            raise ConfigError(
                f"the run's streams are its series, which {series!r} names; {key!r} cannot be the "
                "key. Leave --key out."
            )
        self._fitted, self._watch = fitted, fitted.watch
        self._states = dict(states)
        self._key, self._seq, self._timed = series or key, seq, timed
        self._is_fresh = key is not None and series is None  # the keys are no series of training
        self._stream = AnomalyStream(fitted)

    @cached_property
    def record(self) -> np.dtype[Any]:
        """As `Stepper.record`: the arrays of the detector's state, of one series."""
        state = self._watch.initial_state(1)
        return np.dtype([(name, part.dtype, part.shape[1:]) for name, part in state.items()])

    @cached_property
    def model_hash(self) -> str:
        """As `Stepper.model_hash`: over columns, settings, threshold and the trained states."""
        import torch

        fitted = self._fitted
        tensors = {name: torch.from_numpy(part) for name, part in fitted.state.items()}
        tensors |= {f"weights.{k}": torch.from_numpy(v) for k, v in fitted.weights.items()}
        texts = [repr(fitted.columns), fitted.settings.model_dump_json(), repr(fitted.threshold)]
        return model_hash(tensors, [*texts, *fitted.names])

    def read(self, row: dict[str, Any]) -> Event:
        """A line's object as an event. Raises: DataError for what `AnomalyStream.push` refuses."""
        columns = self._fitted.columns
        key = self._name(row)
        seen, at = self._stream.read(row)
        echo = {columns.time: row[columns.time]}
        if self._key is not None:
            echo |= {self._key: key}
        if self._seq is None:
            return Event(key, at if self._timed else None, echo, Seen(*seen), dense=False)
        identity = read_seq(row, self._seq)
        return Event(key, identity, {**echo, self._seq: identity}, Seen(*seen))

    def start(self, keys: Sequence[str]) -> States:
        """As `Stepper.start`: where training, or the table read first, left a known series."""
        states = np.zeros(len(keys), self.record)
        self._write(states, self._watch.initial_state(len(keys)))
        for n, key in enumerate(keys):
            known = None if self._is_fresh else self._states.get(key, self._fitted.state_of(key))
            for name, part in (known or {}).items():
                states[name][n] = part[0]
        return states

    def step(self, states: States, inputs: Sequence[Seen]) -> tuple[list[Any], Refused]:
        """As `Stepper.step`."""
        state = {name: states[name] for name in self.record.names or ()}
        in_place = len(self._fitted.columns.value) == 1
        if not in_place:  # the lanes of one array need channels that lie side by side
            state = {name: part.copy() for name, part in state.items()}
        values = np.concatenate([seen.values for seen in inputs])
        clock = np.concatenate([seen.clock for seen in inputs])
        rows = self._watch.step(state, values, clock)
        if not in_place:
            self._write(states, state)
        return self._stream.answers(rows), {}

    def _write(self, states: States, state: State) -> None:
        for name, part in state.items():
            states[name] = part

    def _name(self, row: Mapping[str, Any]) -> str:
        if not self._is_fresh:
            return self._stream.series_name(row)
        assert self._key is not None
        key = row.get(self._key)
        if isinstance(key, bool) or not isinstance(key, str | int):
            shown = "missing" if key is None else repr(key)[:40]
            raise DataError(f"{self._key!r}, the key, is {shown}; expected text or a whole number.")
        return str(key)
