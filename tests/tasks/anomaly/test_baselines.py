from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.baselines import BASELINES, frozen_memory, mean_max_z


def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    made = rng.normal(size=(700, 3))
    made[600:650, 1] += 40.0
    return made


def test_baselines_are_causal_and_see_a_shift() -> None:
    """Only `random` does not; the future changes no score."""
    x = values()
    other = x.copy()
    other[660:] = 1e3
    for name, baseline in {**BASELINES, "mean": mean_max_z, "memory": frozen_memory}.items():
        scores = baseline(x, 400)
        assert scores.shape == (700,)
        assert np.array_equal(scores[:660], baseline(other, 400)[:660]), name
        if name != "random":
            assert scores[600:603].max() > scores[450:600].max(), name


def test_a_mean_of_deviations_does_not_saturate() -> None:
    x = values()
    further = x.copy()
    further[600:650, 1] += 4000.0
    assert mean_max_z(further, 400)[640] > 50 * mean_max_z(x, 400)[640]


def test_a_frozen_memory_stays_surprised() -> None:
    scores = frozen_memory(values(), 400)
    assert scores[601:650].min() > scores[450:600].max()
