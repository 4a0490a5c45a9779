"""Moving means of the last w rows, for several w at once, in constant time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recurra.tasks.anomaly.lanes import Array, State, Whole


class MovingMeans:
    """Means of the last w rows, or of all while there are fewer.

    State: ring (L, W) of the last W = max(w) rows, sums (L, len(widths)). The sums are added up
    afresh at every W-th row, so that rounding does not grow with the length of the stream.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = np.array(widths)
        self.room = int(max(widths))

    def initial_state(self, lanes: int) -> State:
        return {"ring": np.zeros((lanes, self.room)), "sums": np.zeros((lanes, len(self.widths)))}

    def step(self, state: State, x: Array, row: Whole) -> Array:
        """Means (L, len(widths)) after x (L,) at row (L,), counted from 0."""
        ring, sums = state["ring"], state["sums"]
        lanes = np.arange(len(x))
        at = row % self.room
        gone = ring[lanes[:, None], (row[:, None] - self.widths) % self.room]
        sums += x[:, None]
        sums -= np.where(row[:, None] >= self.widths, gone, 0.0)
        ring[lanes, at] = x
        for lane in np.flatnonzero(at == self.room - 1):
            # Row room - 1 of a round: the ring lies in the order of time.
            sums[lane] = [ring[lane, self.room - width :].sum() for width in self.widths]
        return np.asarray(sums / np.minimum(row[:, None] + 1, self.widths))
