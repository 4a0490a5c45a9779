"""Exponential smoothing in front of a network: what it has of level and season is taken out.

    ℓ_i = α (z_i − s_{i−m}) + (1 − α) ℓ_{i−1}
    s_i = γ (z_i − ℓ_{i−1}) + (1 − γ) s_{i−m}
    x_i = z_i − ℓ − s[i mod m];     ŷ_k = ℓ + s[(t + k) mod m]

over the rows i of a normalised window of C rows that ends at t, with seasons of m rows; ℓ and s
without an index are the last ones. They begin with the first m rows: ℓ their mean, s what is left.
The network sees x, and ŷ is added to its forecast. On the logarithm of the target the season is
multiplicative.

α and γ are learned with the network and the same for all series, so that a new series has them too.
For given α and γ everything here is one linear map of the window, which the recursion makes out of
the identity. It goes a season at a time, since within one the s_{i−m} are known and the levels are
sums: ℓ_{b+j} = (1 − α)^{j+1} ℓ_{b−1} + Σ_{k≤j} α (1 − α)^{j−k} (z_{b+k} − s_{b+k−m}).

Source: Smyl 2020, "A hybrid method of exponential smoothing and recurrent neural networks for time
series forecasting", section 3, where α and γ belong to each series; the recursion is ETS(A,N,A),
Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", section 8.3, without a trend,
which is left to the network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ExponentialSmoothing(nn.Module):
    """Level and season of a window, taken out of it and carried on.

    Shapes: window (..., context) → adjusted (..., context), forecast (..., horizon).
    """

    def __init__(self, context: int, horizon: int, season: int) -> None:
        super().__init__()
        self.context, self.horizon, self.season = context, horizon, season
        self.rates = nn.Parameter(torch.zeros(2))
        """α and γ before the logistic function."""

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        adjust, carry_on = self.maps()
        return functional.linear(window, adjust), functional.linear(window, carry_on)

    def maps(self) -> tuple[Tensor, Tensor]:
        """The linear maps (context, context) to x and (horizon, context) to ŷ."""
        alpha, gamma = torch.sigmoid(self.rates)
        rows = torch.eye(self.context, dtype=self.rates.dtype, device=self.rates.device)
        step = torch.arange(self.season, dtype=rows.dtype, device=rows.device)
        faded = torch.sigmoid(-self.rates[0]) ** step
        lag = (step[:, None] - step).clamp(min=0).long()
        mix, kept = alpha * faded[lag].tril(), (1 - alpha) * faded
        level = rows[: self.season].mean(0)
        season = rows[: self.season] - level
        for piece in torch.split(rows[self.season :], self.season):
            n = len(piece)
            levels = kept[:n, None] * level + mix[:n, :n] @ (piece - season[:n])
            before = torch.cat((level[None], levels[:-1]))
            newer = torch.lerp(season[:n], piece - before, gamma)
            season, level = torch.cat((newer, season[n:])), levels[-1]
        back = torch.arange(self.context, device=rows.device) % self.season
        ahead = torch.arange(self.context, self.context + self.horizon, device=rows.device)
        return rows - level - season[back], level + season[ahead % self.season]
