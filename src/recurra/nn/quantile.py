"""Quantile forecasts that cannot cross, and the loss they are trained with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional

from recurra.errors import ConfigError


def check_quantile_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Levels as a tuple: strictly rising, inside (0, 1), with the median among them.

    Raises: ConfigError otherwise.
    """
    values = tuple(float(level) for level in levels)
    rising = all(a < b for a, b in itertools.pairwise(values))
    if not values or not rising or not values[0] > 0.0 or not values[-1] < 1.0:
        raise ConfigError(
            f"quantile_levels={list(values)} must rise strictly inside (0, 1), as in [0.1, 0.5, "
            "0.9]."
        )
    if 0.5 not in values:
        raise ConfigError(
            f"quantile_levels={list(values)} must contain 0.5: the median is the point forecast."
        )
    return values


class SortedQuantiles(nn.Module):
    """Turn free numbers into quantiles in rising order.

    q_m = a_m;  q_{j+1} = q_j + softplus(a_{j+1} + s_{j+1});  q_{j-1} = q_j − softplus(a_{j-1} +
    s_{j-1})

    with m the median and s constants: for a = 0 the result is the quantiles of a normal
    distribution with median 0 and standard deviation 1.

    Shapes: a (..., Q) → (..., Q), Q the number of levels.
    Example:
        >>> sort = SortedQuantiles((0.1, 0.5, 0.9))
        >>> sort(torch.zeros(3)).round(decimals=2)
        tensor([-1.2800,  0.0000,  1.2800])

    Source: the increments of incremental quantile functions, Park et al. 2022,
    "Learning Quantile Functions without Quantile Crossing", section 3.
    """

    start: Tensor

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.levels = check_quantile_levels(levels)
        self.median = self.levels.index(0.5)
        z = [NormalDist().inv_cdf(level) for level in self.levels]
        gaps = [
            abs(z[j] - z[j + (1 if j < self.median else -1)]) for j in range(len(z)) if z[j] != 0
        ]
        start = torch.tensor([math.log(math.expm1(gap)) for gap in gaps])
        self.register_buffer("start", start, persistent=False)

    def forward(self, free: Tensor) -> Tensor:
        m = self.median
        middle = free[..., m : m + 1]
        below = functional.softplus(free[..., :m] + self.start[:m])
        above = functional.softplus(free[..., m + 1 :] + self.start[m:])
        lower = middle - below.flip(-1).cumsum(-1).flip(-1)
        upper = middle + above.cumsum(-1)
        return torch.cat((lower, middle, upper), dim=-1)


def pinball(quantiles: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Quantile loss of every forecast, averaged over levels.

    2 · mean_j max(τ_j (y − q_j), (τ_j − 1)(y − q_j)); with the median alone it is |y − q|.

    Shapes: quantiles (..., Q), target (...), levels (Q,) → (...).
    Source: Koenker and Bassett 1978, "Regression Quantiles".
    """
    return tilted(target.unsqueeze(-1) - quantiles, levels)


def tilted(error: Tensor, levels: Tensor) -> Tensor:
    """2 · mean_j e_j (τ_j − [e_j < 0]), the quantile loss of errors e (..., Q) → (...)."""
    # The same as the larger of τ e and (τ − 1) e, at less than half the cost, backward above all.
    below = (error.detach() < 0).to(error.dtype)
    return 2.0 * (error * (levels - below)).mean(-1)
