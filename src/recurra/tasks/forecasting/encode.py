"""Running the network over whole histories: forecasts at chosen rows, and the states at the end.

Recurrent steps are `stride` rows apart, so a row continues the sequence of its phase, row mod
stride, which starts at the first such row. A stream that keeps one state per phase gives the same
numbers in constant time per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurra.tasks.forecasting.autoregressive import PATHS, AutoregressiveNetwork
from recurra.tasks.forecasting.counts import values_of
from recurra.tasks.forecasting.features import Steps, make_future, make_steps
from recurra.tasks.forecasting.network import ForkingNetwork
from recurra.tasks.forecasting.panel import Panel
from recurra.tasks.forecasting.segments import SegmentNetwork
from recurra.tasks.forecasting.settings import ModelSettings

WindowNetwork = SegmentNetwork | AutoregressiveNetwork
Network = ForkingNetwork | WindowNetwork

STEPS_AT_ONCE = 32_768
INPUTS_AT_ONCE = 8_388_608
VALUES_AT_ONCE = 4_194_304
"""Recurrent steps, window values and forecast values computed together: they bound memory, and
change no number beyond rounding."""


@dataclass(frozen=True)
class Piece:
    """Steps `begin` to `begin + count` of S sequences; made holds S · count steps, row by row."""

    begin: int
    count: int
    made: Steps
    embedded: Tensor
    output: Tensor
    state: Any


def forecast_rows(network: Network, panel: Panel, channel: Tensor, row: Tensor) -> Tensor:
    """Quantiles (N, horizon, Q) float64 on the transformed scale, for origins (channel, row) (N,).

    Row is counted from the start of the channel; the forecast uses rows up to and including it.
    """
    if isinstance(network, WindowNetwork):
        return forecast_windows(network, panel, channel, row)
    settings = network.settings
    stride = settings.stride
    sequence, member = torch.unique(channel * stride + row % stride, return_inverse=True)
    step = torch.div(row, stride, rounding_mode="floor")
    count = torch.zeros(len(sequence), dtype=torch.long)
    count.scatter_reduce_(0, member, step + 1, "amax")
    shape = (len(row), settings.horizon, len(settings.quantile_levels))
    quantiles = torch.empty(shape, dtype=torch.float64)
    width = max(1, VALUES_AT_ONCE // (shape[1] * shape[2]))
    for chosen in _groups(count, settings):
        place = torch.full((len(sequence),), -1).scatter_(0, chosen, torch.arange(len(chosen)))
        mine = torch.nonzero(place[member] >= 0).squeeze(1)
        some_of = sequence[chosen]
        channel_of = torch.div(some_of, stride, rounding_mode="floor")
        for piece in _pieces(network, panel, channel_of, some_of % stride, count[chosen], None):
            inside = (step[mine] >= piece.begin) & (step[mine] < piece.begin + piece.count)
            wanted = mine[inside]
            at = place[member[wanted]] * piece.count + step[wanted] - piece.begin
            for some, where in zip(torch.split(wanted, width), torch.split(at, width), strict=True):
                quantiles[some] = _decode(network, panel, piece, where)
    return quantiles


def forecast_windows(network: WindowNetwork, panel: Panel, channel: Tensor, row: Tensor) -> Tensor:
    """What `forecast_rows` says, for a network that reads windows alone."""
    settings = network.settings
    device = network.embed.weight.device
    shape = (len(row), settings.horizon, len(settings.quantile_levels))
    quantiles = torch.empty(shape, dtype=torch.float64)
    values = max(settings.context, shape[1] * shape[2])
    if isinstance(network, AutoregressiveNetwork):
        values = PATHS * max(settings.context + settings.horizon, settings.hidden_size)
    for some in torch.split(torch.arange(len(row)), max(1, VALUES_AT_ONCE // values)):
        made = make_steps(panel, channel[some], row[some], settings)
        free = network(made.window.to(device), made.extra.to(device)).double().cpu()
        quantiles[some] = made.level.unsqueeze(2) + made.scale.unsqueeze(2) * free
    return quantiles


def final_states(
    network: Network,
    panel: Panel,
    begin: Tensor | None = None,
    phase: Tensor | None = None,
    before: tuple[Tensor, ...] | None = None,
) -> tuple[Tensor, ...]:
    """Recurrent state after the last row: tensors (C, stride, layers, hidden), h or h and c.

    It goes on from `before`, of the same shapes, with the rows from `begin` (C,) on, the first of
    which has the phase `phase` (C,); from the initial state and the first row when None. A phase
    without a row keeps its state, which is zeros at first. A windowed network has none.
    """
    if isinstance(network, WindowNetwork):
        return ()
    settings = network.settings
    stride = settings.stride
    none = torch.zeros(panel.channels, dtype=torch.long)
    begin, phase = none if begin is None else begin, none if phase is None else phase
    number = torch.arange(panel.channels * stride)
    channel = torch.div(number, stride, rounding_mode="floor")
    first = begin[channel] + (number - phase[channel]) % stride
    rows = panel.length[channel] - first
    count = torch.div(rows + stride - 1, stride, rounding_mode="floor").clamp(min=0)
    tensors = 2 if settings.cell == "lstm" else 1
    shape = (len(number), settings.num_layers, settings.hidden_size)
    if before is None:
        out = tuple(torch.zeros(shape) for _ in range(tensors))
    else:
        out = tuple(part.reshape(shape).clone() for part in before)
    device = network.embed.weight.device
    for chosen in _groups(count, settings):
        start = tuple(tensor[chosen].transpose(0, 1).contiguous().to(device) for tensor in out)
        state: Any = start if tensors > 1 else start[0]
        pieces = _pieces(network, panel, channel[chosen], first[chosen], count[chosen], state)
        for piece in pieces:
            state = piece.state
        for tensor, part in zip(out, state if tensors > 1 else (state,), strict=True):
            tensor[chosen] = part.transpose(0, 1).cpu()
    return tuple(tensor.view(panel.channels, stride, *tensor.shape[1:]) for tensor in out)


def _steps_at_once(settings: ModelSettings) -> int:
    return max(1, min(STEPS_AT_ONCE, INPUTS_AT_ONCE // settings.rows_read))


def _groups(count: Tensor, settings: ModelSettings) -> Iterator[Tensor]:
    """Numbers of the sequences to run side by side: alike in length, and not too many at once.

    Those without a step are left out.
    """
    order = torch.argsort(count, descending=True, stable=True)[: int((count > 0).sum())]
    start = 0
    while start < len(order):
        width = max(1, _steps_at_once(settings) // max(int(count[order[start]]), 1))
        yield order[start : start + width]
        start += width


def _pieces(
    network: ForkingNetwork,
    panel: Panel,
    channel: Tensor,
    first: Tensor,
    count: Tensor,
    state: Any,
) -> Iterator[Piece]:
    """Run `count` (S,) steps of S sequences from `state`, each from row `first` of its `channel`.

    Piece by piece, so that memory is bounded.
    """
    settings = network.settings
    device = network.embed.weight.device
    last_row = (panel.length[channel] - 1)[:, None]
    width = max(1, _steps_at_once(settings) // len(channel))
    for begin in range(0, int(count.max()), width):
        size = min(width, int(count.max()) - begin)
        row = first[:, None] + settings.stride * torch.arange(begin, begin + size)
        row = torch.minimum(row, last_row).reshape(-1)
        made = make_steps(panel, channel.repeat_interleave(size), row, settings)
        shape = (len(channel), size, -1)
        embedded, output, state = network.encode(
            made.window.view(shape).to(device),
            made.extra.view(shape).to(device),
            (count - begin).clamp(0, size),
            state,
        )
        yield Piece(begin, size, made, embedded, output, state)


def _decode(network: ForkingNetwork, panel: Panel, piece: Piece, at: Tensor) -> Tensor:
    """Quantiles on the transformed scale at the steps numbered `at` (N,) of a piece."""
    device = piece.embedded.device
    made = piece.made.select(at)
    free = network.decode(
        made.window.to(device),
        make_future(panel, made, network.settings).to(device),
        piece.embedded.flatten(0, 1)[at.to(device)],
        piece.output.flatten(0, 1)[at.to(device)],
    )
    return values_of(network.settings, free, made.level, made.scale)
