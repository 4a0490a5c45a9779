"""What the network sees at one step: a window normalised by what is known at that step.

    z_i = (v_i − level) / c         for the last `context` rows i, v the (log) target, gaps filled
    level = mean of the last `level` rows: by default the last season when it fits in the window,
        else the last value
    c = mean |v_i − level| over the window, and no less than a twentieth of the running deviation;
        where the level is the last value: of the differences between rows

With model="segments" the level is the last value and c the running deviation, and nothing but the
window and which target it is of is an input.

With a profile of J seasons of m rows, the window is followed by the mean shape of what came at the
phases of the steps ahead, each season about its own mean, over those that are known:

    p_k = mean_j (v_{t+k−jm} − mean_i v_{t+i−jm}) / c         i = 1 … m,  j = 1 … J

Nothing after the step is read, so the same numbers come out row by row from a stream. The forecast
is level + c · o, with o the network's output. A level moving away keeps z in range.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from recurra.tasks.forecasting.panel import Panel
from recurra.tasks.forecasting.settings import ModelSettings

CLIP = 20.0
FLOOR = 0.05


@dataclass(frozen=True)
class Steps:
    """Inputs of N steps, those at `row` (N,) of `channel` (N,).

    window (N, window_size) normalised; extra (N, E) further inputs of the step; level, scale (N, 1)
    float64: forecast = level + scale · output.
    """

    channel: Tensor
    row: Tensor
    window: Tensor
    extra: Tensor
    level: Tensor
    scale: Tensor

    def select(self, chosen: Tensor) -> Steps:
        """The steps with the numbers `chosen`."""
        return Steps(*(getattr(self, part.name)[chosen] for part in fields(self)))


def level_and_scale(
    window: Tensor, running: Tensor, settings: ModelSettings
) -> tuple[Tensor, Tensor]:
    """(level, scale), (N, 1) each, of raw windows (N, context) with running deviation (N, 1)."""
    if settings.windowed:
        return window[:, -1:], running
    if settings.level_rows > 1:
        level = window[:, -settings.level_rows :].mean(1, keepdim=True)
        spread = (window - level).abs().mean(1, keepdim=True)
    elif settings.context > 1:
        level = window[:, -1:]
        spread = window.diff(dim=1).abs().mean(1, keepdim=True)
    else:
        level = window[:, -1:]
        spread = running
    return level, torch.maximum(spread, FLOOR * running)


def extra_size(settings: ModelSettings, past: int, future: int, static: int, targets: int) -> int:
    """Number of `extra` columns, from the numbers of covariate columns."""
    if settings.windowed:
        return targets
    return 5 + 2 * past + future + static + (2 * targets if targets > 1 else 0)


def future_size(settings: ModelSettings, future: int) -> int:
    """Number of columns that each step ahead has as inputs of its own."""
    if settings.windowed:
        return 0
    return future + (2 if settings.long_season else 0)


def make_steps(panel: Panel, channel: Tensor, row: Tensor, settings: ModelSettings) -> Steps:
    """Inputs of the steps at `row` (N,) of `channel` (N,), counted from its start."""
    offset, first = panel.offset[channel], panel.first[channel]
    position = offset + row
    raw = _windows(panel.values, position, settings.context, first, position)
    running = panel.scale[position][:, None]
    level, scale = level_and_scale(raw, running, settings)
    if settings.windowed:
        targets = int(panel.target.max()) + 1
        which = torch.nn.functional.one_hot(panel.target[channel], targets).float()
        window = ((raw - level) / scale).clamp(-CLIP, CLIP).float()
        return Steps(channel, row, window, which, level, scale)
    before = _windows(panel.values, position - settings.stride, settings.context, first, position)
    previous, _ = level_and_scale(before, running, settings)
    age = _windows(panel.age, position, settings.context, first, position)

    extra = [
        (level - panel.mean[position][:, None]) / running,
        torch.log(scale / running),
        (level - previous) / scale,
        (age == 0).double().mean(1, keepdim=True),
        torch.log1p(age[:, -1:]),
        *_past_inputs(panel, channel, row, settings),
        panel.future[panel.row_offset[panel.series[channel]] + row],
        panel.static[panel.series[channel]],
        *_target_inputs(panel, channel, row),
    ]
    window = (raw - level) / scale
    if settings.profile:
        shape = _profile(panel.values, position, first, settings)
        window = torch.cat((window, shape / scale), dim=1)
    return Steps(
        channel=channel,
        row=row,
        window=window.clamp(-CLIP, CLIP).float(),
        extra=torch.cat(extra, dim=1).clamp(-CLIP, CLIP).float(),
        level=level,
        scale=scale,
    )


def make_future(panel: Panel, steps: Steps, settings: ModelSettings) -> Tensor:
    """Inputs (N, horizon, future_size) of each step ahead: what is known of it beforehand."""
    if settings.windowed:
        return torch.zeros(len(steps.row), settings.horizon, 0)
    start = panel.row_offset[panel.series[steps.channel]] + steps.row
    parts = [panel.future[start[:, None] + torch.arange(1, settings.horizon + 1)]]
    if settings.long_season:
        parts += _season_inputs(panel, steps, settings)
    # NaN is past the table's end, where training counts no loss and `check_future` lets none pass.
    return torch.cat(parts, dim=2).nan_to_num(0.0).clamp(-CLIP, CLIP).float()


def _windows(values: Tensor, end: Tensor, width: int, first: Tensor, origin: Tensor) -> Tensor:
    """The `width` values (N, width) up to each `end` (N,).

    Before the first observed row that row is read, but none after `origin`.
    """
    start = end - (width - 1)
    short = torch.nonzero(start < first).squeeze(1)
    if len(short) == len(end):
        return _gather(values, end, width, first, origin)
    # Rows that lie in a piece are copied as such, at a third of the time of single values.
    rows: Tensor = values.unfold(0, width, 1)[start.clamp(min=0)]
    if len(short):
        rows[short] = _gather(values, end[short], width, first[short], origin[short])
    return rows


def _gather(values: Tensor, end: Tensor, width: int, first: Tensor, origin: Tensor) -> Tensor:
    position = end[:, None] - torch.arange(width - 1, -1, -1)
    return values[torch.minimum(torch.maximum(position, first[:, None]), origin[:, None])]


def _profile(values: Tensor, position: Tensor, first: Tensor, settings: ModelSettings) -> Tensor:
    """Mean shape (N, profile_size) of the seasons before each position that are known whole."""
    seasons, period = settings.profile, settings.period
    read = _windows(values, position, seasons * period, first, position)
    read = read.view(-1, seasons, period)
    begins = position[:, None] + 1 - period * torch.arange(seasons, 0, -1)
    known = (begins >= first[:, None]).to(read.dtype)
    shape = (read - read.mean(2, keepdim=True))[..., : settings.profile_size]
    total = torch.einsum("nsk,ns->nk", shape, known)
    return total / known.sum(1, keepdim=True).clamp(min=1)


def _past_inputs(
    panel: Panel, channel: Tensor, row: Tensor, settings: ModelSettings
) -> tuple[Tensor, ...]:
    """Past covariates: the value at the step, and its mean over the rows since the step before."""
    if not panel.past.shape[1]:
        return ()
    start = panel.row_offset[panel.series[channel]][:, None]
    rows = (row[:, None] - torch.arange(settings.stride)).clamp(min=0)
    recent = panel.past[start + rows]
    return recent[:, 0], recent.mean(1)


def _target_inputs(panel: Panel, channel: Tensor, row: Tensor) -> tuple[Tensor, ...]:
    """With several targets: which one this is, and where each stands in its running scale."""
    targets = int(panel.target.max()) + 1
    if targets == 1:
        return ()
    which = torch.nn.functional.one_hot(panel.target[channel], targets).double()
    sibling = (channel - panel.target[channel])[:, None] + torch.arange(targets)
    position = panel.offset[sibling] + row[:, None]
    place = (panel.values[position] - panel.mean[position]) / panel.scale[position]
    return which, place


def _season_inputs(panel: Panel, steps: Steps, settings: ModelSettings) -> list[Tensor]:
    """A season ago, for each step ahead: the value, smoothed, and whether there is one."""
    channel, row = steps.channel, steps.row
    ahead = torch.arange(1, settings.horizon + 1)
    seasons = torch.div(ahead - 1, settings.season, rounding_mode="floor") + 1
    same_phase = row[:, None] + ahead - settings.season * seasons
    around = torch.arange(-settings.season_smoothing, settings.season_smoothing + 1)
    rows = same_phase[:, :, None] + around
    offset, first = panel.offset[channel], panel.first[channel]
    exists = same_phase >= (first - offset)[:, None]
    position = torch.maximum(offset[:, None, None] + rows, first[:, None, None])
    position = torch.minimum(position, (offset + row)[:, None, None])
    value = (panel.values[position].mean(2) - steps.level) / steps.scale
    value = torch.where(exists, value, 0.0)
    return [value.unsqueeze(2), exists.double().unsqueeze(2)]
