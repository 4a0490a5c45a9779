"""The segment head: how far each row is from what was normal in training, for as long as it lasts.

Two experts for each channel, whose evidence l is smoothed and held against the most of training:

    memory   l = ln(1 + d / r)      d: distance of the state from the memory, r: the memory's radius
    joint    l = |u − V Vᵀ u|       V: principal components of all channels, 90 % of the variance
    e ← e + (l − e) / τ      q ← max(e, q (1 − 1/4000)) while learning      g = e / q

A lane learns its first rows, as many as training had; then scale, memory, V and q stay as they are,
so a strange stretch stays strange. g is about 1 when a channel is as strange as it was once in
4,000 rows of training, which is 3.6 in −log10; u = asinh(z) grows without bound, but not so fast
that one channel hides all others. With several channels g² is that of the joint expert and a tenth
of the memory's; with one there is the memory alone. The surprise of a series is 3.6 times the mean
of its channels' g. V is found anew whenever the rows learned have doubled.
"""

from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.interval import START, expect
from recurra.tasks.anomaly.lanes import Answer, Array, Flags, State, Whole
from recurra.tasks.anomaly.leaky import LARGEST, LeakyMeans, Scaler, changes
from recurra.tasks.anomaly.memory import PrototypeMemory

LEARN = 1000
"""Rows that a lane learns when training did not see its series."""
TAUS = (10, 30, 100)
CAPACITY = 200
DRIFT = float(np.arcsinh(4.0))
SMOOTH, JOINT_SMOOTH, MEMORY = 5.0, 20.0, 4000.0
FIRST = 256
"""Rows after which the components are found first; they are used once there are twice as many."""
RARE = float(np.log10(MEMORY))
_LEAST, _JOINT_LEAST = 0.05, 0.1
_SHARE, _MOST = 0.9, 30.0
_PART = 0.1  # of the memory's g², where there is a joint expert


