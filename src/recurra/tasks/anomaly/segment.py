"""The segment head: how far each row is from what was normal in training, for as long as it lasts.

Of each channel, d is the distance of (u, its change, m_10, s_10) from a prototype memory, where
u = asinh(z), and what is held against it is how far it has lately been:

    b ← b + (d − b) / 1000          e = max(d − b, 0)
    a ← a + (e − a) / 15            s = e + a / 2
    y ← y + (s − y) / min(n + 1, max(50, N / 4))   while learning the n-th of N rows; y_0 = 1
    surprise = Σ s / (ln 10 · Σ y)                   over the channels of a series

A lane learns its first rows, as many as training had; then memory and y stay as they are. So a
strange stretch stays strange, and what lasts for a thousand rows becomes the new normal. d grows
with ln z: a channel that is far off counts for more than one that is a little off, but does not
hide all others. The surprise is −log10 of the tail of s, were it exponential with the mean y.

What training had sets the scale of z, m and s of its rows, before the first of them is watched:
prototypes of one scale say nothing about distances in another. Without training the scale is
learned with the rows.
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
LASTING, SMOOTH, PART = 1000.0, 15.0, 0.5
_SHORTEST, _SHARE = 50, 4  # of the yardstick's rows: these, or a quarter of all
_LEAST = 0.01  # of the yardstick: what never varied is not infinitely strange when it does


class SegmentHead:
    """Strangeness of each lane's rows; everything it remembers is in the arrays of its state."""

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
            "scaled": np.zeros(lanes, bool),
            "seen": np.zeros(lanes, np.int64),
            "learning": np.full(lanes, LEARN),
            "last": np.zeros(lanes),
            "lasting": np.zeros(lanes),
            "smooth": np.zeros(lanes),
            "usual": np.ones(lanes),
            "reach": np.full(lanes, START),
        }

    def run(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at rows x (T, L), and learn them while the lane is learning; no use of the clock.

        The answer's surprise is s, its detail y before each row.
        """
        x = np.minimum(np.maximum(x, -LARGEST), LARGEST)
        is_first = state["seen"] == 0
        if not is_first.any():
            is_first = None
        seen = state["seen"] + np.arange(len(x))[:, None]
        learns = seen < state["learning"]
        scale = self.scaler.run(state, x, learns & ~state["scaled"])
        z = (x - scale[0]) / scale[1]
        if is_first is not None:
            z[0, is_first & ~state["scaled"]] = 0.0
        u = np.arcsinh(z)
        means, squares = self.leaky.run(state, u[:, :, None], is_first)
        answered = expect(state, scale, means[:-1, :, 0], squares[:-1, :, 1], u, x, is_first)
        columns = [u, changes(state, u, is_first), means[1:, :, 0], np.sqrt(squares[1:, :, 0])]
        features = np.stack(columns, axis=2).astype(np.float32)
        distance, _ = self.memory.run(state, features, learns)
        evidence, usual = self._evidence(state, distance[:, :, 0], seen, learns)
        state["seen"] += len(x)
        drifted = (np.abs(means[1:, :, 2]) > DRIFT) & (seen >= TAUS[2])
        return Answer(evidence, *answered, usual, drifted)

    def _evidence(
        self, state: State, distance: Array, seen: Whole, learns: Flags
    ) -> tuple[Array, Array]:
        """s and y (T, L) of distances d (T, L), y from before each row."""
        lasting, smooth, usual = state["lasting"], state["smooth"], state["usual"]
        evidence, before = np.empty(distance.shape), np.empty(distance.shape)
        above = np.empty(len(lasting))
        longest = np.maximum(state["learning"] // _SHARE, _SHORTEST)
        rate = np.where(learns, 1.0 / np.minimum(seen + 2, longest), 0.0)
        for t, row in enumerate(distance):
            np.maximum(row - lasting, 0.0, out=above)
            lasting += (row - lasting) / LASTING
            smooth += (above - smooth) / SMOOTH
            np.add(above, PART * smooth, out=evidence[t])
            before[t] = usual
            usual += (evidence[t] - usual) * rate[t]
        return evidence, before

    def together(self, lanes: State, surprise: Array, detail: Array, known: Flags) -> Array:
        """Each channel's part (T, S, C) of the surprise: s / (ln 10 · Σ y), y of known channels."""
        usual = np.add.reduce(np.where(known, detail, 0.0), axis=2)[:, :, None]
        return np.asarray(surprise / (np.log(10.0) * np.maximum(usual, _LEAST)))

    def join(self, surprise: Array) -> Array:
        """The sum of the channels (..., C), NaN where there is none."""
        known = np.isfinite(surprise)
        total = np.add.reduce(np.where(known, surprise, 0.0), axis=-1)
        return np.where(known.any(axis=-1), total, np.nan)


def scale_of(values: Array) -> State:
    """What `Scaler` makes of rows (n, C), NaN where missing: its state, an array (C,) each."""
    scaler = Scaler()
    state = scaler.initial_state(values.shape[1])
    scaler.run(state, np.clip(values, -LARGEST, LARGEST), np.isfinite(values))
    return state
