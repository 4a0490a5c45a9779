"""How rare a value is: its return period, from the largest values seen before.

With v the smallest of the k largest earlier values, b their mean excess over v, and n the number of
earlier values, the tail is taken as exponential:

    P(value > s) = k / (n + 1) · exp(−(s − v) / b)          surprise = −log10 P, for s > v, else 0

Nothing is forgotten, so a value that was ever seen is never as rare again.

Source: peaks over threshold with a tail index of 0, Pickands 1975; Siffer et al. 2017, "Anomaly
Detection in Streams with Extreme Value Theory", section 4, without its threshold of fixed quantile.
"""

from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.lanes import Array, State, Whole

LARGEST = 25
"""k, the number of largest values that are kept."""
BEGIN = 20
"""Rows before the first that counts."""
CAP = 8.0
_LEAST = 1e-200
_FLOOR = 0.01  # of |v|, added to b: after ties alone nothing is infinitely rare


class ReturnPeriods:
    """Return periods of several quantities. State: top (k, E) a lane, -inf where there is none."""

    def __init__(self, quantities: int, largest: int = LARGEST) -> None:
        self.quantities, self.largest = quantities, largest

    def initial_state(self, lanes: int) -> State:
        return {"top": np.full((lanes, self.largest, self.quantities), -np.inf)}

    def run(self, state: State, values: Array, row: Whole) -> Array:
        """Surprise (T, L, E) of values (T, L, E), each row of which is known after its own.

        row (L,) is the number of the first row, counted from 0.
        """
        seen = row - BEGIN + np.arange(len(values))[:, None]  # (T, L)
        lowest, total = self._known(state, values, seen)
        late = seen >= self.largest
        every = bool(late.all())
        if not every:  # there are not enough yet, and those that are not there are infinite
            lowest, total = (np.where(late[:, :, None], part, 0.0) for part in (lowest, total))
        excess = total / self.largest - lowest
        excess = np.maximum(excess + _FLOOR * np.abs(lowest), _LEAST)
        rate = np.log10(np.maximum(seen + 1, 1) / self.largest)
        above = values - lowest
        rare = rate[:, :, None] + above / (excess * np.log(10))
        shown = above > 0 if every else late[:, :, None] & (above > 0)
        return np.where(shown, np.minimum(np.maximum(rare, 0.0), CAP), 0.0)

    def _known(self, state: State, values: Array, seen: Whole) -> tuple[Array, Array]:
        """The least and the sum (T, L, E) of the largest values before each row."""
        top = state["top"]
        lowest, total = top.min(axis=1), _sum(top)
        least, sums = np.empty(values.shape), np.empty(values.shape)
        may_enter = (values > lowest) & (seen >= 0)[:, :, None]
        start = 0
        for t in np.flatnonzero(may_enter.any(axis=(1, 2))).tolist():
            least[start : t + 1], sums[start : t + 1] = lowest, total
            start = t + 1
            lane, quantity = np.nonzero(may_enter[t] & (values[t] > lowest))
            if not len(lane):
                continue
            column = top[lane, :, quantity]  # (n, k)
            slot = column.argmin(axis=1)
            new = values[t, lane, quantity]
            top[lane, slot, quantity] = column[np.arange(len(lane)), slot] = new
            lowest[lane, quantity], total[lane, quantity] = column.min(axis=1), _sum(column)
        least[start:], sums[start:] = lowest, total
        return least, sums


def _sum(values: Array) -> Array:
    """The sum over axis 1, in its order: that of `np.sum` depends on the other axes."""
    return np.asarray(np.add.accumulate(values, axis=1)[:, -1])