class SegmentHead:
    """Strangeness of each lane's rows; everything it remembers is in the arrays of its state."""

    threshold = 2.0 * RARE
    holds = True

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.scaler = Scaler()
        self.leaky = LeakyMeans(TAUS)
        self.memory = PrototypeMemory([4], [CAPACITY])

    def initial_state(self, lanes: int) -> State:
        """A state that has seen nothing."""
        return {
            **self.scaler.initial_state(lanes),
            **self.leaky.initial_state(lanes),
            **self.memory.initial_state(lanes),
            "seen": np.zeros(lanes, np.int64),
            "learning": np.full(lanes, LEARN),
            "last": np.zeros(lanes),
            "smooth": np.zeros(lanes),
            "most": np.full(lanes, _LEAST),
            "reach": np.full(lanes, START),
            **(self._initial_joint(lanes) if self.channels > 1 else {}),
        }

    def _initial_joint(self, lanes: int) -> State:
        """Of a series' joint rows each lane holds its own row: products (C,), rest (C,)."""
        return {
            "products": np.zeros((lanes, self.channels)),
            "rest": np.zeros((lanes, self.channels)),
            "joint_rows": np.zeros(lanes, np.int64),
            "joint_smooth": np.zeros(lanes),
            "joint_most": np.full(lanes, _JOINT_LEAST),
        }

    def run(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at rows x (T, L), and learn them while the lane is learning; no use of the clock."""
        x = np.minimum(np.maximum(x, -LARGEST), LARGEST)
        is_first = state["rows"] == 0
        if not is_first.any():
            is_first = None
        seen = state["seen"] + np.arange(len(x))[:, None]
        learns = seen < state["learning"]
        scale = self.scaler.run(state, x, learns)
        z = (x - scale[0]) / scale[1]
        if is_first is not None:
            z[0, is_first] = 0.0
        u = np.arcsinh(z)
        means, squares = self.leaky.run(state, u[:, :, None], is_first)
        answered = expect(state, scale, means[:-1, :, 0], squares[:-1, :, 1], u, x, is_first)
        columns = [u, changes(state, u, is_first), means[1:, :, 0], np.sqrt(squares[1:, :, 0])]
        features = np.stack(columns, axis=2).astype(np.float32)
        distance, radius = self.memory.run(state, features, learns)
        strange = np.log1p(distance[:, :, 0] / radius[:, :, 0])
        ratio = self._against_most(state, strange, learns)
        state["seen"] += len(x)
        drifted = (np.abs(means[1:, :, 2]) > DRIFT) & (seen >= TAUS[2])
        return Answer(ratio, *answered, u, drifted)

    def _against_most(self, state: State, strange: Array, learns: Flags) -> Array:
        """g (T, L) of the memories."""
        smooth, most = state["smooth"], state["most"]
        ratio = np.empty(strange.shape)
        for t, row in enumerate(strange):
            smooth += (row - smooth) / SMOOTH
            np.divide(smooth, most, out=ratio[t])
            faded = np.maximum(most * (1.0 - 1.0 / MEMORY), _LEAST)
            most[...] = np.where(learns[t], np.maximum(smooth, faded), most)
        return ratio

    def together(self, lanes: State, ratio: Array, u: Array, known: Flags) -> Array:
        """g (T, S, C) of each channel after its lanes were run, with the joint expert's part."""
        if self.channels == 1:
            return ratio
        # How many values each lane had seen after each row.
        seen = np.cumsum(known, axis=0)
        seen += lanes["seen"].reshape(known.shape[1:]) - seen[-1]
        still = seen <= lanes["learning"].reshape(known.shape[1:])
        joint, found = np.empty(ratio.shape), np.empty((*ratio.shape[:2], 1), bool)
        u = np.where(known, u, 0.0)
        for t in range(len(ratio)):
            joint[t], found[t] = self._joint(lanes, u[t], np.any(still[t], axis=1), known[t])
        both = np.sqrt(joint**2 + _PART * np.nan_to_num(ratio) ** 2)
        return np.where(known, np.where(found, both, ratio), np.nan)

    def _joint(self, lanes: State, u: Array, learns: Flags, known: Flags) -> tuple[Array, Flags]:
        """The joint expert's g (S, C) of one row, and whether it is there yet (S, 1)."""
        rest = lanes["rest"].reshape(len(u), self.channels, self.channels)
        # Multiplied and added up by hand: a matrix product's bits depend on how many there are.
        away = np.abs(np.add.reduce(rest * u[:, None, :], axis=2))
        smooth, most = (lanes[f"joint_{name}"].reshape(u.shape) for name in ("smooth", "most"))
        smooth += (away - smooth) / JOINT_SMOOTH
        joint = smooth / most
        found = lanes["joint_rows"].reshape(u.shape)[:, :1] >= 2 * FIRST
        if learns.any():
            faded = np.maximum(most * (1.0 - 1.0 / MEMORY), _JOINT_LEAST)
            most[learns] = np.maximum(smooth, faded)[learns]
            self._learn_joint(lanes, u, np.flatnonzero(learns & known.any(axis=1)))
        return joint, found

    def _learn_joint(self, lanes: State, u: Array, series: Whole) -> None:
        """Take in u (S, C) of some series; when their rows have doubled, find the components."""
        square = (len(u), self.channels, self.channels)
        products, rest = lanes["products"].reshape(square), lanes["rest"].reshape(square)
        rows = lanes["joint_rows"].reshape(len(u), self.channels)
        products[series] += u[series, :, None] * u[series, None, :]
        rows[series] += 1
        for n in series:
            count = int(rows[n, 0])
            if count >= FIRST and count & (count - 1) == 0:
                rest[n] = unexplained(products[n] / count)

    def join(self, surprise: Array) -> Array:
        """Surprise (...,) of g (..., C), NaN where there is none: their mean, in −log10."""
        known = np.isfinite(surprise)
        held = np.minimum(np.where(known, surprise, 0.0), _MOST)
        mean = np.add.reduce(held, axis=-1) / np.maximum(known.sum(axis=-1), 1)
        return np.where(known.any(axis=-1), RARE * mean, np.nan)


def unexplained(moments: Array) -> Array:
    """I − V Vᵀ (C, C) for the fewest principal components V with 90 % of the variance."""
    strength, components = np.linalg.eigh(moments)
    strength, components = strength[::-1], components[:, ::-1]
    share = np.cumsum(strength) / max(float(strength.sum()), 1e-300)
    kept = components[:, : int(np.searchsorted(share, _SHARE)) + 1]
    return np.asarray(np.eye(len(moments)) - kept @ kept.T)
