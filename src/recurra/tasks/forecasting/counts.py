"""Forecasts of counts: a negative binomial distribution for every step ahead.

    μ = s · softplus((level + c · centre) / s + a),  s = max(c, 0.1);   α = softplus(b − 2) + 10⁻⁴
    P(y) = Γ(y + 1/α) / (y! Γ(1/α)) · (1 + αμ)^(−1/α) · (αμ / (1 + αμ))^y,    variance μ + αμ²

with level and c those of the step's window, and (centre, a, b) what the network says of the step
ahead. It gives whole numbers their due: many zeros, few larger values, no quantile between two.

Source: the likelihood of Salinas et al. 2020, "DeepAR", equation 4; here for all steps ahead at
once, with the mean about the network's skip path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from recurra.data.series import Series
from recurra.errors import DataError
from recurra.tasks.forecasting.settings import ModelSettings

PARAMETERS = 3
SMALLEST_UNIT = 0.1
SMALLEST_MEAN = 1e-6
SMALLEST_SHAPE = 1e-4
LARGEST_COUNT = 1e9
LARGEST_COUNTED = 500
"""Quantiles up to about here are counted one by one, larger ones those of a gamma distribution.
Up to here the probability of 0, from which the count begins, is still a number and not 0."""


def negative_binomial(free: Tensor, level: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """(μ, α), (N, horizon) each, from free (N, horizon, 3), level and scale (N, 1)."""
    centre, a, b = free.unbind(-1)
    unit = scale.clamp(min=SMALLEST_UNIT)
    mean = unit * functional.softplus((level + scale * centre) / unit + a)
    return mean.clamp(min=SMALLEST_MEAN), functional.softplus(b - 2.0) + SMALLEST_SHAPE


def count_loss(free: Tensor, truth: Tensor, level: Tensor, scale: Tensor) -> Tensor:
    """−log P(y), (N, horizon), of y = level + scale · truth, rounded to the count that it was."""
    level, scale = level.to(free), scale.to(free)
    mean, shape = negative_binomial(free, level, scale)
    y = (level + scale * truth).round().clamp(min=0.0)
    r = 1.0 / shape
    gammas = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1.0)
    hit = torch.log1p(shape * mean)
    return -(gammas - r * hit + y * (torch.log(shape * mean) - hit))


def count_quantiles(mean: Tensor, shape: Tensor, levels: Sequence[float]) -> Tensor:
    """The smallest count that at least a share τ is not above, (..., Q) float64.

    Beyond five hundred or so the gamma distribution of that mean and variance stands for it, by the
    cube-root normal approximation (Wilson and Hilferty 1931), rounded.
    """
    tau = torch.tensor(levels, dtype=torch.float64)
    mu, alpha = mean.double().reshape(-1), shape.double().reshape(-1)
    out = torch.empty(len(mu), len(tau), dtype=torch.float64)
    deviation = (mu + alpha * mu**2).sqrt()
    large = mu + 6 * deviation > LARGEST_COUNTED
    if large.any():
        out[large] = _gamma_quantiles(mu[large], deviation[large], tau)
    left = torch.nonzero(~large).squeeze(1)
    if len(left):
        out[left] = _counted(mu[left], alpha[left], tau)
    return out.reshape(*mean.shape, len(tau))


def _counted(mu: Tensor, alpha: Tensor, tau: Tensor) -> Tensor:
    """Quantiles (N, Q) by adding up probabilities from 0 on."""
    r, ratio = 1.0 / alpha, alpha * mu / (1.0 + alpha * mu)
    probability = torch.exp(-r * torch.log1p(alpha * mu))
    total = probability.clone()
    out = torch.zeros(len(mu), len(tau), dtype=torch.float64)
    for y in range(20 * LARGEST_COUNTED):
        short = total[:, None] < tau
        if not short.any():
            break
        out += short
        probability = probability * ratio * (y + r) / (y + 1)
        total = total + probability
    return out


def _gamma_quantiles(mu: Tensor, deviation: Tensor, tau: Tensor) -> Tensor:
    k = (mu / deviation) ** 2
    z = torch.special.ndtri(tau)
    ninth = 1.0 / (9.0 * k[:, None])
    made: Tensor = (mu[:, None] * (1.0 - ninth + z * ninth.sqrt()) ** 3).clamp(min=0.0).round()
    return made


def values_of(settings: ModelSettings, free: Tensor, level: Tensor, scale: Tensor) -> Tensor:
    """Quantiles (N, horizon, Q) float64, on the transformed scale, of a network's output."""
    free = free.double().cpu()
    if settings.head == "counts":
        return count_quantiles(*negative_binomial(free, level, scale), settings.quantile_levels)
    return level.unsqueeze(2) + scale.unsqueeze(2) * free


def check_counts(targets: Sequence[str], series: Sequence[Series]) -> None:
    """Raises: DataError for a value that is no count, naming series, target and value."""
    for one in series:
        for k, name in enumerate(targets):
            seen = one.target[np.isfinite(one.target[:, k]), k]
            wrong = seen[(seen < 0) | (seen > LARGEST_COUNT) | (seen != np.round(seen))]
            if len(wrong):
                of = f"series {one.name!r}" if one.name else "the series"
                raise DataError(
                    f"the target {name!r} of {of} holds {wrong[0]:g}, and head='counts' expects "
                    f"whole numbers from 0 to {LARGEST_COUNT:g}. Leave head out, or round "
                    "the values."
                )


def is_intermittent(values: Sequence[npt.NDArray[np.float64]], share: float = 0.2) -> bool:
    """Whether all values are counts, and at least a share of them 0."""
    seen = np.concatenate([one[np.isfinite(one)] for one in values])
    counts = bool((seen >= 0).all() and (seen == np.round(seen)).all())
    return counts and bool(np.mean(seen == 0) >= share)
