"""The segment head: how far each row is from what was normal in training, for as long as it lasts.

    l = ln(1 + d / r)         d: distance of the state from the memory, r: the memory's radius
    e ← e + (l − e) / 10      u: mean of e in training          strangeness = e / u

A lane learns its first rows, as many as training had; then scale, memory and u stay as they are, so
a strange stretch stays strange. With exponential tails the strangeness has mean 1, the sum over C
channels a gamma distribution, and its Chernoff bound gives the surprise:

    −ln P(sum ≥ s) ≥ s − C − C ln(s / C)     for s > C, else 0

Many channels a little strange together so count as much as one that is very strange.
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
SMOOTH, USUAL = 10.0, 1000.0
_LEAST = 0.01


class SegmentHead:
    """Strangeness of each lane's row; everything it remembers is in the arrays of its state."""

    threshold = 3.0
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
            "usual": np.zeros(lanes),
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
        pace = np.where(learns, 1.0 / np.minimum(state["seen"] + 1.0, USUAL), 0.0)
        state["usual"] += pace * (smooth - state["usual"])
        state["seen"] += 1
        drifted = (np.abs(means[:, 2]) > DRIFT) & (state["seen"] > TAUS[2])
        return Answer(smooth / np.maximum(state["usual"], _LEAST), *answered, drifted)

    def join(self, surprise: Array) -> Array:
        """Surprise (S,) of strangenesses (S, C), NaN where there is none."""
        known = np.isfinite(surprise)
        count = known.sum(axis=1)
        total = np.add.reduce(np.where(known, surprise, 0.0), axis=1)
        ratio = np.maximum(total / np.maximum(count, 1), 1.0)
        bound = count * (ratio - 1.0 - np.log(ratio)) / np.log(10)
        return np.where(count > 0, bound, np.nan)
