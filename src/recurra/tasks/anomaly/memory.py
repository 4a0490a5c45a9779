"""A prototype memory: which states have been here before, kept for ever in bounded space.

    d = min over prototypes p of ‖f − p‖;   if d > r, f becomes a prototype

Beyond its capacity the memory is thinned: r grows by a quarter, and a prototype stays if it is
further than r from all that came before it and stay. So the memory covers everything that was ever
seen, ever more coarsely, and forgets nothing.

Several memories, of different features, are held side by side in one array, laid out as the first
feature of each, then the second of each that has one, and so on. So the squares of all memories are
added up in a few long sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recurra.tasks.anomaly.lanes import Array, Flags, State, Whole

START = 0.05
GROWTH = 1.25
_STRIP = 16  # prototypes are looked at in strips of this many
_CACHED = 1 << 17  # numbers of prototypes that are worked on at a time
Features = npt.NDArray[np.float32]


class PrototypeMemory:
    """M memories with capacities of their own, of so many features each, the largest first.

    `layout` (F,) says where to find the features, were they those of one memory after another.
    State: prototypes (L, F, K) float32, infinite where there is none, count (L, M), radius (L, M).
    """

    def __init__(self, sizes: Sequence[int], capacities: Sequence[int]) -> None:
        assert list(sizes) == sorted(sizes, reverse=True), sizes
        self._capacities = np.array(capacities)
        having = [sum(size > place for size in sizes) for place in range(sizes[0])]
        ends = np.cumsum(having)
        self._parts = [
            (int(end) - count, int(end), count) for end, count in zip(ends, having, strict=True)
        ]
        starts = np.cumsum([0, *sizes[:-1]])
        self.layout = np.concatenate([starts[:n] + place for place, n in enumerate(having)])
        self._rows = [
            np.array([start + number for start, _, count in self._parts if number < count])
            for number in range(len(sizes))
        ]
        self.room = -(-max(capacities) // _STRIP) * _STRIP
        self._block = max(4, _CACHED // (int(ends[-1]) * self.room))
        self._work = np.empty(self._block * int(ends[-1]) * self.room, np.float32)

    def initial_state(self, lanes: int) -> State:
        return {
            "prototypes": np.full((lanes, len(self.layout), self.room), np.inf, np.float32),
            "count": np.zeros((lanes, len(self._rows)), np.int64),
            "radius": np.full((lanes, len(self._rows)), START),
        }

    def run(
        self, state: State, features: Features, learns: Flags | None = None
    ) -> tuple[Array, Array]:
        """Distance (T, L, M) of each row of features (T, L, F) from all that came before it.

        It is 0 without any. A row that is further than the radius is remembered where `learns`
        (T, L); everywhere when None. The second array are the radii after each row.
        """
        is_new = not state["count"].all()
        distance = np.sqrt(self._nearest(state, features))
        new = distance > state["radius"]
        if learns is not None:
            new &= learns[:, :, None]
        radius = np.broadcast_to(state["radius"], distance.shape)
        if new.any():
            radius = np.empty(distance.shape)
            for t in range(len(features)):
                if new[t].any():
                    later = None if learns is None else learns[t:]
                    self._remember(state, features[t:], distance[t:], new[t:], later)
                radius[t] = state["radius"]
        if is_new:
            distance[np.isinf(distance)] = 0.0
        return distance.astype(np.float64), radius

    def _nearest(self, state: State, features: Features) -> Features:
        """Squared distance (T, L, M) from the nearest prototype; infinite without any."""
        prototypes, count = state["prototypes"], state["count"]
        steps, lanes, _ = features.shape
        nearest = np.empty((steps, lanes, count.shape[1]), np.float32)
        if steps == 1:
            for start in range(0, lanes, self._block):
                some = slice(start, start + self._block)
                stored = prototypes[some, :, : self._used(count[some])]
                self._squares(stored, features[0, some, :, None], nearest[0, some])
            return nearest
        for lane in range(lanes):
            stored = prototypes[lane, None, :, : self._used(count[lane])]
            for start in range(0, steps, self._block):
                some = slice(start, start + self._block)
                self._squares(stored, features[some, lane, :, None], nearest[some, lane])
        return nearest

    def _used(self, count: Whole) -> int:
        return max(_STRIP, -(-int(count.max()) // _STRIP) * _STRIP)

    def _squares(self, stored: Features, features: Features, nearest: Features) -> None:
        """The least over K of the squared distances of features (N, F, 1) from (N or 1, F, K)."""
        shape = (len(features), stored.shape[1], stored.shape[2])
        work = self._work[: shape[0] * shape[1] * shape[2]].reshape(shape)
        np.subtract(stored, features, out=work)
        np.multiply(work, work, out=work)
        np.minimum.reduce(self._summed(work), axis=2, out=nearest)

    def _summed(self, squares: Features) -> Features:
        """The sums over each memory's features: (N, M, K) of (N, F, K), which is written to."""
        total = squares[:, : self._parts[0][2]]
        for start, end, count in self._parts[1:]:
            total[:, :count] += squares[:, start:end]
        return total

    def _remember(
        self,
        state: State,
        features: Features,
        distance: Features,
        new: Flags,
        learns: Flags | None,
    ) -> None:
        """Store the first row's features where they are new, and say so to the rows after it."""
        lane, number = np.nonzero(new[0])
        at = state["count"][lane, number]
        sizes = [len(self._rows[n]) for n in number.tolist()]
        rows = np.concatenate([self._rows[n] for n in number.tolist()])
        lanes = np.repeat(lane, sizes)
        state["prototypes"][lanes, rows, np.repeat(at, sizes)] = features[0, lanes, rows]
        state["count"][lane, number] += 1
        later = features[1:]
        if len(later):
            some, place = np.unique(lane, return_inverse=True)
            apart = later[:, some] - features[0, some]
            apart *= apart
            squares = self._summed(apart.reshape(-1, apart.shape[2], 1))
            squares = squares.reshape(len(later), len(some), -1)[:, place, number]
            near = np.minimum(distance[1:, lane, number], np.sqrt(squares))
            distance[1:, lane, number] = near
        full = np.flatnonzero(at + 1 >= self._capacities[number])
        for n in full.tolist():
            self._thin(state, int(lane[n]), int(number[n]))
            if len(later):
                distance[1:, lane[n], number[n]] = self._anew(state, later, lane[n], number[n])
        if len(later):
            again = distance[1:, lane, number] > state["radius"][lane, number]
            new[1:, lane, number] = again if learns is None else again & learns[1:, lane]

    def _anew(self, state: State, features: Features, lane: int, number: int) -> Features:
        """Distance (T,) of one lane's features from one memory's prototypes."""
        stored = state["prototypes"][lane, :, : state["count"][lane, number]]
        total = np.zeros((len(features), stored.shape[1]), np.float32)
        for row in self._rows[number]:
            total += (stored[row] - features[:, lane, row, None]) ** 2
        return np.asarray(np.sqrt(total.min(axis=1)))

    def _thin(self, state: State, lane: int, number: int) -> None:
        """Grow the radius until there is room again."""
        rows = self._rows[number]
        while state["count"][lane, number] >= self._capacities[number]:
            state["radius"][lane, number] *= GROWTH
            points = state["prototypes"][lane, rows, : state["count"][lane, number]]
            kept = points[:, spread_out(points, float(state["radius"][lane, number]))]
            state["prototypes"][lane, rows] = np.inf
            state["prototypes"][lane, rows, : kept.shape[1]] = kept
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
