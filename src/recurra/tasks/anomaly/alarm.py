"""The alarm head: how surprising one row of one lane is.

    S = [rare(±x) + 2 · mean over memories of rare(d) + ½ · mean over w of rare(±mean_w)] / 3½

`rare` is the surprise of `returns`: of the level x itself, of the distance d of the recurrent state
from everything that the prototype memories hold, and of the mean of the last w rows. S is so a
weighted mean of −log10 of tail probabilities. A strange stretch is learned as it comes, and is soon
normal: the head answers when something begins, not how long it lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recurra.tasks.anomaly.interval import START, expect
from recurra.tasks.anomaly.lanes import Answer, Array, Flags, State
from recurra.tasks.anomaly.leaky import LARGEST, LeakyMeans, Scaler
from recurra.tasks.anomaly.means import MovingMeans
from recurra.tasks.anomaly.memory import Features, PrototypeMemory
from recurra.tasks.anomaly.returns import ReturnPeriods

WEIGHTS = {"level": 1.0, "memory": 2.0, "means": 0.5}
WIDTHS = (5, 10, 30, 100)
DRIFT = float(np.arcsinh(4.0))
"""Level of u = asinh(z) beyond which a mean over 100 rows counts as a shift."""
_MEAN, _SPREAD, _LEVEL = 10, 30, 100  # time constants of the interval, and of the drift


@dataclass(frozen=True)
class FeatureSet:
    """What one memory looks at: u, its last change, (m_τ, s_τ) for some τ, the time of day."""

    taus: tuple[int, ...]
    clock: float = 0.0
    squash: float = 1.0
    capacity: int = 400

    @property
    def size(self) -> int:
        return 2 + 2 * len(self.taus) + (2 if self.clock else 0)


FEATURE_SETS = (
    FeatureSet((10,)),
    FeatureSet((30,)),
    FeatureSet((10,), clock=1.0),
    FeatureSet((10,), clock=0.25),
    FeatureSet((5, 15, 50)),
    FeatureSet((3, 10, 30, 100), clock=0.25),
    FeatureSet((3, 10, 30), clock=1.0),
    FeatureSet((10,), squash=4.0),
    FeatureSet((10,), squash=2.0),
    FeatureSet((10,), capacity=200),
)


class AlarmHead:
    """Surprise of each lane's row; everything it remembers is in the arrays of its state.

    squash is the size of z up to which u = squash · asinh(z / squash) is nearly linear; there is
    one set of leaky means for each that some memory uses.
    """

    threshold = 1.15
    holds = False

    def __init__(self, sets: tuple[FeatureSet, ...] = FEATURE_SETS) -> None:
        self.sets = sets
        self.scaler = Scaler()
        self.squashes = sorted({1.0, *(one.squash for one in sets)})
        self.leaky = [
            LeakyMeans(sorted({_MEAN, _SPREAD, _LEVEL, *_taus(sets, squash)}))
            for squash in self.squashes
        ]
        self.memory = PrototypeMemory([one.size for one in sets], [one.capacity for one in sets])
        self.means = MovingMeans(WIDTHS)
        self.returns = ReturnPeriods(2 + len(sets) + 2 * len(WIDTHS))

    def initial_state(self, lanes: int) -> State:
        """A state that has seen nothing."""
        state = {
            **self.scaler.initial_state(lanes),
            **self.memory.initial_state(lanes),
            **self.means.initial_state(lanes),
            **self.returns.initial_state(lanes),
            "origin": np.zeros(lanes),
            "reach": np.full(lanes, START),
        }
        for number, leaky in enumerate(self.leaky):
            part = {**leaky.initial_state(lanes), "last": np.zeros(lanes)}
            state |= {f"{name}{number}": values for name, values in part.items()}
        return state

    def step(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at x (L,) with clock (L, 2), sine and cosine of the time of day; learn it."""
        x = np.clip(x, -LARGEST, LARGEST)
        row = state["rows"].copy()
        is_first = row == 0
        state["origin"][is_first] = x[is_first]
        taus, means, squares = self.leaky[0].taus, state["means0"], state["squares0"]
        middle, square = means[:, taus.index(_MEAN)], squares[:, taus.index(_SPREAD)]
        interval = expect(state, *self.scaler.scale(state), middle, square, x)
        features = self._features(state, x, clock, is_first)
        distance = self.memory.distances(state, features)
        self.memory.learn(state, features, distance)
        self.scaler.learn(state, x)
        level = x - state["origin"]
        means = self.means.step(state, level, row)
        both = np.concatenate([level[:, None], means], axis=1)
        rare = self.returns.step(state, np.concatenate([both, -both, distance], axis=1), row)
        level_at = self.leaky[0].taus.index(_LEVEL)
        drifted = (np.abs(state["means0"][:, level_at]) > DRIFT) & (row >= _LEVEL)
        return Answer(self.combine(rare), *interval, drifted)

    def together(self, lanes: State, surprise: Array, known: Flags) -> Array:
        """The same: each channel is surprising by itself."""
        return surprise

    def join(self, surprise: Array) -> Array:
        """The largest of the channels (S, C), less log10 of their number; NaN without any."""
        known = np.isfinite(surprise)
        largest = np.max(np.where(known, surprise, -np.inf), axis=1)
        joined = np.maximum(largest - np.log10(np.maximum(known.sum(axis=1), 1)), 0.0)
        return np.where(known.any(axis=1), joined, np.nan)

    def combine(self, rare: Array, weights: Mapping[str, float] = WEIGHTS) -> Array:
        """S (L,) of the surprises (L, E) of level and means, the same with their signs changed, and
        the distances."""
        width = 1 + len(WIDTHS)
        both = np.maximum(rare[:, :width], rare[:, width : 2 * width])
        memory = np.add.reduce(rare[:, 2 * width :], axis=1) / len(self.sets)
        means = np.add.reduce(both[:, 1:], axis=1) / len(WIDTHS)
        total = weights["level"] * both[:, 0] + weights["memory"] * memory
        return np.asarray((total + weights["means"] * means) / sum(weights.values()))

    def _features(self, state: State, x: Array, clock: Array, is_first: Flags) -> Features:
        mean, deviation = self.scaler.scale(state)
        # Of one earlier row the deviation is not known yet.
        z = np.where(state["rows"] < 2, 0.0, (x - mean) / deviation)
        parts = []
        for number, (squash, leaky) in enumerate(zip(self.squashes, self.leaky, strict=True)):
            u = np.arcsinh(z / squash) * squash
            last = state[f"last{number}"]
            change = np.where(is_first, 0.0, u - last)
            last[...] = u
            means, squares = state[f"means{number}"], state[f"squares{number}"]
            leaky.step(means, squares, u, is_first)
            parts.append((u, change, means, np.sqrt(squares), leaky.taus))
        columns: list[Array] = []
        for one in self.sets:
            u, change, means, spreads, taus = parts[self.squashes.index(one.squash)]
            at = [taus.index(tau) for tau in one.taus]
            columns += [u, change, *(means[:, k] for k in at), *(spreads[:, k] for k in at)]
            if one.clock:
                columns += [one.clock * clock[:, 0], one.clock * clock[:, 1]]
        return np.stack(columns, axis=1).astype(np.float32)


def _taus(sets: tuple[FeatureSet, ...], squash: float) -> set[int]:
    return {tau for one in sets if one.squash == squash for tau in one.taus}
