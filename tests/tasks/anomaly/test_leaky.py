from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.leaky import CLIP, CLIP_AFTER, LeakyMeans, Scaler
from recurra.tasks.anomaly.means import MovingMeans


def test_scale_is_mean_and_deviation_of_earlier_rows() -> None:
    x = np.random.default_rng(0).normal(3, 2, CLIP_AFTER)
    scaler = Scaler()
    state = scaler.initial_state(1)
    for value in x:
        scaler.learn(state, np.array([value]))
    mean, deviation = scaler.scale(state)
    np.testing.assert_allclose([mean[0], deviation[0]], [x.mean(), x.std()], rtol=1e-12)


def test_one_huge_value_moves_the_scale_by_no_more_than_the_clip() -> None:
    x = np.random.default_rng(0).normal(0, 1, 200)
    scaler = Scaler()
    state = scaler.initial_state(1)
    for value in x:
        scaler.learn(state, np.array([value]))
    mean, deviation = (part.copy() for part in scaler.scale(state))
    scaler.learn(state, np.array([1e9]))
    assert scaler.scale(state)[0][0] - mean[0] <= CLIP * deviation[0] / 201 * (1 + 1e-12)


def test_leaky_means_are_the_recurrence() -> None:
    leaky = LeakyMeans((4.0,))
    state = leaky.initial_state(1)
    means, squares = state["means"], state["squares"]
    for row, u in enumerate((2.0, 6.0, -2.0)):
        leaky.step(means, squares, np.array([u]), np.array([row == 0]))
    # m: 2, 3, 1.75;  v: 0, 3/4·(4²/4) = 3, 3/4·(3 + 25/4) = 6.9375
    np.testing.assert_allclose([means[0, 0], squares[0, 0]], [1.75, 6.9375], rtol=1e-14)


def test_moving_means_equal_plain_means() -> None:
    means = MovingMeans((3, 8))
    x = np.random.default_rng(1).normal(1e6, 1, 60)
    state = means.initial_state(2)
    for row in range(60):
        found = means.step(state, np.array([x[row], -x[row]]), np.array([row, row]))
        for k, width in enumerate((3, 8)):
            wanted = x[max(0, row + 1 - width) : row + 1].mean()
            np.testing.assert_allclose(found[:, k], [wanted, -wanted], rtol=1e-14)
