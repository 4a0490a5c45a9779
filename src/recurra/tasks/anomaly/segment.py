"""The segment head: how far each row is from what was normal in training, for as long as it lasts.

    l = ln(1 + d / r)         d: distance of the state from the memory, r: the memory's radius
    e ← e + (l − e) / 10      q ← max(e, q (1 − 1/4000)) while learning      g = e / q

A lane learns its first rows, as many as training had; then scale, memory and q stay as they are, so
a strange stretch stays strange. g is about 1 when a channel is as strange as it was once in 4,000
rows of training, which is 3.6 in −log10; and the surprise of a series of C channels is

    3.6 · [mean of g + sum of (g − 1 where g > 1)]

so one channel beyond all that it has shown is enough, and several count together.
"""

from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.interval import START, expect
from recurra.tasks.anomaly.lanes import Answer, Array, State
from recurra.tasks.anomaly.leaky import LARGEST, LeakyMeans, Scaler
from recurra.tasks.anomaly.memory import PrototypeMemory

LEARN = 1000
"""Rows that a lane learns when training did not see its series."""
TAUS = (10, 30, 100)
CAPACITY = 200
DRIFT = float(np.arcsinh(4.0))
SMOOTH, MEMORY = 10.0, 4000.0
RARE = float(np.log10(MEMORY))
_LEAST = 0.05


class SegmentHead:
    """Strangeness of each lane's row; everything it remembers is in the arrays of its state."""

    threshold = 4.0
    holds = True

    def __init__(self) -> None:
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
        }

    def step(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at x (L,); learn it while the lane is learning. The time of day is not used."""
        x = np.clip(x, -LARGEST, LARGEST)
        is_first = state["rows"] == 0
        learns = state["seen"] < state["learning"]
        mean, deviation = (part.copy() for part in self.scaler.scale(state))
        means, squares = state["means"], state["squares"]
        answered = expect(state, mean, deviation, means[:, 0], squares[:, 1], x)
        u = np.arcsinh(np.where(is_first, 0.0, (x - mean) / deviation))
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

    def join(self, surprise: Array) -> Array:
        """Surprise (S,) of the ratios g (S, C), NaN where there is none."""
        known = np.isfinite(surprise)
        ratio = np.where(known, surprise, 0.0)
        beyond = np.add.reduce(np.maximum(ratio - 1.0, 0.0), axis=1)
        mean = np.add.reduce(ratio, axis=1) / np.maximum(known.sum(axis=1), 1)
        return np.where(known.any(axis=1), RARE * (mean + beyond), np.nan)
