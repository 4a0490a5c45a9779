"""What a stream remembers of one series: a ring of recent rows, running scales, recurrent states.

Its size does not depend on how long the stream has run. One row in, one forecast out, in constant
time, and the same numbers as reading the whole history at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recurra.tasks.forecasting.encode import Network, final_states, forecast_windows
from recurra.tasks.forecasting.features import make_future, make_steps
from recurra.tasks.forecasting.network import ForkingNetwork
from recurra.tasks.forecasting.panel import Panel, RunningScale
from recurra.tasks.forecasting.segments import SegmentNetwork
from recurra.tasks.forecasting.settings import ModelSettings

Array = npt.NDArray[np.float64]
TAIL = ("values", "age", "mean", "scale")


@dataclass(frozen=True)
class SeriesState:
    """State after `rows` rows, the last at grid index `index`, for K targets.

    tail (4, K, r): values, age, running mean and scale of the last r = min(rows, reach) rows; past
    (r, P); now (F,) known-future inputs of the last row; static (S,); sums (K, 4): first value,
    count, sum and squares of the running scale; first (K,) row of the first observed value, −1
    before it; recurrent: of each network of an ensemble in turn h, or h and c, (K, stride, layers,
    hidden) each. The ring of rows is one for all of them, as long as the longest reach.
    """

    index: int
    rows: int
    tail: Array
    past: Array
    now: Array
    static: Array
    sums: Array
    first: npt.NDArray[np.int64]
    recurrent: tuple[Tensor, ...]


@dataclass(frozen=True)
class Row:
    """One row as the network sees it: target (K,), NaN = missing; past (P,); now (F,)."""

    target: Array
    past: Array
    now: Array


def recurrent_shapes(settings: Sequence[ModelSettings], targets: int) -> list[tuple[int, ...]]:
    """Shapes of the recurrent tensors of one series, for networks with these `settings`."""
    return [
        (targets, one.stride, one.num_layers, one.hidden_size)
        for one in settings
        for _ in range(recurrent_tensors(one))
    ]


def recurrent_tensors(settings: ModelSettings) -> int:
    """How many tensors a recurrent state consists of; none of a network that reads a window."""
    if settings.windowed:
        return 0
    return 2 if settings.cell == "lstm" else 1


def longest_reach(settings: Sequence[ModelSettings]) -> int:
    """Rows that a series' ring keeps, so that every network finds what it reads."""
    return max(one.reach for one in settings)


def start_state(
    settings: Sequence[ModelSettings], targets: int, past: int, static: Array
) -> SeriesState:
    """The state before a series' first row, for networks with these `settings`."""
    return SeriesState(
        index=-1,
        rows=0,
        tail=np.zeros((len(TAIL), targets, 0)),
        past=np.zeros((0, past)),
        now=np.zeros(0),
        static=static,
        sums=np.zeros((targets, 4)),
        first=np.full(targets, -1, dtype=np.int64),
        recurrent=tuple(torch.zeros(shape) for shape in recurrent_shapes(settings, targets)),
    )


