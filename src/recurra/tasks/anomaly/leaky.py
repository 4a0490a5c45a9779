"""Leaky integrators: a causal scale for each lane, and running means and spreads at many speeds.

    z = (x − m) / s         m, s: mean and deviation of all earlier rows, learned from values
                            clipped to m ± 4 s once there are 50
    u = asinh(z)
    m_τ ← m_τ + (u − m_τ) / τ        v_τ ← (1 − 1/τ) (v_τ + (u − m_τ)² / τ)        s_τ = √v_τ

This is a linear recurrent network with fixed weights: its state is a handful of numbers, it costs
the same at every row, and nothing in it depends on rows to come.

Source: Welford 1962 for m and s; West 1979, "Updating mean and variance estimates", for v_τ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recurra.tasks.anomaly.lanes import Array, Flags, State, Whole

CLIP = 4.0
CLIP_AFTER = 50
LARGEST = 1e100
"""Values are held to ± this, so that their squares stay finite."""
SMALLEST = 1e-100
SCALE = ("rows", "mean", "moment")
"""The state of a `Scaler`, by name."""


class Scaler:
    """Mean and deviation of all earlier rows. State: rows (L,), mean (L,), moment (L,)."""

    def initial_state(self, lanes: int) -> State:
        return {
            "rows": np.zeros(lanes, np.int64),
            "mean": np.zeros(lanes),
            "moment": np.zeros(lanes),
        }

    def run(self, state: State, x: Array, learns: Flags | None = None) -> tuple[Array, Array]:
        """m and s before each row of x (T, L), (T, L) each; s is 1 where nothing has varied.

        Rows are learned where `learns` (T, L), all of them when None.
        """
        rows, mean, moment = state["rows"], state["mean"], state["moment"]
        if learns is not None and not learns.any():
            deviation = _deviation(rows, mean, moment)
            return np.broadcast_to(mean.copy(), x.shape), np.broadcast_to(deviation, x.shape)
        means, deviations = np.empty(x.shape), np.empty(x.shape)
        for t, value in enumerate(x):
            means[t] = mean
            deviation = deviations[t] = _deviation(rows, mean, moment)
            room = CLIP * deviation
            clipped = np.minimum(np.maximum(value, mean - room), mean + room)
            value = np.where(rows >= CLIP_AFTER, clipped, value)
            rows += 1 if learns is None else learns[t]
            if learns is not None:
                value = np.where(learns[t], value, mean)
            delta = value - mean
            mean += delta / np.maximum(rows, 1)
            moment += delta * (value - mean)
        return means, deviations


def _deviation(rows: Array, mean: Array, moment: Array) -> Array:
    deviation = np.sqrt(moment / np.maximum(rows, 1))
    floor = np.maximum(1e-9 * np.abs(mean), SMALLEST)
    return np.where(deviation > floor, deviation, 1.0)


class LeakyMeans:
    """Means and deviations at several time constants, each of one of Q inputs.

    State: means (L, K), squares (L, K), one for each of the K time constants.
    """

    def __init__(self, taus: Sequence[float], inputs: Sequence[int] | None = None) -> None:
        self.taus = tuple(taus)
        self._rate = 1.0 / np.array(self.taus)
        self._kept = 1.0 - self._rate
        self._inputs = np.zeros(len(self.taus), int) if inputs is None else np.array(inputs)

    def initial_state(self, lanes: int) -> State:
        shape = (lanes, len(self.taus))
        return {"means": np.zeros(shape), "squares": np.zeros(shape)}

    def run(self, state: State, u: Array, is_first: Flags | None) -> tuple[Array, Array]:
        """m_τ and v_τ before u (T, L, Q) and after each row of it: (T + 1, L, K) each.

        Where `is_first` (L,), the means begin at the first row of u; nowhere when None.
        """
        means, squares = state["means"], state["squares"]
        u = u[:, :, self._inputs]
        shape = (len(u) + 1, *means.shape)
        all_means, all_squares = np.empty(shape), np.empty(shape)
        all_means[0], all_squares[0] = means, squares
        if is_first is not None:
            means[is_first] = u[0][is_first]
        for t, row in enumerate(u):
            delta = row - means
            part = self._rate * delta
            means += part
            part *= delta
            squares += part
            squares *= self._kept
            all_means[t + 1], all_squares[t + 1] = means, squares
        return all_means, all_squares


def scaled(x: Array, scale: tuple[Array, Array], rows: Whole) -> Array:
    """u = asinh((x − m) / s); 0 while fewer than two `rows` gave m and s."""
    return np.asarray(np.arcsinh(np.where(rows < 2, 0.0, (x - scale[0]) / scale[1])))


def changes(state: State, u: Array, is_first: Flags | None) -> Array:
    """How much u (T, L, ...) changed since the row before, 0 where `is_first`. State: last."""
    before = np.empty(u.shape)
    before[0], before[1:] = state["last"], u[:-1]
    if is_first is not None:
        before[0, is_first] = u[0, is_first]
    state["last"][...] = u[-1]
    return np.asarray(u - before)
