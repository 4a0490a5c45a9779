"""The forking recurrent network: a forecast of the whole horizon from every state.

    e_t = GELU(W_e [window_t, extra_t]);  h_t = cell(e_t, h_{t−1});  u_t = GELU(W_u [h_t, e_t])
    o_{t,k} = skip_k(window_t) + W_k u_t + f(V u_t, future_{t,k})        k = 1 … horizon

`skip` is one linear map that starts as a baseline: last season's value, or the last value. W_k and
the last layer of f start at zero, so an untrained network's median *is* that baseline. All steps
ahead are read from the state at the last observed row. With `smoothing` the window comes out of
exponential smoothing, whose forecast is added and is the baseline.

Source: forking sequences, Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster", section
3.3, equations 2 and 3; the normalised windows and the skip are ours.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from recurra.nn.gru import GRU
from recurra.nn.lstm import LSTM
from recurra.nn.quantile import SortedQuantiles
from recurra.nn.rnn import RNN
from recurra.tasks.forecasting.counts import PARAMETERS
from recurra.tasks.forecasting.settings import ModelSettings
from recurra.tasks.forecasting.smoothing import ExponentialSmoothing

Baseline = Literal["naive", "seasonal_naive"]
LOCAL_SIZE = 32
State = Any


class ForkingNetwork(nn.Module):
    """Normalised quantile forecasts from every step of a sequence.

    Shapes: window (B, T, window_size), extra (B, T, extra_size), future (B, T, horizon,
    future_size) → quantiles (B, T, horizon, Q). The quantiles are in units of the step's scale,
    relative to its level.
    """

    def __init__(
        self, settings: ModelSettings, extra_size: int, future_size: int, baseline: Baseline
    ) -> None:
        super().__init__()
        self.settings = settings
        hidden, free = settings.hidden_size, len(settings.quantile_levels)
        if settings.head == "counts":
            free = PARAMETERS - 1
        self.embed = nn.Linear(settings.window_size + extra_size, hidden)
        kind = {"gru": GRU, "lstm": LSTM, "rnn": RNN}[settings.cell]
        self.recurrent = kind(hidden, hidden, num_layers=settings.num_layers, batch_first=True)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.direct = nn.Linear(hidden, settings.horizon * free)
        self.skip = nn.Linear(settings.window_size, settings.horizon)
        self.smoothing: ExponentialSmoothing | None = None
        if settings.smoothing:
            self.smoothing = ExponentialSmoothing(
                settings.context, settings.horizon, settings.period
            )
        self.dropout = nn.Dropout(settings.dropout)
        self.sort = SortedQuantiles(settings.quantile_levels)
        self.act = nn.GELU()
        self.spread = nn.Parameter(torch.zeros(settings.horizon))
        self.local: LocalHead | None = None
        if future_size:
            self.local = LocalHead(hidden, future_size, free)
        self.season_weight = (
            nn.Parameter(torch.zeros(settings.horizon)) if settings.long_season else None
        )
        self._start_as(baseline)

    def _start_as(self, baseline: Baseline) -> None:
        settings = self.settings
        nn.init.zeros_(self.direct.weight)
        nn.init.zeros_(self.direct.bias)
        nn.init.zeros_(self.skip.bias)
        nn.init.zeros_(self.skip.weight)
        if self.smoothing is not None:
            return
        with torch.no_grad():
            if self.season_weight is not None and baseline == "seasonal_naive":
                self.season_weight.fill_(1.0)
            elif baseline == "seasonal_naive" and settings.season_in_window:
                ahead = torch.arange(settings.horizon)
                back = settings.period
                phase = settings.context - back + ahead % back
                self.skip.weight[ahead, phase] = 1.0
            else:
                self.skip.weight[:, settings.context - 1] = 1.0

    def encode(
        self, window: Tensor, extra: Tensor, lengths: Tensor | None = None, state: State = None
    ) -> tuple[Tensor, Tensor, State]:
        """(embedded, output, final state) of a sequence of steps; (B, T, hidden) the first two."""
        embedded = self.embed_steps(window, extra)
        output, state = self.recurrent(embedded, state, lengths=lengths)
        return embedded, output, state

    def embed_steps(self, window: Tensor, extra: Tensor) -> Tensor:
        """e_t (..., hidden): what the recurrence reads."""
        if self.smoothing is not None:
            window, _ = self.smoothing(window)
        embedded: Tensor = self.act(self.embed(torch.cat((window, extra), dim=-1)))
        return embedded

    def forward(
        self, window: Tensor, extra: Tensor, future: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Quantiles (B, T, horizon, Q) from every step, from the initial state."""
        embedded, output, _ = self.encode(window, extra, lengths)
        return self.decode(window, future, embedded, output)

    def decode(self, window: Tensor, future: Tensor, embedded: Tensor, output: Tensor) -> Tensor:
        """Quantiles (..., horizon, Q) from the recurrence's output and the step's own inputs.

        With the head for counts what `counts.py` makes a distribution of, (..., horizon, 3).
        """
        mixed = self.dropout(self.act(self.mix(torch.cat((output, embedded), dim=-1))))
        horizon = self.settings.horizon
        size = self.direct.out_features // horizon  # said in full: there may be no row at all
        free = self.direct(mixed).view(*mixed.shape[:-1], horizon, size)
        if self.local is not None:
            free = free + self.local(mixed, future)
        centre: Tensor
        if self.smoothing is None:
            centre = self.skip(window)
        else:
            adjusted, carried_on = self.smoothing(window)
            centre = self.skip(adjusted) + carried_on
        if self.season_weight is not None:
            centre = centre + self.season_weight * future[..., -2]
        if self.settings.head == "counts":
            return torch.cat((centre.unsqueeze(-1), free), dim=-1)
        quantiles: Tensor = self.spread.exp().unsqueeze(-1) * self.sort(free)
        return centre.unsqueeze(-1) + quantiles


class LocalHead(nn.Module):
    """f(V u, future): the part of the forecast that depends on each step ahead's own inputs.

    Shapes: mixed (..., hidden), future (..., horizon, future_size) → (..., horizon, Q); 0 at start.
    """

    def __init__(self, hidden_size: int, future_size: int, levels: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden_size, LOCAL_SIZE)
        self.future = nn.Linear(future_size, LOCAL_SIZE)
        self.act = nn.GELU()
        self.out = nn.Linear(LOCAL_SIZE, levels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, mixed: Tensor, future: Tensor) -> Tensor:
        made: Tensor = self.out(self.act(self.state(mixed).unsqueeze(-2) + self.future(future)))
        return made
