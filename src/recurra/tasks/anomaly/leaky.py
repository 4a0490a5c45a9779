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

from recurra.tasks.anomaly.lanes import Array, Flags, State

CLIP = 4.0
CLIP_AFTER = 50
LARGEST = 1e100
"""Values are held to ± this, so that their squares stay finite."""
SMALLEST = 1e-100


class Scaler:
    """Mean and deviation of all earlier rows. State: rows (L,), mean (L,), moment (L,)."""

    def initial_state(self, lanes: int) -> State:
        return {
            "rows": np.zeros(lanes, np.int64),
            "mean": np.zeros(lanes),
            "moment": np.zeros(lanes),
        }

    def scale(self, state: State) -> tuple[Array, Array]:
        """m and s of what was seen so far, (L,) each; s is 1 where nothing has varied."""
        deviation = np.sqrt(state["moment"] / np.maximum(state["rows"], 1))
        floor = np.maximum(1e-9 * np.abs(state["mean"]), SMALLEST)
        return state["mean"], np.where(deviation > floor, deviation, 1.0)

    def learn(self, state: State, x: Array, learns: Flags | None = None) -> None:
        """Take in one row (L,), in the lanes that learn: all of them when None."""
        mean, deviation = self.scale(state)
        room = CLIP * deviation
        full = state["rows"] >= CLIP_AFTER
        x = np.where(full, np.clip(x, mean - room, mean + room), x)
        state["rows"] += 1 if learns is None else learns
        delta = x - state["mean"]
        if learns is not None:
            delta = np.where(learns, delta, 0.0)
            x = np.where(learns, x, state["mean"])
        state["mean"] += delta / np.maximum(state["rows"], 1)
        state["moment"] += delta * (x - state["mean"])


class LeakyMeans:
    """Means and deviations at several time constants."""

    def __init__(self, taus: Sequence[float]) -> None:
        self.taus = tuple(taus)
        self._rate = 1.0 / np.array(self.taus)

    def initial_state(self, lanes: int) -> State:
        """Arrays `means` and `squares`, (L, len(taus))."""
        shape = (lanes, len(self.taus))
        return {"means": np.zeros(shape), "squares": np.zeros(shape)}

    def step(self, means: Array, squares: Array, u: Array, is_first: Flags) -> None:
        """Take in u (L,); where `is_first` (L,) the means begin at u."""
        new = u[:, None]
        delta = np.where(is_first[:, None], 0.0, new - means)
        means[...] = np.where(is_first[:, None], new, means + self._rate * delta)
        squares += self._rate * delta * delta
        squares *= 1.0 - self._rate
