"""The value that was expected, and an interval that keeps its promise as the stream goes on."""

from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.lanes import Array, Flags, State

OUTSIDE = 0.02
"""Share of values that the interval is meant to leave out."""
START = 3.0
_PACE = 0.05
_WIDEST = 100.0
_WIDER, _CLOSER = np.exp(_PACE * (1 - OUTSIDE)), np.exp(-_PACE * OUTSIDE)
_FURTHEST = 50.0  # sinh of more is of no use


def expect(
    state: State,
    scale: tuple[Array, Array],
    middle: Array,
    square: Array,
    u: Array,
    x: Array,
    is_first: Flags | None,
) -> tuple[Array, Array, Array]:
    """Expected value, lower and upper end (T, L) before each row is known; it corrects the width.

    expected = m + s · sinh(m_τ)      ends = m + s · sinh(m_τ ± reach · s_τ)
    log reach ← log reach + 0.05 · ((|u − m_τ| > reach · s_τ) − 0.02)

    scale is m and s, `middle` and `square` are m_τ and s_τ² of u = asinh((x − m) / s), all (T, L)
    and from before the row. Where `is_first` (L,), the first row is the first of its lane, of which
    nothing was known: all three are x. None: nowhere.

    Source: Gibbs, Candès 2021, "Adaptive Conformal Inference", eq. 2, on the width's logarithm.
    """
    reach, root, away = state["reach"], np.sqrt(square), np.abs(u - middle)
    spread = np.empty(x.shape)
    for t in range(len(x)):
        np.multiply(root[t], reach, out=spread[t])
        reach *= np.where(away[t] > spread[t], _WIDER, _CLOSER)
        np.minimum(np.maximum(reach, 1.0, out=reach), _WIDEST, out=reach)
    ends = np.empty((3, *x.shape))
    ends[0] = middle
    np.subtract(middle, spread, out=ends[1])
    np.add(middle, spread, out=ends[2])
    np.minimum(np.maximum(ends, -_FURTHEST, out=ends), _FURTHEST, out=ends)
    made = scale[0] + scale[1] * np.sinh(ends)
    if is_first is not None:
        made[:, 0, is_first] = x[0, is_first]
    return made[0], made[1], made[2]
