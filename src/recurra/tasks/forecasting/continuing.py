"""Going on from where series stand: new rows in, forecasts out, in time that new rows alone take.

All series, rows and phases of the recurrence are read together, so thousands of series cost little
more each than their arithmetic. The numbers are those of reading each whole history anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recurra.tasks.forecasting.autoregressive import AutoregressiveNetwork, share_weights
from recurra.tasks.forecasting.counts import values_of
from recurra.tasks.forecasting.encode import (
    Network,
    WindowNetwork,
    final_states,
    forecast_windows,
)
from recurra.tasks.forecasting.features import make_future, make_steps
from recurra.tasks.forecasting.panel import Panel, RunningScale, fill_forward
from recurra.tasks.forecasting.state import TAIL, SeriesState, longest_reach, recurrent_tensors

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """The next n rows of one series as the network sees them, NaN where a value is missing.

    target (n, K) transformed; past (n, P) scaled; now (n, F): known-future covariates and calendar.
    """

    target: Array
    past: Array
    now: Array


def advance(
    networks: Sequence[Network], states: Sequence[SeriesState], rows: Sequence[Rows]
) -> list[SeriesState]:
    """The states after the further `rows` of each series. The old ones are left as they were.

    Covariates that are missing are carried on, or at their mean where none was known before.
    """
    if not states:
        return []
    grown, tails = [], []
    reach = longest_reach([network.settings for network in networks])
    for state, new in zip(states, rows, strict=True):
        after, tail = _grow(state, new)
        tails.append(tail)
        keep = slice(max(0, tail.tail.shape[2] - reach), None)
        grown.append(replace(after, tail=tail.tail[:, :, keep], past=tail.past[keep]))
    panel = _panel(tails, 0)
    targets = states[0].tail.shape[1]
    begin = torch.tensor([state.tail.shape[2] for state in states]).repeat_interleave(targets)
    count = torch.tensor([state.rows for state in states]).repeat_interleave(targets)
    recurrent: list[Tensor] = []
    with torch.no_grad():
        for network, parts in _by_network(networks, states):
            after_rows = final_states(network, panel, begin, count % network.settings.stride, parts)
            recurrent += after_rows
    split = [torch.split(part, targets) for part in recurrent]
    return [
        replace(state, recurrent=tuple(part[n].clone() for part in split))
        for n, state in enumerate(grown)
    ]


def forecast(
    networks: Sequence[Network], states: Sequence[SeriesState], ahead: Sequence[Array]
) -> Array:
    """Quantiles (E, S, K, horizon, Q) of E networks on the transformed scale, after each state.

    ahead (horizon, F): of each of S series, the known-future inputs of the steps ahead.
    """
    targets = states[0].tail.shape[1]
    horizon = networks[0].settings.horizon
    with_ahead = [
        _Tail(s, s.tail, s.past, s.now[None], a) for s, a in zip(states, ahead, strict=True)
    ]
    panel = _panel(with_ahead, horizon)
    made = [
        _forecast_one(network, panel, parts, states)
        for network, parts in _by_network(networks, states)
    ]
    return np.stack([one.reshape(len(states), targets, *one.shape[1:]) for one in made])


def _forecast_one(
    network: Network,
    panel: Panel,
    parts: tuple[Tensor, ...],
    states: Sequence[SeriesState],
) -> Array:
    settings = network.settings
    channel = torch.arange(panel.channels)
    if isinstance(network, WindowNetwork):
        with torch.no_grad():
            return np.asarray(forecast_windows(network, panel, channel, panel.length - 1).numpy())
    made = make_steps(panel, channel, panel.length - 1, settings)
    phase = torch.tensor([(state.rows - 1) % settings.stride for state in states])
    output = parts[0][channel, phase[panel.series], -1]
    with torch.no_grad():
        embedded = network.embed_steps(made.window, made.extra)
        future = make_future(panel, made, settings)
        free = network.decode(made.window, future, embedded, output)
    return np.asarray(values_of(settings, free, made.level, made.scale).numpy())


def draw(network: AutoregressiveNetwork, states: Sequence[SeriesState], shares: Array) -> Array:
    """Paths (S, P, K, horizon) on the transformed scale after each state.

    shares (S, P, K, horizon) in (0, 1) say where in its quantiles each step of a path lies.
    """
    panel = _panel([_Tail(state, state.tail, state.past, state.now[None]) for state in states], 0)
    channel = torch.arange(panel.channels)
    made = make_steps(panel, channel, panel.length - 1, network.settings)
    each = torch.from_numpy(shares).transpose(1, 2).flatten(0, 1)  # (S · K, P, horizon)
    weights = share_weights(each, network.settings.quantile_levels)
    with torch.no_grad():
        paths = network.draw(made.window, made.extra, weights).double()
    paths = made.level.unsqueeze(2) + made.scale.unsqueeze(2) * paths
    split = paths.view(len(states), -1, *paths.shape[1:])
    return np.asarray(split.transpose(1, 2).numpy())


def _by_network(
    networks: Sequence[Network], states: Sequence[SeriesState]
) -> Iterator[tuple[Network, tuple[Tensor, ...]]]:
    """Each network with its own recurrent tensors (S · K, stride, layers, hidden)."""
    start = 0
    for network in networks:
        count = recurrent_tensors(network.settings)
        numbers = range(start, start + count)
        yield network, tuple(torch.cat([state.recurrent[j] for state in states]) for j in numbers)
        start += count


@dataclass(frozen=True)
class _Tail:
    """The recent rows of a series, new ones included, and the inputs known for rows after them.

    tail (4, K, r), past (r, P) as in `SeriesState`; now (n, F) of the last n rows alone.
    """

    state: SeriesState
    tail: Array
    past: Array
    now: Array
    ahead: Array | None = None


def _grow(state: SeriesState, new: Rows) -> tuple[SeriesState, _Tail]:
    """The state after the new rows, but for its rings and recurrent parts, and all recent rows."""
    count, targets = new.target.shape
    sums, first = state.sums.copy(), state.first.copy()
    fresh = np.empty((len(TAIL), targets, count))
    for k in range(targets):
        values = new.target[:, k]
        before = state.tail[:2, k, -1] if state.rows else (0.0, 0.0)
        fresh[0, k], fresh[1, k] = fill_forward(values, *before)
        running = RunningScale(sums[k, 0], int(sums[k, 1]), sums[k, 2], sums[k, 3])
        fresh[2, k], fresh[3, k], after = running.follow(values)
        sums[k] = after.first, after.count, after.total, after.squares
        seen = np.isfinite(values)
        if first[k] < 0 and seen.any():
            first[k] = state.rows + int(np.argmax(seen))
    past = carry_on(new.past, state.past[-1] if state.rows else None)
    now = carry_on(new.now, state.now if state.rows else None)
    grown = replace(
        state,
        index=state.index + count,
        rows=state.rows + count,
        now=now[-1] if count else state.now,
        sums=sums,
        first=first,
    )
    tail = np.concatenate((state.tail, fresh), axis=2)
    return grown, _Tail(grown, tail, np.concatenate((state.past, past)), now)


def carry_on(values: Array, before: Array | None) -> Array:
    """Rows (n, F) with gaps filled by the row before, that of the first by `before` (F,), or 0."""
    if np.isfinite(values).all():
        return values
    start = np.zeros(values.shape[1]) if before is None else before
    filled = [fill_forward(values[:, j], start[j])[0] for j in range(values.shape[1])]
    return np.stack(filled, axis=1)


def _panel(tails: Sequence[_Tail], horizon: int) -> Panel:
    """The recent rows of all series as a panel; known-future inputs of older rows are not there."""
    parts: dict[str, list[Array]] = {name: [] for name in (*TAIL, "past", "future", "static")}
    offset, length, first, row_offset = [], [], [], []
    position = row = 0
    for one in tails:
        _, targets, recent = one.tail.shape
        dropped = one.state.rows - recent
        for k in range(targets):
            for j, name in enumerate(TAIL):
                parts[name].append(one.tail[j, k])
            seen = max(int(one.state.first[k]) - dropped, 0) if one.state.first[k] >= 0 else recent
            offset.append(position)
            length.append(recent)
            first.append(position + seen)
            position += recent
        future = np.zeros((recent + horizon, one.now.shape[1]))
        future[recent - len(one.now) : recent] = one.now
        if one.ahead is not None:
            future[recent:] = one.ahead
        parts["future"].append(future)
        parts["past"].append(_lengthened(one.past, horizon))
        parts["static"].append(one.state.static[None])
        row_offset.append(row)
        row += recent + horizon
    columns = {name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in parts.items()}
    targets = tails[0].tail.shape[1]
    return Panel(
        **columns,
        truth=columns["values"],
        offset=torch.tensor(offset),
        length=torch.tensor(length),
        first=torch.tensor(first),
        target=torch.arange(targets).repeat(len(tails)),
        series=torch.arange(len(tails)).repeat_interleave(targets),
        row_offset=torch.tensor(row_offset),
    )


def _lengthened(values: Array, rows: int) -> Array:
    return np.concatenate((values, np.zeros((rows, values.shape[1])))) if rows else values
