"""How much each network of an ensemble counts, chosen on windows that training did not see.

Starting from none, the network is added whose addition makes the mean of all added ones best, again
and again; a network counts as often as it was added. So a good one may count several times and a
bad one not at all, and the weights stay coarse enough not to fit the windows' noise.

Source: Caruana, Niculescu-Mizil, Crew and Ksikes 2004, "Ensemble Selection from Libraries of
Models", section 2.1, selection with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recurra.data.series import Series
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.held_out import actual_after, held_out_origins
from recurra.tasks.forecasting.metrics import mase_scale, quantile_loss

Array = npt.NDArray[np.float64]
ROUNDS = 20
MOST_VALUES = 50_000_000
"""Forecast values that are held at once, all networks together: 400 MB."""


def with_weights(fitted: Fitted, series: Sequence[Series], kept: Sequence[int]) -> Fitted:
    """The fitted ensemble with weights from the windows in the last `kept` rows of each series."""
    number, row = held_out_origins(series, kept, fitted.settings.horizon)
    size = len(fitted.networks) * len(fitted.schema.target) * fitted.settings.horizon
    every = -(-len(number) * size * len(fitted.settings.quantile_levels) // MOST_VALUES)
    number, row = number[::every], row[::every]
    actual = actual_after(series, number, row, fitted.settings.horizon)
    each = np.stack(list(fitted.each_quantiles(series, number, row)))
    season = fitted.settings.season
    scale = np.array(
        [
            [mase_scale(column[: len(column) - rows], season) for column in one.target.T]
            for one, rows in zip(series, kept, strict=True)
        ]
    )
    weights = choose_weights(each, actual, scale[number], fitted.settings.quantile_levels)
    words = ", ".join(f"{weight:.2f}" for weight in weights)
    notes = (*fitted.notes, f"weights of the networks, from the rows kept for validation: {words}")
    return replace(fitted, weights=weights, notes=notes)


def choose_weights(
    each: Array, actual: Array, scale: Array, levels: Sequence[float]
) -> tuple[float, ...]:
    """Weights (E,), 1 together, from quantiles (E, N, K, h, Q) of E networks for N windows.

    actual (N, K, h), NaN where missing; scale (N, K) what errors are divided by, NaN where they
    count for nothing. Equal weights where nothing can be measured.
    """
    counts = np.zeros(len(each))
    total = np.zeros(each.shape[1:])
    for added in range(1, ROUNDS + 1):
        losses = [_loss((total + one) / added, actual, scale, levels) for one in each]
        if not np.isfinite(losses).any():
            return (1 / len(each),) * len(each)
        best = int(np.nanargmin(losses))
        counts[best] += 1
        total += each[best]
    return tuple((counts / ROUNDS).tolist())


def _loss(quantiles: Array, actual: Array, scale: Array, levels: Sequence[float]) -> float:
    loss = quantile_loss(actual, quantiles, levels) / scale[..., None]
    known = np.isfinite(loss)
    return float(loss[known].mean()) if known.any() else np.nan