def read_states(
    networks: Sequence[Network], panel: Panel, last_index: npt.NDArray[np.int64]
) -> list[SeriesState]:
    """The state of every series of a panel after its last row, at grid indices `last_index`."""
    with torch.no_grad():
        recurrent = [part for network in networks for part in final_states(network, panel)]
    targets = int(panel.target.max()) + 1
    reach = longest_reach([network.settings for network in networks])
    states = []
    for number in range(panel.channels // targets):
        channel = slice(number * targets, (number + 1) * targets)
        start, rows = int(panel.row_offset[number]), int(panel.length[channel][0])
        recent = min(rows, reach)
        tails, sums, first = [], [], []
        for c in range(number * targets, (number + 1) * targets):
            offset = int(panel.offset[c])
            end = slice(offset + rows - recent, offset + rows)
            tails.append(np.stack([getattr(panel, name)[end].numpy() for name in TAIL]))
            sums.append(_sums(panel.truth[offset : offset + rows].numpy()))
            seen = int(panel.first[c]) - offset
            first.append(seen if sums[-1][1] else -1)
        states.append(
            SeriesState(
                index=int(last_index[number]),
                rows=rows,
                tail=np.stack(tails, axis=1),
                past=panel.past[start + rows - recent : start + rows].numpy().copy(),
                now=panel.future[start + rows - 1].numpy().copy(),
                static=panel.static[number].numpy().copy(),
                sums=np.stack(sums),
                first=np.array(first, dtype=np.int64),
                recurrent=tuple(part[channel].clone() for part in recurrent),
            )
        )
    return states


def _sums(truth: Array) -> Array:
    seen = truth[np.isfinite(truth)]
    if not len(seen):
        return np.zeros(4)
    d = seen - seen[0]
    return np.array([seen[0], len(seen), np.cumsum(d)[-1], np.cumsum(d * d)[-1]])


def push(networks: Sequence[Network], state: SeriesState, row: Row) -> SeriesState:
    """The state after one more row, at the next grid index. The old state is left as it was."""
    sums, first, fresh = _observe(state, row.target)
    reach = longest_reach([network.settings for network in networks])
    keep = slice(max(0, state.tail.shape[2] + 1 - reach), None)
    grown = replace(
        state,
        index=state.index + 1,
        rows=state.rows + 1,
        tail=np.concatenate((state.tail, fresh[:, :, None]), axis=2)[:, :, keep],
        past=np.concatenate((state.past, row.past[None]))[keep],
        now=row.now,
        sums=sums,
        first=first,
    )
    recurrent = []
    for network, parts in _by_network(networks, state):
        if isinstance(network, SegmentNetwork):
            continue
        panel, at = _as_panel(network.settings, grown, None)
        recurrent += _step(network, parts, panel, at, grown.rows)
    return replace(grown, recurrent=tuple(recurrent))


def _by_network(
    networks: Sequence[Network], state: SeriesState
) -> Iterator[tuple[Network, tuple[Tensor, ...]]]:
    """Each network with its own recurrent tensors."""
    start = 0
    for network in networks:
        count = recurrent_tensors(network.settings)
        yield network, state.recurrent[start : start + count]
        start += count


def _step(
    network: ForkingNetwork, parts: tuple[Tensor, ...], panel: Panel, at: Tensor, rows: int
) -> list[Tensor]:
    """The recurrent tensors after the last of `rows` rows; those of other phases stay."""
    made = make_steps(panel, torch.arange(panel.channels), at, network.settings)
    phase = (rows - 1) % network.settings.stride
    before = tuple(part[:, phase].transpose(0, 1).contiguous() for part in parts)
    with torch.no_grad():
        _, _, after = network.encode(
            made.window[:, None], made.extra[:, None], state=_as_hx(before)
        )
    grown = []
    for part, new in zip(parts, after if isinstance(after, tuple) else (after,), strict=True):
        part = part.clone()
        part[:, phase] = new.transpose(0, 1)
        grown.append(part)
    return grown


def forecast(networks: Sequence[Network], state: SeriesState, ahead: Array) -> Array:
    """Quantiles (E, K, horizon, Q) of E networks, transformed scale, after the last row pushed.

    ahead (horizon, F): the known-future inputs of the steps ahead.
    """
    return np.stack(
        [
            _forecast_one(network, parts, state, ahead)
            for network, parts in _by_network(networks, state)
        ]
    )


def _forecast_one(
    network: Network, parts: tuple[Tensor, ...], state: SeriesState, ahead: Array
) -> Array:
    settings = network.settings
    panel, at = _as_panel(settings, state, ahead)
    if isinstance(network, SegmentNetwork):
        with torch.no_grad():
            made_all = forecast_windows(network, panel, torch.arange(panel.channels), at)
        return np.asarray(made_all.numpy())
    made = make_steps(panel, torch.arange(panel.channels), at, settings)
    output = parts[0][:, (state.rows - 1) % settings.stride, -1]
    with torch.no_grad():
        embedded = network.embed_steps(made.window, made.extra)
        future = make_future(panel, made, settings)
        quantiles = network.decode(made.window, future, embedded, output)
    scaled = made.level.unsqueeze(2) + made.scale.unsqueeze(2) * quantiles.double()
    return np.asarray(scaled.numpy())


def _as_hx(parts: tuple[Tensor, ...]) -> Any:
    return parts if len(parts) > 1 else parts[0]


def _observe(state: SeriesState, target: Array) -> tuple[Array, npt.NDArray[np.int64], Array]:
    """(sums, first, fresh tail column (4, K)) after a row of targets."""
    sums, first = state.sums.copy(), state.first.copy()
    fresh = np.zeros((len(TAIL), len(target)))
    for k, value in enumerate(target):
        running = RunningScale(sums[k, 0], int(sums[k, 1]), sums[k, 2], sums[k, 3])
        before = state.tail[:, k, -1] if state.rows else np.zeros(len(TAIL))
        if np.isfinite(value):
            running = running.push(float(value))
            sums[k] = running.first, running.count, running.total, running.squares
            first[k] = state.rows if first[k] < 0 else first[k]
            fresh[0, k], fresh[1, k] = value, 0.0
        else:
            fresh[0, k], fresh[1, k] = before[0], before[1] + 1.0
        fresh[2:, k] = running.read()
    return sums, first, fresh


def _as_panel(
    settings: ModelSettings, state: SeriesState, ahead: Array | None
) -> tuple[Panel, Tensor]:
    """The recent rows as a panel of one series, and the last row's number for each channel."""
    _, targets, recent = state.tail.shape
    columns = {
        name: torch.from_numpy(np.ascontiguousarray(state.tail[j]).reshape(-1))
        for j, name in enumerate(TAIL)
    }
    number = torch.arange(targets)
    dropped = state.rows - recent
    seen = np.where(state.first >= 0, np.maximum(state.first - dropped, 0), recent)
    future = np.zeros((recent + settings.horizon, len(state.now)))
    future[recent - 1] = state.now
    if ahead is not None:
        future[recent:] = ahead
    panel = Panel(
        **columns,
        truth=columns["values"],
        offset=number * recent,
        length=torch.full((targets,), recent),
        first=number * recent + torch.from_numpy(seen),
        target=number,
        series=torch.zeros(targets, dtype=torch.long),
        past=torch.from_numpy(state.past),
        future=torch.from_numpy(future),
        static=torch.from_numpy(state.static[None]),
        row_offset=torch.zeros(1, dtype=torch.long),
    )
    return panel, torch.full((targets,), recent - 1)
