"""What the errors of a forecast are measured in while training.

scaled       the step's own scale c: every window counts alike, calm or not
relative     the modelled scale, which for a target modelled by its logarithm is relative error;
             otherwise the channel's deviation in training: turbulent windows count for more
balanced     the geometric mean of these two units, so between both
huber        in units of "relative", the square of errors up to half a unit and their size beyond:
             for a point forecast that is judged by squared errors, and lies between median and mean
competition  on the original scale, the mean of the two errors of forecasting competitions, each
             next to what seasonal naive makes of the last training window of all channels:
             ½ (|e| / mean |y_t − y_{t−season}|) / mase_naive + ½ (|e| / ½(|y| + |f|)) / smape_naive

|e| is the pinball loss of all quantile levels, which for the median is the absolute error.

Source: Huber 1964, "Robust Estimation of a Location Parameter"; MASE, Hyndman and Koehler 2006;
sMAPE and their mean, Makridakis et al. 2020, "The M4 Competition", section 3; here the weights come
from training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recurra.nn.quantile import pinball, tilted
from recurra.tasks.forecasting.features import Steps
from recurra.tasks.forecasting.panel import Panel
from recurra.tasks.forecasting.settings import Loss, ModelSettings

LARGEST_EXPONENT = 20.0
SQUARED_UP_TO = 0.5


@dataclass(frozen=True)
class ErrorUnits:
    """What errors of each of C channels are divided by; from training rows alone.

    logarithm (C,) bool; deviation (C,) on the modelled scale; step (C,) the mean absolute seasonal
    difference on the original scale; mase, smape: errors of seasonal naive, means over channels.
    """

    logarithm: Tensor
    deviation: Tensor
    step: Tensor
    mase: float
    smape: float


def error_units(
    panel: Panel, train_rows: Tensor, logarithm: Sequence[bool], settings: ModelSettings
) -> ErrorUnits:
    """Units of all channels of a panel, from their rows before `train_rows` (C,)."""
    logs = torch.tensor(list(logarithm))[panel.target]
    deviations, steps, mase, smape = [], [], [], []
    season, horizon = settings.season, settings.horizon
    for c in range(panel.channels):
        start = int(panel.offset[c])
        rows = panel.truth[start : start + int(train_rows[c])]
        original = rows.exp() if logs[c] else rows
        seen = rows[torch.isfinite(rows)]
        deviation = float(seen.std(correction=0)) if len(seen) else 0.0
        d = (original[season:] - original[:-season]).abs()
        d = d[torch.isfinite(d)]
        step = float(d.mean()) if len(d) else 0.0
        deviations.append(deviation or 1.0)
        steps.append(step or float(original[torch.isfinite(original)].abs().mean()) or 1.0)
        ahead = torch.arange(1, horizon + 1)
        lag = season * (1 + (ahead - 1) // season)
        at = len(rows) - 1 - horizon + ahead
        if step and int(lag.max()) <= len(rows) - horizon:
            truth, naive = original[at], original[at - lag]
            mase.append((truth - naive).abs().nanmean() / step)
            smape.append(((truth - naive).abs() / (truth.abs() + naive.abs())).nanmean() * 2)
    return ErrorUnits(
        logs, torch.tensor(deviations), torch.tensor(steps), _mean(mase), _mean(smape)
    )


def _mean(values: Sequence[Tensor]) -> float:
    seen = [float(value) for value in values if torch.isfinite(value)]
    return sum(seen) / len(seen) if sum(seen) > 0 else 1.0


def forecast_loss(
    kind: Loss,
    quantiles: Tensor,
    truth: Tensor,
    levels: Tensor,
    steps: Steps,
    units: ErrorUnits,
) -> Tensor:
    """Loss of every value; quantiles (N, horizon, Q) and truth (N, horizon) in units of the step.

    `steps` are the N steps they were made at. Returns (N, horizon).
    """
    if kind == "scaled":
        return pinball(quantiles, truth, levels)
    level, scale = steps.level.to(truth), steps.scale.to(truth)
    if kind in ("relative", "balanced", "huber"):
        weight = scale / relative_unit(units, steps.channel).to(truth)
        if kind == "huber":
            return huber(weight * (truth - quantiles[..., 0]))
        return pinball(quantiles, truth, levels) * (weight if kind == "relative" else weight.sqrt())
    logs = units.logarithm[steps.channel][:, None].to(truth.device)
    unit = torch.where(logs, steps.level.to(truth.device).exp(), 1.0)
    unit = (unit / units.step[steps.channel][:, None].to(unit)).to(truth)
    y = _original(truth, logs, level, scale)
    f = _original(quantiles, logs[..., None], level[..., None], scale[..., None])
    # Held constant, or a quantile far off would pay less the farther it went.
    size = (y.abs()[..., None] + f.detach().abs()).clamp(min=1e-9) / 2
    mase = unit * pinball(f, y, levels)
    smape = tilted((y[..., None] - f) / size, levels)
    return 0.5 * (mase / units.mase + smape / units.smape)


def relative_unit(units: ErrorUnits, channel: Tensor) -> Tensor:
    """What "relative" errors of channels (N,) are divided by on the modelled scale: (N, 1)."""
    unit = torch.where(units.logarithm[channel], 1.0, units.deviation[channel])
    return unit.unsqueeze(1)


def huber(error: Tensor) -> Tensor:
    """e² / 2δ up to |e| = δ, and |e| − δ / 2 beyond: as steep as |e| there."""
    size = error.abs()
    square = error.square() / (2 * SQUARED_UP_TO)
    return torch.where(size <= SQUARED_UP_TO, square, size - SQUARED_UP_TO / 2)


def _original(value: Tensor, logs: Tensor, level: Tensor, scale: Tensor) -> Tensor:
    """On the original scale; of targets modelled by logarithm in units of exp(level)."""
    moved = scale * value
    return torch.where(logs, moved.clamp(max=LARGEST_EXPONENT).exp(), level + moved)
