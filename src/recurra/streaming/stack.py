"""A stack of layers as a `Stepper`: the engine runs it over many streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recurra.errors import ConfigError, DataError, ShapeError
from recurra.nn.recurrent import Recurrent
from recurra.nn.stack import Stack, StackStream
from recurra.streaming.stepper import Refused, States, model_hash

SIZES = (512, 64, 8, 1)
"""Rows of the handles that events are stepped in; 512 rows of states still fit the cache."""
DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<f4"),
    torch.float64: np.dtype("<f8"),
}


class StackStepper:
    """Steps an `nn.Stack`, or a single recurrent layer, for a `StreamEngine`.

    Inputs are arrays (N, input_size) of the parameters' dtype and answers (N, output_size). The
    parameters are those that the model has now. An event with a NaN or an infinite number is
    refused, because it would stay in the state for ever. The bits are the same with any number of
    threads; layers that the compiled core does not step run one row at a time, which keeps the
    same promise, and is slow (docs/streams.md has the list).

    Raises: ConfigError for a bidirectional layer, and a model that is not on a CPU or not in
    float32 or float64.
    """

    def __init__(
        self, model: Stack | Recurrent, *, weights: str = "float32", threads: int = 1
    ) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ConfigError(
                f"StackStepper: threads is {threads!r}, but must be an integer of at least 1."
            )
        stack = model if isinstance(model, Stack) else Stack(model)
        self._stack, self._weights = stack, weights
        self._single = self._stream(1)
        if self._single.dtype not in DTYPES or self._single.device.type != "cpu":
            raise ConfigError(
                f"StackStepper: the model is {self._single.dtype} on {self._single.device}, but "
                "must be float32 or float64 on the CPU. Use model.float().cpu()."
            )
        self._exact = self._single.backend == "cpu"
        self._dtype = DTYPES[self._single.dtype]
        self._names = [
            f"layer{number}.{depth}.{part}"
            for number, layer in enumerate(stack.recurrent)
            for depth, cell in enumerate(layer.cells)
            for part in cell.state_sizes()
        ]
        starts = [part for s in self._single.streams for parts in s.starts for part in parts]
        self._record = np.dtype(
            [
                (name, self._dtype, (part.shape[1],))
                for name, part in zip(self._names, starts, strict=True)
            ]
        )
        self._start = np.zeros(1, self._record)
        for name, part in zip(self._names, starts, strict=True):
            self._start[name] = part.numpy()
        self._inputs = stack.input_size
        x = torch.zeros(1, self._inputs, dtype=self._single.dtype)
        self._answer = np.dtype((self._dtype, (self._single.push(x).shape[1],)))
        self._single.reset()
        texts = [weights, *(f"{type(one).__name__}({_form(one)})" for one in stack.layers)]
        self._hash = model_hash(stack.state_dict(), texts)
        count = threads if self._exact else 1
        self._lanes = [_Lane(self._stream, self._names) for _ in range(count)]
        self._pool = ThreadPoolExecutor(count, "recurra-step") if count > 1 else None

    @property
    def record(self) -> np.dtype[Any]:
        """As `Stepper.record`: the parts of every layer's state, `layer0.1.h` and so on."""
        return self._record

    @property
    def model_hash(self) -> str:
        """As `Stepper.model_hash`."""
        return self._hash

    @property
    def answer(self) -> np.dtype[Any]:
        """As `Stepper.answer`: (output_size,) numbers."""
        return self._answer

    def start(self, keys: Sequence[str]) -> States:
        """As `Stepper.start`: the layers' initial states."""
        return np.repeat(self._start, len(keys))

    def step(self, states: States, inputs: Any) -> tuple[npt.NDArray[Any], Refused]:
        """As `Stepper.step`. Raises: ShapeError when the inputs are not (N, input_size) numbers."""
        x = self._checked(inputs, len(states))
        out = np.empty((len(x), *self._answer.shape), self._dtype)
        usable = np.isfinite(x).all(axis=1)
        if usable.all():
            self._run(states, x, out)
            return out, {}
        places = np.flatnonzero(usable)
        part, made = states[places], out[places]
        self._run(part, x[places], made)
        states[places], out[places] = part, made
        bad = np.flatnonzero(~usable).tolist()
        return out, {n: DataError(_told(x[n])) for n in bad}

    def _run(self, states: States, x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        sizes = SIZES if self._exact else (1,)
        pieces = _pieces(len(x), sizes)
        lanes = len(self._lanes)
        if self._pool is None or len(pieces) < 2:
            self._lanes[0].run(pieces, states, x, out)
            return
        shares = [
            self._pool.submit(self._lanes[n].run, pieces[n::lanes], states, x, out)
            for n in range(lanes)
        ]
        for share in shares:
            share.result()

    def _stream(self, rows: int) -> StackStream:
        return self._stack.stream(rows, weights=self._weights, threads=1)

    def _checked(self, inputs: Any, rows: int) -> npt.NDArray[Any]:
        x = np.asarray(inputs)
        if x.dtype.kind not in "fiu" or x.shape != (rows, self._inputs):
            raise ShapeError(
                f"StackStepper: the inputs have shape {x.shape} and dtype {x.dtype}, but must be "
                f"numbers of shape {(rows, self._inputs)}."
            )
        return x.astype(self._dtype, copy=False)


class _Lane:
    """What one thread steps with: a handle for each number of rows, made when it is needed."""

    def __init__(self, make: Any, names: Sequence[str]) -> None:
        self._make = make
        self._names = list(names)
        self._handles: dict[int, tuple[StackStream, list[npt.NDArray[Any]], torch.Tensor]] = {}

    def run(
        self,
        pieces: Sequence[tuple[int, int, int]],
        states: States,
        x: npt.NDArray[Any],
        out: npt.NDArray[Any],
    ) -> None:
        for begin, rows, size in pieces:
            here = slice(begin, begin + rows)
            stream, parts, room = self._handle(size, x)
            for name, part in zip(self._names, parts, strict=True):
                part[:rows] = states[name][here]
            room.numpy()[:rows] = x[here]
            out[here] = stream.push(room).numpy()[:rows]
            for name, part in zip(self._names, parts, strict=True):
                states[name][here] = part[:rows]

    def _handle(
        self, size: int, x: npt.NDArray[Any]
    ) -> tuple[StackStream, list[npt.NDArray[Any]], torch.Tensor]:
        if size not in self._handles:
            stream = self._make(size)
            parts = [part.numpy() for s in stream.streams for own in s.parts for part in own]
            room = torch.zeros(size, x.shape[1], dtype=stream.dtype)
            self._handles[size] = stream, parts, room
        return self._handles[size]


def _pieces(count: int, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first row, rows, rows of the handle) that cover `count` rows; a handle may be half empty."""
    pieces, begin = [], 0
    while begin < count:
        left = count - begin
        size = next(size for size in sizes if left * 2 > size)
        rows = min(left, size)
        pieces.append((begin, rows, size))
        begin += rows
    return pieces


def _form(layer: torch.nn.Module) -> str:
    return layer.extra_repr() if isinstance(layer, Recurrent) else ""


def _told(x: npt.NDArray[Any]) -> str:
    n = int(np.flatnonzero(~np.isfinite(x))[0])
    value = "NaN" if math.isnan(x[n]) else str(x[n])
    return f"the event's number {n} is {value}; expected finite numbers."
