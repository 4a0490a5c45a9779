"""The linear forecast of a window, solved in closed form: the baseline of long horizons.

    f_k = y_t + Σ_i W_{k,i} (y_{t−i} − y_t)        k = 1 … horizon, i = 0 … context − 1
    W = argmin Σ (y_{t+k} − f_k)² + λ ‖W‖²

over all windows of all channels, which share W.

Source: Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?", NLinear, there
by gradient descent; ridge regression, Hoerl and Kennard 1970.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
PENALTIES = (1e2, 1e3, 1e4, 1e5)
AT_ONCE = 4096


def windows(values: Array, context: int, horizon: int, rows: Integers) -> tuple[Array, Array]:
    """Differences from the last value: windows (n, context) and what follows (n, horizon).

    values (N,) of one channel; rows (n,) of the last values.
    """
    view = np.lib.stride_tricks.sliding_window_view(values, context + horizon)
    both = view[rows - context + 1] - values[rows, None]
    return both[:, :context], both[:, context:]


def learn(
    values: Array,
    context: int,
    horizon: int,
    rows: Integers,
    penalties: Sequence[float] = PENALTIES,
) -> list[Array]:
    """W (context, horizon) for each of the penalties λ, from the windows that end at `rows`.

    values (N, C) complete, in comparable units; rows (n,) with a whole window and horizon around.
    """
    gram, cross = np.zeros((context, context)), np.zeros((context, horizon))
    for channel in values.T:
        for some in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
            x, y = windows(channel, context, horizon, some)
            gram += x.T @ x
            cross += x.T @ y
    return solve(gram, cross, penalties)


def solve(gram: Array, cross: Array, penalties: Sequence[float]) -> list[Array]:
    """(gram + λ)⁻¹ cross for each λ, from gram = XᵀX and cross = XᵀY."""
    size, basis = np.linalg.eigh(gram)
    turned = basis.T @ cross
    scale = np.maximum(size, 0.0)[:, None]
    return [np.asarray(basis @ (turned / (scale + penalty))) for penalty in penalties]


def forecast(values: Array, weight: Array, rows: Integers) -> Array:
    """Forecasts (n, horizon) of one channel (N,) after `rows` (n,)."""
    view = np.lib.stride_tricks.sliding_window_view(values, len(weight))
    last = values[rows, None]
    return np.asarray((view[rows - len(weight) + 1] - last) @ weight + last)
