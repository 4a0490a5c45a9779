"""JAX: the recurrence as lax.scan, compiled; inputs of all steps are projected in one product."""

from __future__ import annotations

from typing import Any

import numpy as np

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays, parameter_names
from recurra.bench.job import Job


def make(case: Case, arrays: Arrays, participant: str) -> Job:
    import jax

    names = parameter_names(case.shape[-1])
    params = {name: jax.numpy.asarray(arrays[name]) for name in names}
    x, d_output = (jax.numpy.asarray(arrays[name]) for name in ("x", "d_output"))

    def forward(params: Any, x: Any) -> Any:
        for layer in range(case.shape[-1]):
            weights = [params[f"{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh")]
            biases = [params[f"{kind}_l{layer}"] for kind in ("bias_ih", "bias_hh")]
            x = _scan(case.cell, x, *weights, *biases)
        return x

    def training(params: Any, x: Any, d_output: Any) -> Any:
        output, pull = jax.vjp(lambda p: forward(p, x), params)
        return output, pull(d_output)[0]

    if not case.trains:
        infer = jax.jit(forward)
        return Job(
            {"run": lambda: infer(params, x).block_until_ready()},
            lambda: {"output": np.asarray(infer(params, x))},
        )
    train = jax.jit(training)

    def results() -> Arrays:
        output, gradients = train(params, x, d_output)
        return {
            "output": np.asarray(output),
            **{f"grad.{name}": np.asarray(gradients[name]) for name in names},
        }

    return Job({"run": lambda: jax.block_until_ready(train(params, x, d_output))}, results)


def _scan(cell: str, x: Any, w: Any, u: Any, b: Any, c: Any) -> Any:
    """One layer from zeros: x (T, B, I) to (T, B, H); weights as in torch.nn."""
    import jax
    from jax import nn
    from jax import numpy as jnp

    zeros = jnp.zeros((x.shape[1], u.shape[1]), x.dtype)

    def lstm(state: Any, projected: Any) -> Any:
        h, memory = state
        i, f, g, o = jnp.split(projected + h @ u.T, 4, axis=-1)
        memory = nn.sigmoid(f) * memory + nn.sigmoid(i) * jnp.tanh(g)
        h = nn.sigmoid(o) * jnp.tanh(memory)
        return (h, memory), h

    def gru(h: Any, projected: Any) -> Any:
        x_r, x_z, x_n = jnp.split(projected, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(h @ u.T + c, 3, axis=-1)
        z = nn.sigmoid(x_z + h_z)
        h = (1 - z) * jnp.tanh(x_n + nn.sigmoid(x_r + h_r) * h_n) + z * h
        return h, h

    def rnn(h: Any, projected: Any) -> Any:
        h = jnp.tanh(projected + h @ u.T)
        return h, h

    projected = x @ w.T + (b if cell == "gru" else b + c)
    step, start = {"lstm": (lstm, (zeros, zeros)), "gru": (gru, zeros), "rnn": (rnn, zeros)}[cell]
    return jax.lax.scan(step, start, projected)[1]
