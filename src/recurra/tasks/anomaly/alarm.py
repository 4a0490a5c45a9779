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
from recurra.tasks.anomaly.lanes import PIECE, Answer, Array, Flags, State, Whole, join_rarest
from recurra.tasks.anomaly.leaky import LARGEST, LeakyMeans, Scaler, changes
from recurra.tasks.anomaly.means import MovingMeans
from recurra.tasks.anomaly.memory import Features, PrototypeMemory
from recurra.tasks.anomaly.returns import ReturnPeriods

WEIGHTS = {"level": 1.0, "memory": 2.0, "means": 0.5}
WIDTHS = (5, 10, 30, 100)
_BOTH = 1 + len(WIDTHS)  # quantities that are rare in both directions
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
    FeatureSet((3, 10, 30, 100), clock=0.25),
    FeatureSet((3, 10, 30), clock=1.0),
    FeatureSet((5, 15, 50)),
    FeatureSet((10,), clock=1.0),
    FeatureSet((10,), clock=0.25),
    FeatureSet((10,)),
    FeatureSet((30,)),
    FeatureSet((10,), squash=4.0),
    FeatureSet((10,), squash=2.0),
    FeatureSet((10,), capacity=200),
)


class AlarmHead:
    """Surprise of each lane's rows; everything it remembers is in the arrays of its state.

    squash is the size of z up to which u = squash · asinh(z / squash) is nearly linear; there is
    one set of leaky means for each that some memory uses.
    """

    threshold = 1.15
    holds = False

    def __init__(self, sets: tuple[FeatureSet, ...] = FEATURE_SETS) -> None:
        self.sets = sets
        self.scaler = Scaler()
        self.squashes = np.array(sorted({1.0, *(one.squash for one in sets)}))
        kept = [(q, tau) for q, s in enumerate(self.squashes) for tau in _taus(sets, s)]
        self.leaky = LeakyMeans([tau for _, tau in kept], [q for q, _ in kept])
        self._middle, self._spread, self._level = (
            kept.index((0, tau)) for tau in (_MEAN, _SPREAD, _LEVEL)
        )
        self.memory = PrototypeMemory([one.size for one in sets], [one.capacity for one in sets])
        columns, weights = _columns(sets, list(self.squashes), kept)
        self._columns, self._weights = columns[self.memory.layout], weights[self.memory.layout]
        self.means = MovingMeans(WIDTHS)
        self.returns = ReturnPeriods(2 + len(sets) + 2 * len(WIDTHS))
        self._steps = np.arange(PIECE)[:, None]

    def initial_state(self, lanes: int) -> State:
        """A state that has seen nothing."""
        return {
            **self.scaler.initial_state(lanes),
            **self.leaky.initial_state(lanes),
            **self.memory.initial_state(lanes),
            **self.means.initial_state(lanes),
            **self.returns.initial_state(lanes),
            "origin": np.zeros(lanes),
            "reach": np.full(lanes, START),
            "last": np.zeros((lanes, len(self.squashes))),
        }

    def run(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at rows x (T, L) with clock (T, L, 2), sine and cosine of the time of day.

        Each is learned before the next. T is at most `PIECE`.
        """
        x = np.minimum(np.maximum(x, -LARGEST), LARGEST)
        row = state["rows"].copy()
        rows = row + self._steps[: len(x)]
        is_first = row == 0 if row.min() == 0 else None
        if is_first is not None:
            state["origin"][is_first] = x[0][is_first]
        scale = self.scaler.run(state, x)
        # Of one earlier row the deviation is not known yet.
        z = np.where(rows < 2, 0.0, (x - scale[0]) / scale[1])
        u = np.arcsinh(z[:, :, None] / self.squashes) * self.squashes
        means, squares = self.leaky.run(state, u, is_first)
        interval = expect(
            state,
            scale,
            means[:-1, :, self._middle],
            squares[:-1, :, self._spread],
            u[:, :, 0],
            x,
            is_first,
        )
        features = self._features(state, u, means[1:], squares[1:], clock, is_first)
        distance, _ = self.memory.run(state, features)
        level = x - state["origin"]
        asked = np.empty((*x.shape, self.returns.quantities))
        asked[:, :, 0] = level
        asked[:, :, 1:_BOTH] = self.means.run(state, level, row)
        np.negative(asked[:, :, :_BOTH], out=asked[:, :, _BOTH : 2 * _BOTH])
        asked[:, :, 2 * _BOTH :] = distance
        rare = self.returns.run(state, asked, row)
        drifted = (np.abs(means[1:, :, self._level]) > DRIFT) & (rows >= _LEVEL)
        return Answer(self.combine(rare), *interval, level, drifted)

    def together(self, lanes: State, surprise: Array, detail: Array, known: Flags) -> Array:
        """The same: each channel is surprising by itself."""
        return surprise

    def join(self, surprise: Array) -> Array:
        """As `join_rarest`."""
        return join_rarest(surprise)

    def combine(self, rare: Array, weights: Mapping[str, float] = WEIGHTS) -> Array:
        """S (...,) of the surprises (..., E) of level and means, the same with their signs changed,
        and the distances."""
        both = np.maximum(rare[..., :_BOTH], rare[..., _BOTH : 2 * _BOTH])
        memory = _sum(rare[..., 2 * _BOTH :]) / len(self.sets)
        means = _sum(both[..., 1:]) / len(WIDTHS)
        total = weights["level"] * both[..., 0] + weights["memory"] * memory
        return np.asarray((total + weights["means"] * means) / sum(weights.values()))

    def _features(
        self,
        state: State,
        u: Array,
        means: Array,
        squares: Array,
        clock: Array,
        is_first: Flags | None,
    ) -> Features:
        """What the memories look at, (T, L, F), with u (T, L, Q) and the means after it."""
        parts = [u, changes(state, u, is_first), means, np.sqrt(squares), clock]
        every = np.concatenate(parts, axis=2)[:, :, self._columns] * self._weights
        return np.asarray(every, np.float32)


def _sum(values: Array) -> Array:
    """The sum over the last axis, in its order."""
    return np.asarray(np.add.accumulate(values, axis=-1)[..., -1])


def _columns(
    sets: tuple[FeatureSet, ...], squashes: list[float], kept: list[tuple[int, int]]
) -> tuple[Whole, Array]:
    """Which of (u, changes, means, spreads, clock) each feature is, and its weight."""
    width, first = len(squashes), 2 * len(squashes)
    columns, weights = [], []
    for one in sets:
        q = squashes.index(one.squash)
        at = [first + kept.index((q, tau)) for tau in one.taus]
        columns += [q, width + q, *at, *(k + len(kept) for k in at)]
        weights += [1.0] * (2 + 2 * len(at))
        if one.clock:
            columns += [first + 2 * len(kept), first + 2 * len(kept) + 1]
            weights += [one.clock] * 2
    return np.array(columns), np.array(weights)


def _taus(sets: tuple[FeatureSet, ...], squash: float) -> list[int]:
    return sorted(
        {_MEAN, _SPREAD, _LEVEL, *(t for s in sets if s.squash == squash for t in s.taus)}
    )
