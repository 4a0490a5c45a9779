"""Weights, inputs and the true results of a case: made once by seed, read by every worker.

One safetensors file for each cell, shape and kind of case. Names and layouts are torch.nn's, time
first:

    weight_ih_l0 ...   float32, uniform ±1/√H        x          (T, B, input_size) float32
    lengths            (B,) int64, in [1, T]         d_output   (T, B, H) float32
    true.output        (T, B, H) float64; of a ragged case, 0 after each row's length
    true.grad.NAME     gradients of sum(output · d_output)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from recurra.bench.cases import GATES, Case

Arrays = dict[str, NDArray[Any]]
SEED = 20240229


def parameter_names(layers: int) -> list[str]:
    """torch.nn's names, in its order."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [f"{kind}_l{layer}" for layer in range(layers) for kind in kinds]


def make_arrays(case: Case) -> Arrays:
    """Weights, inputs, lengths and the gradient of the outputs; the same for equal shapes."""
    batch, time, inputs, hidden, layers = case.shape
    rng = np.random.default_rng([SEED, GATES[case.cell], *case.shape])
    arrays: Arrays = {}
    for name in parameter_names(layers):
        columns = inputs if name == "weight_ih_l0" else hidden
        rows = GATES[case.cell] * hidden
        size = (rows, columns) if name.startswith("weight") else (rows,)
        arrays[name] = rng.uniform(-(hidden**-0.5), hidden**-0.5, size).astype(np.float32)
    arrays["x"] = rng.standard_normal((time, batch, inputs)).astype(np.float32)
    arrays["d_output"] = rng.standard_normal((time, batch, hidden)).astype(np.float32)
    arrays["lengths"] = rng.integers(1, time, batch, endpoint=True)
    return arrays


def read_case(path: Path) -> tuple[Arrays, Arrays]:
    """(weights and inputs, true results) of a file that `truth.write_case` made."""
    arrays = load_file(path)
    truth = {name[5:]: arrays.pop(name) for name in list(arrays) if name.startswith("true.")}
    return arrays, truth


def largest_errors(results: Arrays, truth: Arrays) -> dict[str, float]:
    """Largest absolute error of the outputs; of gradients, relative to their largest entry.

    >>> one, two = {"output": np.ones(2)}, {"output": np.array([1.0, 1.5])}
    >>> largest_errors(one, two)
    {'output': 0.5}
    """
    errors = {"output": float(np.abs(results["output"] - truth["output"]).max())}
    gradients = [name for name in truth if name.startswith("grad.")]
    if gradients:
        errors["gradient"] = max(
            float(np.abs(results[name] - truth[name]).max() / np.abs(truth[name]).max())
            for name in gradients
        )
    return errors
