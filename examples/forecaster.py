"""Probabilistic forecasting in the style of DeepAR, before and after recurra.accelerate.

An LSTM reads each series, scaled by its own mean, together with covariates, and gives mean and
deviation of the next value. In training it sees the true last value at every step; a forecast feeds
samples of its own back, one step at a time.

Salinas, Flunkert, Gasthaus and Januschowski 2020, "DeepAR: probabilistic forecasting with
autoregressive recurrent networks", eq. 1–3; with the Gaussian likelihood.

    python examples/forecaster.py
    python examples/forecaster.py --small
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from compare import Comparison, Evaluate, compare, read_options
from torch import Tensor, nn

COVARIATES = 2
PERIOD = 24


class DeepAR(nn.Module):
    """target (B, T) and covariates (B, T, COVARIATES) to mean and deviation (B, T - 1)."""

    def __init__(self, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1 + COVARIATES, hidden_size, num_layers, batch_first=True)
        self.mean = nn.Linear(hidden_size, 1)
        self.deviation = nn.Linear(hidden_size, 1)

    def forward(self, target: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale(target)
        mean, deviation, _ = self.step(target[:, :-1] / scale, covariates[:, 1:], None)
        return mean * scale, deviation * scale

    def scale(self, target: Tensor) -> Tensor:
        return 1 + target.abs().mean(dim=1, keepdim=True)

    def step(self, last: Tensor, covariates: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """One or more steps: the values before them (B, T) to mean and deviation of theirs."""
        y, state = self.rnn(torch.cat([last.unsqueeze(2), covariates], dim=2), state)
        return self.mean(y).squeeze(2), F.softplus(self.deviation(y)).squeeze(2) + 1e-3, state

    @torch.no_grad()
    def sample(self, target: Tensor, covariates: Tensor, horizon: int) -> Tensor:
        """A path (B, horizon) after target; covariates (B, T + horizon, COVARIATES)."""
        context, scale = target.shape[1], self.scale(target)
        _, _, state = self.step(target[:, :-1] / scale, covariates[:, 1:context], None)
        last, path = target[:, -1:] / scale, []
        for t in range(context, context + horizon):
            mean, deviation, state = self.step(last, covariates[:, t : t + 1], state)
            last = torch.normal(mean, deviation)
            path.append(last * scale)
        return torch.cat(path, dim=1)


def build(small: bool) -> tuple[DeepAR, Evaluate]:
    """The model, and its loss on noisy sine waves of different levels."""
    torch.manual_seed(0)
    model = DeepAR(16, 2) if small else DeepAR(64, 3)
    batch, time = (4, 48) if small else (32, 192)
    covariates, target = waves(batch, time)

    def evaluate(model: nn.Module) -> tuple[Tensor, Tensor]:
        mean, deviation = model(target, covariates)
        nll = 0.5 * ((target[:, 1:] - mean) / deviation) ** 2 + deviation.log()
        return torch.stack([mean, deviation]), nll.mean() + 0.5 * math.log(2 * math.pi)

    return model, evaluate


def waves(batch: int, time: int) -> tuple[Tensor, Tensor]:
    """Covariates, which say where in the period a step is, and series that follow them."""
    angle = 2 * math.pi * torch.arange(time) / PERIOD
    covariates = torch.stack([angle.sin(), angle.cos()], dim=1).expand(batch, -1, -1)
    level = 10 ** (2 * torch.rand(batch, 1))
    return covariates, level * (2 + angle.sin() + 0.1 * torch.randn(batch, time))


def main(arguments: list[str] | None = None) -> Comparison:
    options = read_options(__doc__, arguments)
    model, evaluate = build(options.small)
    comparison = compare(model, evaluate, options)
    print(comparison)
    covariates, target = waves(1, 4 * PERIOD)
    path = model.sample(target[:, : 3 * PERIOD], covariates, 6)
    print("a sampled path:", " ".join(f"{value:.1f}" for value in path[0]))
    return comparison


if __name__ == "__main__":
    main()
