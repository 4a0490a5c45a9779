"""Windows that training did not see, from which calibration and dependence are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recurra.data.series import Series
from recurra.tasks.forecasting.conformal import Calibration, calibrate
from recurra.tasks.forecasting.dependence import learn_dependence
from recurra.tasks.forecasting.fitted import Fitted

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
MOST = 256


def held_out_origins(
    series: Sequence[Series], kept: Sequence[int], horizon: int
) -> tuple[Integers, Integers]:
    """(number, row) of windows within the last `kept` rows of each series, in order of time.

    Where nothing was kept, the last window of each series. A fixed random choice of many.
    """
    numbers: list[int] = []
    rows: list[int] = []
    for n, (one, count) in enumerate(zip(series, kept, strict=True)):
        last = len(one.target) - 1 - horizon
        first = last if not any(kept) else len(one.target) - 1 - count
        for row in range(max(first, 0), last + 1) if count or not any(kept) else ():
            numbers.append(n)
            rows.append(row)
    number, row_of = np.array(numbers, dtype=np.int64), np.array(rows, dtype=np.int64)
    if len(number) > MOST:
        chosen = np.random.default_rng(0).permutation(len(number))[:MOST]
        number, row_of = number[chosen], row_of[chosen]
    return in_time(series, number, row_of)


def in_time(series: Sequence[Series], number: Integers, row: Integers) -> tuple[Integers, Integers]:
    """Origins in order of time."""
    start = np.array([one.start for one in series], dtype=np.int64)
    order = np.lexsort((number, start[number] + row))
    return number[order], row[order]


def actual_after(series: Sequence[Series], number: Integers, row: Integers, horizon: int) -> Array:
    """What came (N, K, horizon) after each origin, NaN where missing."""
    steps = 1 + np.arange(horizon)
    return np.stack([series[n].target[r + steps].T for n, r in zip(number, row, strict=True)])


def with_dependence(fitted: Fitted, series: Sequence[Series], kept: Sequence[int]) -> Fitted:
    """The fitted forecaster with what it needs to draw paths, from the rows kept from training."""
    levels, horizon = fitted.settings.quantile_levels, fitted.settings.horizon
    number, row = held_out_origins(series, kept, horizon)
    if len(levels) < 2 or not len(number):
        return fitted
    quantiles = fitted.unchecked_quantiles(series, number, row)
    actual = actual_after(series, number, row, horizon)
    return replace(fitted, dependence=learn_dependence(quantiles, actual, levels))


def learn_calibration(
    fitted: Fitted, series: Sequence[Series], number: Integers, row: Integers
) -> Calibration:
    """Calibration of the raw quantiles on the windows after `row` of series `number` (N,)."""
    number, row = in_time(series, number, row)
    raw = replace(fitted, calibration=None)
    quantiles = raw.unchecked_quantiles(series, number, row)
    actual = actual_after(series, number, row, fitted.settings.horizon)
    return calibrate(quantiles, actual, fitted.settings.quantile_levels)
