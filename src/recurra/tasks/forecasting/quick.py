"""One row of one series, read without torch's overhead: in microseconds, not milliseconds.

`advance` of `continuing.py` and `make_steps` of `features.py` define what is computed here; with a
single row nearly all their time goes into starting several dozen tensor operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from recurra.tasks.forecasting.encode import Network
from recurra.tasks.forecasting.features import CLIP, FLOOR
from recurra.tasks.forecasting.network import ForkingNetwork
from recurra.tasks.forecasting.panel import RunningScale
from recurra.tasks.forecasting.settings import ModelSettings
from recurra.tasks.forecasting.state import (
    TAIL,
    SeriesState,
    longest_reach,
    recurrent_tensors,
)

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]


class RowReader:
    """Takes single rows of any series of a fitted model, with the weights that it had when made."""

    def __init__(self, networks: Sequence[Network], targets: int) -> None:
        # The others read windows, and have nothing to step.
        forking = [network for network in networks if isinstance(network, ForkingNetwork)]
        self._steppers = [_Stepper(network, targets) for network in forking]
        self._reach = longest_reach([network.settings for network in networks])

    def read(self, state: SeriesState, target: Array, past: Array, now: Array) -> SeriesState:
        """The state after one more row, NaN where a value is missing; the old one stays as it was.

        target (K,) transformed; past (P,), now (F,): what is missing there is carried on.
        """
        if state.rows:
            past, now = _carried(past, state.past[-1]), _carried(now, state.now)
        else:
            past, now = np.nan_to_num(past), np.nan_to_num(now)
        sums, first, fresh = _observe(state, target)
        recent = state.tail.shape[2]
        keep = max(0, recent + 1 - self._reach)
        tail = np.concatenate((state.tail[:, :, keep:], fresh[:, :, None]), axis=2)
        # Not by `replace`, which looks at every field anew.
        grown = SeriesState(
            index=state.index + 1,
            rows=state.rows + 1,
            tail=tail,
            past=np.concatenate((state.past[keep:], past[None])),
            now=now,
            static=state.static,
            sums=sums,
            first=first,
            recurrent=state.recurrent,
        )
        recurrent: list[Tensor] = []
        start = 0
        for stepper in self._steppers:
            parts = state.recurrent[start : start + stepper.tensors]
            recurrent += stepper.step(grown, parts)
            start += stepper.tensors
        return replace(grown, recurrent=tuple(recurrent))


class _Stepper:
    """One network's embedding and recurrence for K channels at a time."""

    def __init__(self, network: ForkingNetwork, targets: int) -> None:
        self.settings = network.settings
        self.tensors = recurrent_tensors(network.settings)
        self._weight = network.embed.weight.detach().cpu()
        self._bias = network.embed.bias.detach().cpu()
        self._adjust: Single | None = None
        if network.smoothing is not None:
            with torch.no_grad():
                self._adjust = network.smoothing.maps()[0].T.cpu().numpy()
        self._stream = network.recurrent.stream(targets, threads=1)
        self._views = [[part.numpy() for part in parts] for parts in self._stream.parts]

    def step(self, state: SeriesState, parts: Sequence[Tensor]) -> list[Tensor]:
        """The recurrent tensors after the last row of `state`; those of other phases stay."""
        window, extra, _, _ = step_inputs(state, self.settings)
        if self._adjust is not None:
            window = window @ self._adjust
        x = torch.from_numpy(np.concatenate((window, extra), axis=1))
        embedded = functional.gelu(functional.linear(x, self._weight, self._bias))
        phase = (state.rows - 1) % self.settings.stride
        arrays = [part.numpy() for part in parts]
        for layer, views in enumerate(self._views):
            for view, array in zip(views, arrays, strict=True):
                view[:] = array[:, phase, layer]
        self._stream.push(embedded)
        grown = [array.copy() for array in arrays]
        for layer, views in enumerate(self._views):
            for view, array in zip(views, grown, strict=True):
                array[:, phase, layer] = view
        return [torch.from_numpy(array) for array in grown]


