"""The value that was expected, and an interval that keeps its promise as the stream goes on."""

from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.lanes import Array, State

OUTSIDE = 0.02
"""Share of values that the interval is meant to leave out."""
START = 3.0
_PACE = 0.05
_WIDEST = 100.0


def expect(
    state: State, mean: Array, deviation: Array, middle: Array, square: Array, x: Array
) -> tuple[Array, Array, Array]:
    """Expected value, lower and upper end (L,) before x (L,) is known; then x corrects the width.

    expected = m + s · sinh(m_τ)      ends = m + s · sinh(m_τ ± reach · s_τ)
    log reach ← log reach + 0.05 · ((x outside) − 0.02)

    `middle` and `square` are m_τ and s_τ² of u = asinh((x − m) / s). At the first row of a lane,
    where `mean` says nothing, all three are x.

    Source: Gibbs, Candès 2021, "Adaptive Conformal Inference", eq. 2, on the width's logarithm.
    """
    reach = state["reach"]
    spread = np.sqrt(square) * reach
    is_first = state["rows"] == 0
    expected, lower, upper = (
        np.where(is_first, x, mean + deviation * np.sinh(np.clip(part, -50.0, 50.0)))
        for part in (middle, middle - spread, middle + spread)
    )
    missed = (x < lower) | (x > upper)
    reach *= np.exp(_PACE * np.where(missed, 1 - OUTSIDE, -OUTSIDE))
    np.clip(reach, 1.0, _WIDEST, out=reach)
    return expected, lower, upper
