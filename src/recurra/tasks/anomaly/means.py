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

    def run(self, state: State, x: Array, row: Whole) -> Array:
        """Means (T, L, len(widths)) after each row of x (T, L), T up to W.

        row (L,) is the number of the first, counted from 0.
        """
        ring, sums, room = state["ring"], state["sums"], self.room
        lanes, steps = np.arange(x.shape[1]), np.arange(len(x))[:, None]
        rows = row + steps
        changes = np.empty((2 * len(x) + 1, *sums.shape))
        changes[0], changes[1::2] = sums, x[:, :, None]
        np.negative(self._gone(ring, x, row), out=changes[2::2])
        made = np.add.accumulate(changes, axis=0)[2::2]
        anew = room - 1 - row % room
        if anew.min() < len(x):
            self._add_up(ring, x, changes, made, anew)
        ring[lanes, rows % room] = x
        sums[...] = made[-1]
        return np.asarray(made / np.minimum(rows[:, :, None] + 1, self.widths))

    def _gone(self, ring: Array, x: Array, row: Whole) -> Array:
        """What each row puts out of each mean, (T, L, widths); 0 before the first row."""
        lanes, steps = np.arange(x.shape[1])[:, None], np.arange(len(x))[:, None]
        gone = ring[lanes, ((row + steps)[:, :, None] - self.widths) % self.room]
        for k, width in enumerate(self.widths.tolist()):
            if len(x) > width:
                gone[width:, :, k] = x[:-width]
        return np.asarray(gone)

    def _add_up(self, ring: Array, x: Array, changes: Array, made: Array, anew: Whole) -> None:
        """Correct the sums of lanes that come to the end of their ring, from there on."""
        for lane in np.flatnonzero(anew < len(x)).tolist():
            at = int(anew[lane])
            window = ring[lane].copy()  # that row is the last of the ring: it lies in time's order
            window[self.room - 1 - at :] = x[: at + 1, lane]
            rest = changes[2 * at + 2 :, lane]
            rest[0] = [window[self.room - width :].sum() for width in self.widths]
            made[at:, lane] = np.add.accumulate(rest, axis=0)[::2]