def step_inputs(state: SeriesState, settings: ModelSettings) -> tuple[Single, Single, Array, Array]:
    """(window, extra, level, scale) of the last row's step, as `features.make_steps` has them."""
    values, age, mean, running = state.tail
    targets, recent = values.shape
    dropped = state.rows - recent
    last = recent - 1
    context, stride = settings.context, settings.stride
    seen = [max(one - dropped, 0) if one >= 0 else last for one in state.first.tolist()]
    oldest = max(seen)
    raw = _ending(values, last, context, seen, oldest)
    ages = _ending(age, last, context, seen, oldest)
    deviation = running[:, last:]
    mean = mean[:, last:]
    scale: Array
    if settings.level_rows > 1:
        rows = settings.level_rows
        level = _sum(raw[:, -rows:]) / rows
        spread = _sum(np.abs(raw - level)) / context
        previous = _sum(_ending(values, last - stride, rows, seen, oldest)) / rows
    else:
        level = raw[:, -1:]
        spread = deviation
        if context > 1:
            spread = _sum(np.abs(raw[:, 1:] - raw[:, :-1])) / (context - 1)
        previous = _ending(values, last - stride, 1, seen, oldest)
    scale = np.maximum(spread, FLOOR * deviation)
    extra = [
        (level - mean) / deviation,
        np.log(scale / deviation),
        (level - previous) / scale,
        np.count_nonzero(ages == 0, axis=1)[:, None] / context,
        np.log1p(age[:, last:]),
    ]
    shared = [state.now, state.static]
    if state.past.shape[1]:
        since = np.maximum(np.arange(last, last - stride, -1), 0)
        shared = [state.past[-1], state.past[since].mean(0), *shared]
    common = np.concatenate(shared)
    if len(common):
        extra.append(np.broadcast_to(common, (targets, len(common))))
    if targets > 1:
        place = (values[:, last] - mean[:, 0]) / deviation[:, 0]
        extra += [np.eye(targets), np.broadcast_to(place, (targets, targets))]
    normalised = (raw - level) / scale
    if settings.profile:
        shape = _profile(values, last, seen, oldest, settings)
        normalised = np.concatenate((normalised, shape / scale), axis=1)
    return _clipped(normalised), _clipped(np.concatenate(extra, axis=1)), level, scale


def _sum(values: Array) -> Array:
    return np.asarray(np.add.reduce(values, 1, keepdims=True))


def _clipped(values: Array) -> Single:
    np.maximum(values, -CLIP, out=values)
    np.minimum(values, CLIP, out=values)
    return values.astype(np.float32)


def _profile(
    values: Array, last: int, seen: Sequence[int], oldest: int, settings: ModelSettings
) -> Array:
    """The profile (K, profile_size) as `features.make_steps` has it, not yet scaled."""
    seasons, period = settings.profile, settings.period
    read = _ending(values, last, seasons * period, seen, oldest).reshape(-1, seasons, period)
    begins = last + 1 - period * np.arange(seasons, 0, -1)
    known = begins >= np.array(seen)[:, None]
    shape = (read - read.mean(2, keepdims=True))[..., : settings.profile_size]
    total = np.einsum("ksp,ks->kp", shape, known.astype(np.float64))
    return np.asarray(total / np.maximum(known.sum(1, keepdims=True), 1))


def _ending(values: Array, last: int, count: int, seen: Sequence[int], oldest: int) -> Array:
    """The `count` values up to row `last`; before a channel's first observed row that row's."""
    if oldest <= last + 1 - count:
        return values[:, last + 1 - count : last + 1]
    rows = np.maximum(np.arange(last + 1 - count, last + 1), np.array(seen)[:, None])
    return np.take_along_axis(values, rows, axis=1)


def _carried(values: Array, before: Array) -> Array:
    return values if np.isfinite(values).all() else np.where(np.isfinite(values), values, before)


def _observe(state: SeriesState, target: Array) -> tuple[Array, npt.NDArray[np.int64], Array]:
    """(sums, first, fresh tail column (4, K)) after a row of targets."""
    sums, first = state.sums.copy(), state.first
    fresh = np.empty((len(TAIL), len(target)))
    for k, value in enumerate(target.tolist()):
        start, count, total, squares = sums[k].tolist()
        running = RunningScale(start, int(count), total, squares)
        if value == value:
            running = running.push(value)
            sums[k] = running.first, running.count, running.total, running.squares
            if first[k] < 0:
                first = first.copy()
                first[k] = state.rows
            fresh[0, k], fresh[1, k] = value, 0.0
        elif state.rows:
            fresh[0, k], fresh[1, k] = state.tail[0, k, -1], state.tail[1, k, -1] + 1.0
        else:
            fresh[0, k], fresh[1, k] = 0.0, 1.0
        fresh[2, k], fresh[3, k] = running.read()
    return sums, first, fresh
