"""Plain detectors to be measured beside ours: causal, from the standard library of the field.

    random       numbers by chance
    moving_z     |x − mean| / deviation of the 100 rows before
    difference   |x_t − x_{t−1}| / deviation of such differences in the first part
    pca_window   distance from the principal components (90 % of the variance) of the first part: of
                 windows of 20 rows of one channel, or of single rows of several
    mean_max_z   mean over 30 rows of the largest |x − mean| / deviation among the channels, both of
                 the first part
    frozen_memory  sum over channels of ln(1 + d / r), d the distance of (u, its change, m_10, s_10)
                 from a prototype memory of radius r of the first part, u = asinh(z)

Several channels count by their largest. `fitted` rows at the start are the first part; a baseline's
threshold is mean + 3 deviations of its scores there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recurra.tasks.anomaly.lanes import PIECE, Array, Flags
from recurra.tasks.anomaly.leaky import LARGEST, LeakyMeans
from recurra.tasks.anomaly.memory import PrototypeMemory

WINDOW, HISTORY, SMOOTH = 20, 100, 30
SHARE = 0.9
CLIP = 10.0
SIGMAS = 3.0
CAPACITY = 200


def filled(values: Array) -> Array:
    """Values (n, C) with gaps filled by the last known one, and by 0 before the first."""
    known = np.isfinite(values)
    at = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], -1), axis=0)
    columns = np.arange(values.shape[1])
    return np.where(at >= 0, values[np.maximum(at, 0), columns], 0.0)


def chance(values: Array, fitted: int) -> Array:
    """Uniform numbers, always the same."""
    return np.random.default_rng(0).random(len(values))


def moving_z(values: Array, fitted: int) -> Array:
    """How far each row is from the rows before it."""
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values]), axis=0)
    squares = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values**2]), axis=0)
    end = np.arange(len(values))
    start = np.maximum(end - HISTORY, 0)
    count = np.maximum(end - start, 1)[:, None]
    mean = (sums[end] - sums[start]) / count
    deviation = np.sqrt(np.maximum((squares[end] - squares[start]) / count - mean**2, 0.0))
    z = np.abs(values - mean) / np.where(deviation > 1e-6, deviation, 1.0)
    z[0] = 0.0
    return np.asarray(z.max(axis=1))


def difference(values: Array, fitted: int) -> Array:
    """How large the last step is."""
    steps = np.diff(values, axis=0, prepend=values[:1])
    deviation = steps[:fitted].std(axis=0)
    return np.asarray((np.abs(steps) / np.where(deviation > 1e-6, deviation, 1.0)).max(axis=1))


def pca_window(values: Array, fitted: int) -> Array:
    """What the principal components of the first part do not explain."""
    z = _standard(values, fitted)
    if z.shape[1] == 1:
        padded = np.concatenate([np.repeat(z[:1], WINDOW - 1, axis=0), z])
        z = np.lib.stride_tricks.sliding_window_view(padded[:, 0], WINDOW)
    mean = z[:fitted].mean(axis=0)
    centred = z - mean
    _, strength, components = np.linalg.svd(centred[:fitted], full_matrices=False)
    explained = np.cumsum(strength**2) / max(float((strength**2).sum()), 1e-300)
    components = components[: int(np.searchsorted(explained, SHARE)) + 1]
    rest = centred - centred @ components.T @ components
    return np.asarray(np.sqrt((rest**2).sum(axis=1)))


def mean_max_z(values: Array, fitted: int) -> Array:
    """Mean of the last rows' largest deviations."""
    largest = np.abs(_standard(values, fitted, LARGEST)).max(axis=1)
    sums = np.cumsum(np.concatenate([[0.0], largest]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - SMOOTH, 0)
    return np.asarray((sums[end] - sums[start]) / (end - start))


def frozen_memory(values: Array, fitted: int) -> Array:
    """How far each channel is from all of the first part, added up."""
    u = np.arcsinh(_standard(values, fitted, LARGEST))[:, :, None]
    leaky, memory = LeakyMeans((10.0,)), PrototypeMemory([4], [CAPACITY])
    channels = values.shape[1]
    state = {**leaky.initial_state(channels), **memory.initial_state(channels)}
    is_first = np.ones(channels, bool)
    means, squares = leaky.run(state, u, is_first)
    steps = np.diff(u, axis=0, prepend=u[:1])
    parts = [u, steps, means[1:], np.sqrt(squares[1:])]
    features = np.concatenate(parts, axis=2).astype(np.float32)
    learns = np.broadcast_to((np.arange(len(u)) < fitted)[:, None], u.shape[:2])
    made = []
    for start in range(0, len(u), PIECE):
        piece = slice(start, start + PIECE)
        distance, radius = memory.run(state, features[piece], learns[piece])
        made.append(np.log1p(distance[:, :, 0] / radius[:, :, 0]).sum(axis=1))
    return np.concatenate(made)


def _standard(values: Array, fitted: int, most: float = CLIP) -> Array:
    mean, deviation = values[:fitted].mean(axis=0), values[:fitted].std(axis=0)
    z = (values - mean) / np.where(deviation > 1e-6, deviation, 1.0)
    return np.asarray(np.clip(z, -most, most))


BASELINES: dict[str, Callable[[Array, int], Array]] = {
    "random": chance,
    "moving_z": moving_z,
    "difference": difference,
    "pca_window": pca_window,
}


def own_alarms(scores: Array, fitted: int) -> Flags:
    """Rows above mean + 3 deviations of the scores of the first part."""
    return np.asarray(scores > scores[:fitted].mean() + SIGMAS * scores[:fitted].std(), dtype=bool)
