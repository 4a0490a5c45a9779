"""The forecaster's training: random sequences, a loss at every step and step ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurra.errors import DataError
from recurra.nn.quantile import pinball
from recurra.tasks.forecasting.autoregressive import AutoregressiveNetwork
from recurra.tasks.forecasting.counts import count_loss
from recurra.tasks.forecasting.encode import Network, forecast_rows
from recurra.tasks.forecasting.features import Steps, make_future, make_steps
from recurra.tasks.forecasting.losses import error_units, forecast_loss, huber, relative_unit
from recurra.tasks.forecasting.panel import Panel

MAX_VALIDATION_ORIGINS = 512
MAX_DRAWN_ORIGINS = 64
"""Of these where a forecast is drawn as many paths, row by row."""


@dataclass(frozen=True)
class Batch:
    """B sequences of T steps. truth (B, T, h) is in units of each step; NaN where not counted."""

    steps: Steps
    future: Tensor
    truth: Tensor
    lengths: Tensor


class ForecastTask:
    """What the training loop asks for: batches, a loss, a validation score.

    `train_rows` (C,): targets at or after that row of a channel are never trained on; they
    validate. `logarithm` says which targets are modelled by their logarithm.
    """

    def __init__(
        self,
        network: Network,
        panel: Panel,
        train_rows: Tensor,
        batch_size: int,
        seed: int,
        logarithm: Sequence[bool],
    ) -> None:
        self.model = network
        self.panel = panel
        self.train_rows = train_rows
        self.batch_size = batch_size
        settings = network.settings
        observed = panel.first - panel.offset
        needed: int | Tensor = settings.context // 3
        if settings.windowed:  # whole windows, where there are more than a few
            needed = ((train_rows - observed) // 2).clamp(max=settings.context)
        elif settings.level_rows > 1:
            needed = settings.level_rows
        needed = torch.as_tensor(needed).clamp(min=2)
        self.first_origin = torch.minimum(observed + needed - 1, train_rows - 2).clamp(min=0)
        self.trainable = torch.nonzero(train_rows - observed >= 2).squeeze(1)
        if not len(self.trainable):
            raise DataError(
                "no series has two training rows with a value (the longest has "
                f"{int(train_rows.max())} rows), so there is nothing to learn from. Give longer "
                "series."
            )
        self.levels = torch.tensor(settings.quantile_levels)
        self.units = error_units(panel, train_rows, logarithm, settings)
        self.validation = self._validation_origins(seed)

    @property
    def validate_every(self) -> int:
        """Steps between validations: about two passes over the training rows."""
        rows = int((self.train_rows - self.first_origin).clamp(min=0).sum())
        steps = 2 * rows // (self.batch_size * self.model.settings.sequence_length)
        return min(max(steps, 20), 200)

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """Sequences that end at random rows, of every channel as often as of any other."""
        settings = self.model.settings
        rounds = -(-self.batch_size // len(self.trainable))
        drawn = [torch.randperm(len(self.trainable), generator=rng) for _ in range(rounds)]
        channel = self.trainable[torch.cat(drawn)[: self.batch_size]]
        low, high = self.first_origin[channel], self.train_rows[channel] - 1
        origin = low + (torch.rand(len(channel), generator=rng) * (high - low)).long()
        if settings.aligned:
            origin = _aligned(origin, low, high, settings.season)
        lengths = (torch.div(origin, settings.stride, rounding_mode="floor") + 1).clamp(
            max=settings.sequence_length
        )
        number = torch.arange(settings.sequence_length)
        row = origin[:, None] - settings.stride * (lengths[:, None] - 1 - number)
        row = torch.minimum(row, origin[:, None])
        made = make_steps(
            self.panel,
            channel.repeat_interleave(settings.sequence_length),
            row.reshape(-1),
            settings,
        )
        truth = self._truth(channel.repeat_interleave(settings.sequence_length), row.reshape(-1))
        ahead = torch.arange(1, settings.horizon + 1)
        counted = (row[:, :, None] + ahead < self.train_rows[channel][:, None, None]) & (
            (number < lengths[:, None]) & (row >= low[:, None])
        )[:, :, None]
        shape = (len(channel), settings.sequence_length)
        truth = ((truth - made.level) / made.scale).float().view(*shape, -1)
        future = make_future(self.panel, made, settings)
        return Batch(made, future, torch.where(counted, truth, torch.nan), lengths)

    def loss(self, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        """Pinball loss over all levels, steps, and steps ahead whose truth is known.

        With the head for counts their negative log-likelihood.
        """
        device = self.model.embed.weight.device
        truth = batch.truth.to(device).flatten(0, 1)
        free = self._quantiles(batch, truth)
        known = torch.isfinite(truth)
        truth = torch.where(known, truth, 0.0)
        if self.model.settings.head == "counts":
            each = count_loss(free, truth, batch.steps.level, batch.steps.scale)
        else:
            each = forecast_loss(
                self.model.settings.loss,
                free,
                truth,
                self.levels.to(device),
                batch.steps,
                self.units,
            )
        return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1), None

    def _quantiles(self, batch: Batch, truth: Tensor) -> Tensor:
        """What the network makes of a batch's N steps, (N, horizon, ...); truth (N, horizon)."""
        window, extra = batch.steps.window.to(truth.device), batch.steps.extra.to(truth.device)
        if isinstance(self.model, AutoregressiveNetwork):
            return self.model.teach(window, extra, truth)
        shape = batch.truth.shape[:2]
        future = batch.future.view(*shape, *batch.future.shape[1:]).to(truth.device)
        made: Tensor = self.model(
            window.view(*shape, -1), extra.view(*shape, -1), future, batch.lengths
        )
        return made.flatten(0, 1)

    def validate(self) -> float | None:
        """Pinball loss in units of each origin's scale, over the rows kept from training.

        With loss="huber" that loss itself, which has other weights at its best.
        """
        channel, row = self.validation
        if not len(channel):
            return None
        quantiles = forecast_rows(self.model, self.panel, channel, row)
        truth = self._truth(channel, row)
        known = torch.isfinite(truth)
        filled = torch.where(known, truth, 0.0)
        if self.model.settings.loss == "huber":
            each = huber((filled - quantiles[..., 0]) / relative_unit(self.units, channel))
        else:
            each = pinball(quantiles, filled, self.levels.double()) / self._scale(channel, row)
        return float(torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1))

    def windows(self, channel: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (N, context) and what follows them in training rows (N, horizon).

        Both less the level of the window, in units of the channel's deviation in training. NaN
        where the truth is missing, or must not be trained on.
        """
        made = make_steps(self.panel, channel, row, self.model.settings)
        ahead = row[:, None] + torch.arange(1, self.model.settings.horizon + 1)
        deviation = self.units.deviation[channel][:, None]
        truth = (self._truth(channel, row) - made.level) / deviation
        counted = ahead < self.train_rows[channel][:, None]
        window = made.window * (made.scale / deviation).float()
        return window, torch.where(counted, truth, torch.nan).float()

    def _truth(self, channel: Tensor, row: Tensor) -> Tensor:
        """Transformed target (N, horizon) after each row, NaN where missing or past the end."""
        ahead = row[:, None] + torch.arange(1, self.model.settings.horizon + 1)
        last = self.panel.length[channel][:, None] - 1
        position = self.panel.offset[channel][:, None] + torch.minimum(ahead, last)
        return torch.where(ahead <= last, self.panel.truth[position], torch.nan)

    def _scale(self, channel: Tensor, row: Tensor) -> Tensor:
        scale = make_steps(self.panel, channel, row, self.model.settings).scale
        # A window of zeros has next to no scale; one more or less is then what counts.
        return scale.clamp(min=1.0) if self.model.settings.head == "counts" else scale

    def _validation_origins(self, seed: int) -> tuple[Tensor, Tensor]:
        """Origins from the last training row on; a fixed random choice when there are many."""
        horizon = self.model.settings.horizon
        channels, rows = [], []
        for c in range(self.panel.channels):
            length, start = int(self.panel.length[c]), int(self.train_rows[c])
            if length > start:
                row = torch.arange(start - 1, max(length - horizon, start))
                channels.append(torch.full_like(row, c))
                rows.append(row)
        if not rows:
            return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
        channel, row = torch.cat(channels), torch.cat(rows)
        known = torch.isfinite(self._truth(channel, row)).any(1)
        channel, row = channel[known], row[known]
        drawn = isinstance(self.model, AutoregressiveNetwork)
        most = MAX_DRAWN_ORIGINS if drawn else MAX_VALIDATION_ORIGINS
        if len(row) > most:
            rng = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(len(row), generator=rng)[:most].sort().values
            channel, row = channel[chosen], row[chosen]
        return channel, row


def _aligned(origin: Tensor, low: Tensor, last: Tensor, season: int) -> Tensor:
    """Origins moved on to whole seasons before the `last` row, one at least; not before `low`."""
    seasons = torch.div(last - origin, season, rounding_mode="floor").clamp(min=1)
    return torch.maximum(last - season * seasons, low)
