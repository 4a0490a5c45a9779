"""The autoregressive network: one row after the other, each drawn from what came before it.

    x_t = [z_{t−1}, z_{t−m}, target];  h_t = cell(GELU(W_e x_t), h_{t−1})
    q_t = a_1 z_{t−1} + a_2 z_{t−m} + exp(s) sort(W_o h_t)

q_t are the quantiles of row t given all rows before it, m is the season where it fits in the
window. A path reads z_t off q_t at a random share, and goes on from there; the forecast is the
quantiles of `PATHS` such paths. In training z_{t−1} is the true row. W_o starts at zero and a as
the last value or the last season, so an untrained network is a random walk, or a seasonal one.

All paths of a forecast share their random shares, and every window has the same ones: a forecast
does not depend on what else is forecast beside it. The shares of one step lie evenly in (0, 1).

Nothing but the window is read: a stream keeps a ring of `context` rows and no recurrent state.

Source: Salinas et al. 2020, "DeepAR: Probabilistic forecasting with autoregressive recurrent
networks", sections 3.1 and 3.2; quantiles in place of a likelihood, the lag path and the even
shares are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor, nn

from recurra.nn.gru import GRU
from recurra.nn.lstm import LSTM
from recurra.nn.quantile import SortedQuantiles
from recurra.nn.rnn import RNN
from recurra.tasks.forecasting.features import CLIP
from recurra.tasks.forecasting.settings import ModelSettings

PATHS = 100
SHARES_SEED = 0


class AutoregressiveNetwork(nn.Module):
    """Normalised quantile forecasts from a window, by paths that read their own draws.

    Shapes: window (N, context), extra (N, K) which of K targets it is, as zeros and a one →
    quantiles (N, horizon, Q), in units of the window's scale, relative to its level.
    """

    def __init__(
        self,
        settings: ModelSettings,
        targets: int,
        baseline: Literal["naive", "seasonal_naive"] = "naive",
    ) -> None:
        super().__init__()
        self.settings = settings
        hidden, levels = settings.hidden_size, settings.quantile_levels
        self.lags = lags_of(settings)
        self.embed = nn.Linear(len(self.lags) + targets, hidden)
        kind = {"gru": GRU, "lstm": LSTM, "rnn": RNN}[settings.cell]
        self.recurrent = kind(hidden, hidden, num_layers=settings.num_layers, batch_first=True)
        self.dropout = nn.Dropout(settings.dropout)
        self.out = nn.Linear(hidden, len(levels))
        self.lag = nn.Parameter(torch.zeros(len(self.lags)))
        self.spread = nn.Parameter(torch.zeros(()))
        self.sort = SortedQuantiles(levels)
        self.act = nn.GELU()
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.lag[-1 if baseline == "seasonal_naive" else 0] = 1.0
        weights = share_weights(even_shares(PATHS, settings.horizon), levels)
        self.register_buffer("shares", weights, persistent=False)

    def forward(
        self,
        window: Tensor,
        extra: Tensor,
        future: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Quantiles (N, horizon, Q); `future` and `lengths` are for designs that read them."""
        drawn = self.draw(window, extra, self.get_buffer("shares"))
        levels = torch.tensor(self.settings.quantile_levels, dtype=drawn.dtype, device=drawn.device)
        # Path k of P in order stands for the share (k + 1/2) / P, and torch's for k / (P − 1).
        paths = drawn.shape[1]
        at = ((levels * paths - 0.5) / (paths - 1)).clamp(0, 1)
        return torch.quantile(drawn, at, dim=1).movedim(0, -1)

    def teach(self, window: Tensor, extra: Tensor, truth: Tensor) -> Tensor:
        """Quantiles (N, horizon, Q) of each row ahead given the true rows (N, horizon) before it.

        Rows that are not known (NaN) are read as the last one before them.
        """
        rows = _carried(torch.cat((window, truth), dim=1)).clamp(-CLIP, CLIP)
        x = self._lagged(rows)
        output, _ = self.recurrent(self._embedded(x, extra))
        ahead = truth.shape[1]
        return self._quantiles(x[:, -ahead:], output[:, -ahead:])

    def draw(self, window: Tensor, extra: Tensor, shares: Tensor) -> Tensor:
        """Paths (N, P, horizon), path p reading step k by the weights `shares` (P, horizon, Q).

        With shares (N, P, horizon, Q) every window has its own.
        """
        paths = shares.shape[-3]
        x = self._lagged(window)
        _, state = self.recurrent(self._embedded(x, extra))
        state = _repeated(state, paths)
        rows = window.repeat_interleave(paths, dim=0)
        extra = extra.repeat_interleave(paths, dim=0)
        each = shares.expand(len(window), *shares.shape[-3:]).reshape(-1, *shares.shape[-2:])
        for step in range(self.settings.horizon):
            x = torch.stack([rows[:, -lag] for lag in self.lags], dim=-1).unsqueeze(1)
            output, state = self.recurrent(self._embedded(x, extra), state)
            quantiles = self._quantiles(x, output)[:, 0]
            # What is read back is kept in the range of windows, so that no path can run away.
            row = (quantiles * each[:, step]).sum(-1, keepdim=True).clamp(-CLIP, CLIP)
            rows = torch.cat((rows, row), dim=1)
        return rows[:, window.shape[1] :].view(len(window), paths, -1)

    def _lagged(self, rows: Tensor) -> Tensor:
        """x (N, T − m, lags): what is read for every row but the first m of rows (N, T)."""
        most = max(self.lags)
        length = rows.shape[1] - most
        return torch.stack([rows[:, most - lag :][:, :length] for lag in self.lags], dim=-1)

    def _embedded(self, x: Tensor, extra: Tensor) -> Tensor:
        which = extra.unsqueeze(1).expand(-1, x.shape[1], -1)
        embedded: Tensor = self.act(self.embed(torch.cat((x, which), dim=-1)))
        return embedded

    def _quantiles(self, x: Tensor, output: Tensor) -> Tensor:
        spread: Tensor = self.spread.exp() * self.sort(self.out(self.dropout(output)))
        return (x @ self.lag).unsqueeze(-1) + spread


