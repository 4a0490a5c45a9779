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
_FLOOR = 0.01  # of |v|, added to b: after ties alone nothing is infinitely rare


class ReturnPeriods:
    """Return periods of several quantities. State: top (k, E) a lane, -inf where there is none."""

    def __init__(self, quantities: int, largest: int = LARGEST) -> None:
        self.quantities, self.largest = quantities, largest

    def initial_state(self, lanes: int) -> State:
        return {"top": np.full((lanes, self.largest, self.quantities), -np.inf)}

    def step(self, state: State, values: Array, row: Whole) -> Array:
        """Surprise (L, E) of values (L, E) at row (L,), counted from 0; then they are known."""
        top = state["top"]
        seen = row - BEGIN
        ready = seen >= self.largest
        lowest = top.min(axis=1)
        surprise = np.zeros(values.shape)
        if ready.any():
            with np.errstate(invalid="ignore", over="ignore"):
                excess = np.add.reduce(top, axis=1) / self.largest - lowest
                excess = np.maximum(excess + _FLOOR * np.abs(lowest), 1e-300)
                rate = np.log10(np.maximum(seen + 1, 1) / self.largest)
                rare = rate[:, None] + (values - lowest) / (excess * np.log(10))
            shown = ready[:, None] & (values > lowest)
            surprise = np.where(shown, np.clip(rare, 0.0, CAP), 0.0)
        enters = (values > lowest) & (seen >= 0)[:, None]
        if enters.any():
            lane, quantity = np.nonzero(enters)
            slot = np.argmin(top[lane, :, quantity], axis=1)
            top[lane, slot, quantity] = values[lane, quantity]
        return surprise
