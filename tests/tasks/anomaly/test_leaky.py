from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.leaky import CLIP, CLIP_AFTER, LeakyMeans, Scaler
from recurra.tasks.anomaly.means import MovingMeans


def test_scale_is_mean_and_deviation_of_earlier_rows() -> None:
    x = np.random.default_rng(0).normal(3, 2, CLIP_AFTER)
    scaler = Scaler()
    state = scaler.initial_state(1)
    scaler.run(state, x[:, None])
    mean, deviation = scaler.run(state, x[:1, None])
    np.testing.assert_allclose([mean[0, 0], deviation[0, 0]], [x.mean(), x.std()], rtol=1e-12)


def test_one_huge_value_moves_the_scale_by_no_more_than_the_clip() -> None:
    x = np.random.default_rng(0).normal(0, 1, 200)
    scaler = Scaler()
    state = scaler.initial_state(1)
    mean, deviation = scaler.run(state, np.append(x, [1e9, 0.0])[:, None])
    assert mean[201, 0] - mean[200, 0] <= CLIP * deviation[200, 0] / 201 * (1 + 1e-12)


def test_lanes_that_do_not_learn_keep_their_scale() -> None:
    x = np.random.default_rng(0).normal(3, 2, (90, 2))
    learns = np.stack([np.arange(90) < 60, np.ones(90, bool)], axis=1)
    scaler = Scaler()
    state, half, all_of_it = (scaler.initial_state(n) for n in (2, 1, 1))
    scaler.run(state, x, learns)
    scaler.run(half, x[:60, :1])
    scaler.run(all_of_it, x[:, 1:])
    for name, values in state.items():
        assert values.tolist() == [half[name][0], all_of_it[name][0]], name


def test_leaky_means_are_the_recurrence() -> None:
    leaky = LeakyMeans((4.0,))
    state = leaky.initial_state(1)
    u = np.array([2.0, 6.0, -2.0])
    means, squares = leaky.run(state, u[:, None, None], np.array([True]))
    # m: 2, 3, 1.75;  v: 0, 3/4·(4²/4) = 3, 3/4·(3 + 25/4) = 6.9375
    np.testing.assert_allclose(means[:, 0, 0], [0, 2, 3, 1.75], rtol=1e-14)
    np.testing.assert_allclose(squares[:, 0, 0], [0, 0, 3, 6.9375], rtol=1e-14)
    assert state["means"].tolist() == means[3].tolist()


def test_moving_means_equal_plain_means() -> None:
    means = MovingMeans((3, 8))
    x = np.random.default_rng(1).normal(1e6, 1, 60)
    state = means.initial_state(2)
    start = 0
    for rows in (1, 1, 2, 3, 5, 7, 8, 1, 6, 8, 8, 4, 6):
        some = x[start : start + rows, None] * [1, -1]
        found = means.run(state, some, np.array([start, start]))
        for row in range(start, start + rows):
            for k, width in enumerate((3, 8)):
                wanted = x[max(0, row + 1 - width) : row + 1].mean()
                np.testing.assert_allclose(found[row - start, :, k], [wanted, -wanted], rtol=1e-14)
        start += rows
    assert start == 60


def test_sums_are_added_up_afresh_at_the_end_of_the_ring() -> None:
    means = MovingMeans((2, 4))
    x = np.array([1e17, 1.0, 1.0, 1.0, 1.0, 1.0])
    for pieces in ([1] * 6, [3, 3], [4, 2]):
        state, start, made = means.initial_state(1), 0, []
        for rows in pieces:
            made.append(means.run(state, x[start : start + rows, None], np.array([start])))
            start += rows
        # Lost in the sum with the large value, the small ones come back at the ring's end.
        assert np.concatenate(made)[:, 0, 0].tolist()[3:] == [1.0, 1.0, 1.0]
