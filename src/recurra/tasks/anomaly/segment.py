"""The segment head: how far each row is from what was normal in training, for as long as it lasts.

Two experts for each channel, whose evidence l is smoothed and held against the most of training:

    memory   l = ln(1 + d / r)      d: distance of the state from the memory, r: the memory's radius
    joint    l = |z − V Vᵀ z|       V: principal components of all channels, 90 % of the variance
    e ← e + (l − e) / τ      q ← max(e, q (1 − 1/4000)) while learning      g = e / q

A lane learns its first rows, as many as training had; then scale, memory, V and q stay as they are,
so a strange stretch stays strange. g is about 1 when a channel is as strange as it was once in
4,000 rows of training, which is 3.6 in −log10. The surprise of a series is 3.6 times the root mean
square of its channels' g, so one channel far beyond all that it has shown is enough, and several
add up. With several channels g² is that of the joint expert and a tenth of the memory's; with one
there is the memory alone. V is found anew whenever the rows learned have doubled.
"""

from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.interval import START, expect
from recurra.tasks.anomaly.lanes import Answer, Array, Flags, State, Whole
from recurra.tasks.anomaly.leaky import LARGEST, LeakyMeans, Scaler
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
_SHARE, _CLIP, _MOST = 0.9, 10.0, 30.0
_PART = 0.1  # of the memory's g², where there is a joint expert


class SegmentHead:
    """Strangeness of each lane's row; everything it remembers is in the arrays of its state."""

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
            "z": np.zeros(lanes),
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

    def step(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at x (L,); learn it while the lane is learning. The time of day is not used."""
        x = np.clip(x, -LARGEST, LARGEST)
        is_first = state["rows"] == 0
        learns = state["seen"] < state["learning"]
        mean, deviation = (part.copy() for part in self.scaler.scale(state))
        means, squares = state["means"], state["squares"]
        answered = expect(state, mean, deviation, means[:, 0], squares[:, 1], x)
        z = np.where(is_first, 0.0, (x - mean) / deviation)
        state["z"][...] = np.clip(z, -_CLIP, _CLIP)
        u = np.arcsinh(z)
        change = np.where(is_first, 0.0, u - state["last"])
        state["last"][...] = u
        self.leaky.step(means, squares, u, is_first)
        columns = [u, change, means[:, 0], np.sqrt(squares[:, 0])]
        features = np.stack(columns, axis=1).astype(np.float32)
        distance = self.memory.distances(state, features)
        self.memory.learn(state, features, distance, learns)
        self.scaler.learn(state, x, learns)
        strange = np.log1p(distance[:, 0] / state["radius"][:, 0])
        smooth = state["smooth"]
        smooth += (strange - smooth) / SMOOTH
        most = state["most"]
        ratio = smooth / most
        faded = np.maximum(most * (1.0 - 1.0 / MEMORY), _LEAST)
        most[...] = np.where(learns, np.maximum(smooth, faded), most)
        state["seen"] += 1
        drifted = (np.abs(means[:, 2]) > DRIFT) & (state["seen"] > TAUS[2])
        return Answer(ratio, *answered, drifted)

    def together(self, lanes: State, ratio: Array, known: Flags) -> Array:
        """g (S, C) of each channel after its lanes were stepped, with the joint expert's part."""
        if self.channels == 1:
            return ratio
        series = len(ratio)
        z = np.where(known, lanes["z"].reshape(known.shape), 0.0)
        rest = lanes["rest"].reshape(series, self.channels, self.channels)
        # Multiplied and added up by hand: a matrix product's bits depend on how many there are.
        away = np.abs(np.add.reduce(rest * z[:, None, :], axis=2))
        smooth, most = (lanes[f"joint_{name}"].reshape(known.shape) for name in ("smooth", "most"))
        smooth += (away - smooth) / JOINT_SMOOTH
        joint = smooth / most
        found = lanes["joint_rows"].reshape(known.shape)[:, :1] >= 2 * FIRST
        still = lanes["seen"] <= lanes["learning"]
        learns = np.any(still.reshape(known.shape), axis=1)
        faded = np.maximum(most * (1.0 - 1.0 / MEMORY), _JOINT_LEAST)
        most[learns] = np.maximum(smooth, faded)[learns]
        self._learn_joint(lanes, z, np.flatnonzero(learns & known.any(axis=1)))
        both = np.sqrt(joint**2 + _PART * np.nan_to_num(ratio) ** 2)
        return np.where(known, np.where(found, both, ratio), np.nan)

    def _learn_joint(self, lanes: State, z: Array, series: Whole) -> None:
        """Take in z (S, C) of some series; when their rows have doubled, find the components."""
        square = (len(z), self.channels, self.channels)
        products, rest = lanes["products"].reshape(square), lanes["rest"].reshape(square)
        rows = lanes["joint_rows"].reshape(len(z), self.channels)
        products[series] += z[series, :, None] * z[series, None, :]
        rows[series] += 1
        for n in series:
            count = int(rows[n, 0])
            if count >= FIRST and count & (count - 1) == 0:
                rest[n] = unexplained(products[n] / count)

    def join(self, surprise: Array) -> Array:
        """Surprise (S,) of g (S, C), NaN where there is none: the root mean square, in −log10."""
        known = np.isfinite(surprise)
        squares = np.minimum(np.where(known, surprise, 0.0), _MOST) ** 2
        mean = np.add.reduce(squares, axis=1) / np.maximum(known.sum(axis=1), 1)
        return np.where(known.any(axis=1), RARE * np.sqrt(mean), np.nan)


def unexplained(moments: Array) -> Array:
    """I − V Vᵀ (C, C) for the fewest principal components V with 90 % of the variance."""
    strength, components = np.linalg.eigh(moments)
    strength, components = strength[::-1], components[:, ::-1]
    share = np.cumsum(strength) / max(float(strength.sum()), 1e-300)
    kept = components[:, : int(np.searchsorted(share, _SHARE)) + 1]
    return np.asarray(np.eye(len(moments)) - kept @ kept.T)
