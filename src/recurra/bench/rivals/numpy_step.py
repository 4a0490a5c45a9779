"""NumPy: one step written down as in a textbook."""

from __future__ import annotations

from typing import Any

import numpy as np

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays
from recurra.bench.job import Job


def make(case: Case, arrays: Arrays, participant: str) -> Job:
    hidden, layers = case.shape[3:]
    stack = [_weights(case.cell, arrays, layer) for layer in range(layers)]
    cell: Any = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}[case.cell]
    x = arrays["x"][:, 0]

    def step(x_t: Any, states: list[Any]) -> Any:
        for k, weights in enumerate(stack):
            states[k] = cell(x_t, states[k], *weights)
            x_t = states[k][0]
        return x_t

    def start() -> list[Any]:
        return [(np.zeros(hidden, np.float32),) * 2 for _ in stack]

    def results() -> Arrays:
        states = start()
        return {"output": np.stack([step(x_t, states) for x_t in x])[:, None]}

    kept, x_t = start(), x[0]
    return Job({"run": lambda: step(x_t, kept)}, results)


def _weights(cell: str, arrays: Arrays, layer: int) -> list[Any]:
    """W, U and the bias; two biases for the GRU, whose reset gate comes between them."""
    w, u, b, c = (
        arrays[f"{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return [w, u, b, c] if cell == "gru" else [w, u, b + c]


def _sigmoid(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def _lstm(x: Any, state: Any, w: Any, u: Any, b: Any) -> Any:
    h, memory = state
    i, f, g, o = np.split(w @ x + u @ h + b, 4)
    memory = _sigmoid(f) * memory + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(memory), memory


def _gru(x: Any, state: Any, w: Any, u: Any, b: Any, c: Any) -> Any:
    h = state[0]
    x_r, x_z, x_n = np.split(w @ x + b, 3)
    h_r, h_z, h_n = np.split(u @ h + c, 3)
    z = _sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + _sigmoid(x_r + h_r) * h_n) + z * h,)


def _rnn(x: Any, state: Any, w: Any, u: Any, b: Any) -> Any:
    return (np.tanh(w @ x + u @ state[0] + b),)