def lags_of(settings: ModelSettings) -> tuple[int, ...]:
    """Rows back that are read for each row: the last one, and a season where the window has two."""
    season = settings.period
    return (1, season) if 1 < season <= settings.context // 2 else (1,)


def even_shares(paths: int, horizon: int) -> Tensor:
    """Shares (paths, horizon) in (0, 1): those of a step are evenly spread, in an order of its own.

    Source: Latin hypercube sampling, McKay, Beckman and Conover 1979.
    """
    rng = torch.Generator().manual_seed(SHARES_SEED)
    order = torch.stack([torch.randperm(paths, generator=rng) for _ in range(horizon)], dim=1)
    return (order.double() + 0.5) / paths


def share_weights(shares: Tensor, levels: Sequence[float]) -> Tensor:
    """Weights (..., Q) of the quantiles at `levels` whose sum is the value at each of `shares`.

    Between two levels, and beyond the outermost, values are linear in Φ⁻¹ of the share.
    """
    if len(levels) == 1:
        return torch.ones(*shares.shape, 1)
    nodes = torch.tensor([NormalDist().inv_cdf(level) for level in levels], dtype=torch.float64)
    z = torch.special.ndtri(shares.double())
    left = (torch.searchsorted(nodes, z, right=True) - 1).clamp(0, len(levels) - 2)
    upper = (z - nodes[left]) / (nodes[left + 1] - nodes[left])
    weights = torch.zeros(*shares.shape, len(levels), dtype=torch.float64)
    weights.scatter_(-1, left.unsqueeze(-1), (1 - upper).unsqueeze(-1))
    weights.scatter_(-1, left.unsqueeze(-1) + 1, upper.unsqueeze(-1))
    return weights.float()


def _repeated(state: Any, times: int) -> Any:
    """A recurrent state with every sequence `times` over: h, or (h, c)."""
    if isinstance(state, tuple):
        return tuple(_repeated(one, times) for one in state)
    return state.repeat_interleave(times, dim=1)


def _carried(rows: Tensor) -> Tensor:
    """Rows (N, T) whose first is known, each that is not known as the last known one before it."""
    number = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    last = torch.where(torch.isfinite(rows), number, 0).cummax(dim=1).values
    return rows.gather(1, last)
