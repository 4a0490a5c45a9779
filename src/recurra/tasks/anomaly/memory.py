"""A prototype memory: which states have been here before, kept for ever in bounded space.

    d = min over prototypes p of ‖f − p‖;   if d > r, f becomes a prototype

Beyond its capacity the memory is thinned: r grows by a quarter, and a prototype stays if it is
further than r from all that came before it and stay. So the memory covers everything that was ever
seen, ever more coarsely, and forgets nothing.

Several memories, of different features, are held side by side in one array.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recurra.tasks.anomaly.lanes import Array, Flags, State

START = 0.05
GROWTH = 1.25
_STRIP = 16  # prototypes are looked at in strips of this many
_CACHED = 1 << 17  # numbers of prototypes that are worked on at a time
Features = npt.NDArray[np.float32]


class PrototypeMemory:
    """Memories over slices of one feature vector (F,), with sizes and capacities of their own.

    State: prototypes (L, F, K) float32, infinite where there is none, count (L, M), radius (L, M).
    """

    def __init__(self, sizes: Sequence[int], capacities: Sequence[int]) -> None:
        self.sizes, self.capacities = tuple(sizes), np.array(capacities)
        ends = np.cumsum(self.sizes)
        self.slices = [
            slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)
        ]
        self.room = -(-max(capacities) // _STRIP) * _STRIP
        self._block = max(4, _CACHED // (int(ends[-1]) * self.room))
        self._work = np.empty((self._block, int(ends[-1]), self.room), np.float32)
        self._squares = np.empty((self._block, len(self.sizes), self.room), np.float32)

    def initial_state(self, lanes: int) -> State:
        return {
            "prototypes": np.full((lanes, sum(self.sizes), self.room), np.inf, np.float32),
            "count": np.zeros((lanes, len(self.sizes)), np.int64),
            "radius": np.full((lanes, len(self.sizes)), START),
        }

    def distances(self, state: State, features: Features) -> Array:
        """Distance (L, M) of features (L, F) from the nearest prototype; 0 without any."""
        prototypes, count = state["prototypes"], state["count"]
        nearest = np.empty(count.shape, np.float32)
        for start in range(0, len(features), self._block):
            lanes = slice(start, min(start + self._block, len(features)))
            used = max(_STRIP, -(-int(count[lanes].max()) // _STRIP) * _STRIP)
            work = self._work[: lanes.stop - start, :, :used]
            squares = self._squares[: lanes.stop - start, :, :used]
            np.subtract(prototypes[lanes, :, :used], features[lanes, :, None], out=work)
            np.multiply(work, work, out=work)
            for number, part in enumerate(self.slices):
                np.add.reduce(work[:, part], axis=1, out=squares[:, number])
            np.minimum.reduce(squares, axis=2, out=nearest[lanes])
        return np.where(count > 0, np.sqrt(nearest), 0.0).astype(np.float64)

    def learn(
        self, state: State, features: Features, distance: Array, learns: Flags | None = None
    ) -> None:
        """Add the features that are further than the radius from all prototypes.

        Only in the lanes that learn (L,); in all of them when None.
        """
        new = (distance > state["radius"]) | (state["count"] == 0)
        if learns is not None:
            new &= learns[:, None]
        if not new.any():
            return
        count = state["count"]
        for number in np.flatnonzero(new.any(axis=0)):
            part = self.slices[number]
            lanes = np.flatnonzero(new[:, number])
            at = count[lanes, number]
            for column in range(part.start, part.stop):
                state["prototypes"][lanes, column, at] = features[lanes, column]
            count[lanes, number] += 1
            for lane in lanes[at + 1 >= self.capacities[number]]:
                self._thin(state, int(lane), int(number))

    def _thin(self, state: State, lane: int, number: int) -> None:
        """Grow the radius until there is room again."""
        stored = state["prototypes"][lane, self.slices[number]]
        while state["count"][lane, number] >= self.capacities[number]:
            state["radius"][lane, number] *= GROWTH
            points = stored[:, : state["count"][lane, number]]
            kept = points[:, spread_out(points, float(state["radius"][lane, number]))]
            stored[:] = np.inf
            stored[:, : kept.shape[1]] = kept
            state["count"][lane, number] = kept.shape[1]


def spread_out(points: Features, radius: float) -> npt.NDArray[np.int64]:
    """Which of points (F, n) stay when each must be further than `radius` from those before it."""
    apart = np.zeros((points.shape[1], points.shape[1]), np.float32)
    for row in points:
        apart += (row[:, None] - row) ** 2
    far = apart > np.float32(radius) ** 2
    stays = np.ones(points.shape[1], bool)
    for number in range(len(stays)):
        if stays[number]:
            stays[number + 1 :] &= far[number, number + 1 :]
    return np.flatnonzero(stays)
