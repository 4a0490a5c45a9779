"""The forecaster's head: how far a row is from what a learned network expected of it.

    S = [rare(±(x − expected)) + rare(d)] / 2

`rare` is the surprise of `returns`, `expected` the median that the GRU of `network.py` gave after
the row before, in the units of the data, and d the distance of the GRU's state from all that a
prototype memory holds. The weights stay as training left them; everything else learns on.

Steps are plain numpy, one row after another, whose bits do not depend on what is beside a lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from recurra.tasks.anomaly.interval import expect
from recurra.tasks.anomaly.lanes import Answer, Array, Flags, State, join_rarest
from recurra.tasks.anomaly.leaky import LARGEST, LeakyMeans, Scaler, changes, scaled
from recurra.tasks.anomaly.memory import PrototypeMemory
from recurra.tasks.anomaly.returns import ReturnPeriods

LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)
INPUTS = 4
"""u, its last change, sine and cosine of the time of day."""
DRIFT = float(np.arcsinh(4.0))
_LEVEL, _CAPACITY = 100, 400
_REACH = 2.0
_NORMAL = [NormalDist().inv_cdf(level) for level in LEVELS]
_GAPS = np.array([_NORMAL[1] - _NORMAL[0], -_NORMAL[1], 1.0, _NORMAL[3], _NORMAL[4] - _NORMAL[3]])
_STARTS = np.log(np.expm1(_GAPS))
"""With these added to free numbers of 0, the quantiles are those of a normal distribution."""


class ForecastHead:
    """Surprise of each lane's rows by a network's forecasts.

    weights are the named numbers that `network.learn_weights` returns.
    """

    threshold = 1.7
    holds = False

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._w = weights
        self.hidden_size = weights["gru.weight_hh_l0"].shape[1]
        self.scaler = Scaler()
        self.level = LeakyMeans((_LEVEL,))
        self.memory = PrototypeMemory([self.hidden_size], [_CAPACITY])
        self.returns = ReturnPeriods(3)

    def initial_state(self, lanes: int) -> State:
        """A state that has seen nothing."""
        return {
            **self.scaler.initial_state(lanes),
            **self.level.initial_state(lanes),
            **self.memory.initial_state(lanes),
            **self.returns.initial_state(lanes),
            "h": np.zeros((lanes, self.hidden_size)),
            "ahead": np.zeros((lanes, len(LEVELS))),
            "last": np.zeros(lanes),
            "reach": np.full(lanes, _REACH),
        }

    def run(self, state: State, x: Array, clock: Array) -> Answer:
        """Look at rows x (T, L) with clock (T, L, 2), sine and cosine of the time of day."""
        x = np.minimum(np.maximum(x, -LARGEST), LARGEST)
        row = state["rows"].copy()
        rows = row + np.arange(len(x))[:, None]
        is_first = row == 0 if row.min() == 0 else None
        scale = self.scaler.run(state, x)
        u = scaled(x, scale, rows)
        means, _ = self.level.run(state, u[:, :, None], is_first)
        inputs = np.stack([u, changes(state, u, is_first), clock[..., 0], clock[..., 1]], axis=2)
        h = self._states(state["h"], inputs)
        ahead = np.concatenate([state["ahead"][None], u[:, :, None] + self._quantiles(h)])
        state["h"][...], state["ahead"][...] = h[-1], ahead[-1]
        middle, spread = ahead[:-1, :, 2], (ahead[:-1, :, 3] - ahead[:-1, :, 1]) / 2
        square = (spread / _NORMAL[3]) ** 2
        interval = expect(state, scale, middle, square, u, x, is_first)
        distance, _ = self.memory.run(state, h.astype(np.float32))
        away = x - interval[0]
        asked = np.stack([away, -away, distance[:, :, 0]], axis=2)
        rare = self.returns.run(state, asked, row)
        surprise = (np.maximum(rare[:, :, 0], rare[:, :, 1]) + rare[:, :, 2]) / 2
        drifted = (np.abs(means[1:, :, 0]) > DRIFT) & (rows >= _LEVEL)
        return Answer(surprise, *interval, x, drifted)

    def together(self, lanes: State, surprise: Array, detail: Array, known: Flags) -> Array:
        """The same: each channel is surprising by itself."""
        return surprise

    def join(self, surprise: Array) -> Array:
        """As `join_rarest`."""
        return join_rarest(surprise)

    def _states(self, h: Array, inputs: Array) -> Array:
        """The states (T, L, H) after each of inputs (T, L, 4), from h (L, H); torch's equations."""
        size, w = self.hidden_size, self._w
        projected = _product(w["gru.weight_ih_l0"], inputs) + w["gru.bias_ih_l0"]
        made = np.empty((*inputs.shape[:2], size))
        for t, part in enumerate(projected):
            from_h = _product(w["gru.weight_hh_l0"], h) + w["gru.bias_hh_l0"]
            gates = 1 / (1 + np.exp(-(part[:, : 2 * size] + from_h[:, : 2 * size])))
            r, z = gates[:, :size], gates[:, size:]
            n = np.tanh(part[:, 2 * size :] + r * from_h[:, 2 * size :])
            h = made[t] = (1 - z) * n + z * h
        return made

    def _quantiles(self, h: Array) -> Array:
        """What the network says of the next row, (..., 5), from h (..., H), less u."""
        free = _product(self._w["head.weight"], h) + self._w["head.bias"]
        gaps = np.logaddexp(0.0, free + _STARTS)
        middle = free[..., 2]
        made = np.empty(free.shape)
        made[..., 2] = middle
        made[..., 1] = middle - gaps[..., 1]
        made[..., 0] = made[..., 1] - gaps[..., 0]
        made[..., 3] = middle + gaps[..., 3]
        made[..., 4] = made[..., 3] + gaps[..., 4]
        return made


def weight_shapes(hidden_size: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a network's weights."""
    return {
        "gru.weight_ih_l0": (3 * hidden_size, INPUTS),
        "gru.weight_hh_l0": (3 * hidden_size, hidden_size),
        "gru.bias_ih_l0": (3 * hidden_size,),
        "gru.bias_hh_l0": (3 * hidden_size,),
        "head.weight": (len(LEVELS), hidden_size),
        "head.bias": (len(LEVELS),),
    }


def _product(weight: Array, x: Array) -> Array:
    """W x (..., M) of weight (M, N), x (..., N); a matrix product's bits depend on its size."""
    return np.asarray(np.add.reduce(weight * x[..., None, :], axis=-1))
