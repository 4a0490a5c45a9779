from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.memory import GROWTH, START, PrototypeMemory, spread_out


def test_distance_is_that_of_the_nearest_prototype() -> None:
    memory = PrototypeMemory([2, 1], [8, 8])
    state = memory.initial_state(1)
    points = np.array([[0.0, 0.0, 5.0], [3.0, 4.0, 7.0], [3.0, 5.0, 5.5]], np.float32)
    found, _ = memory.run(state, points[:, None, memory.layout], np.array([[1], [1], [0]]) > 0)
    np.testing.assert_allclose(found[:, 0], [[0, 0], [5, 2], [1, 0.5]], rtol=1e-6)
    assert state["count"].tolist() == [[2, 2]]


def test_an_empty_memory_is_not_surprised() -> None:
    memory = PrototypeMemory([3], [4])
    found, _ = memory.run(memory.initial_state(2), np.ones((1, 2, 3), np.float32))
    assert found.tolist() == [[[0.0], [0.0]]]


def test_what_is_near_is_not_stored_again() -> None:
    memory = PrototypeMemory([1], [4])
    state = memory.initial_state(1)
    near = np.array([1.0, 1.0 + START / 2, 1.0 - START / 2], np.float32)
    memory.run(state, near[:, None, None])
    assert state["count"].tolist() == [[1]]


def test_a_full_memory_grows_coarser_and_forgets_nothing() -> None:
    memory = PrototypeMemory([2], [20])
    state = memory.initial_state(1)
    points = np.random.default_rng(0).normal(size=(500, 1, 2)).astype(np.float32)
    memory.run(state, points)
    assert state["count"][0, 0] < 20
    radius = state["radius"][0, 0]
    steps = np.log(radius / START) / np.log(GROWTH)
    assert steps > 1
    assert abs(steps - round(steps)) < 1e-9
    found, _ = memory.run(state, points, np.zeros((500, 1), bool))
    # What was dropped lies within the radius of what stayed when it was dropped, and so on.
    assert found.max() <= radius / (1 - 1 / GROWTH)


def test_points_that_stay_are_apart() -> None:
    points = np.array([[0.0, 0.5, 1.2, 1.3, 3.0]], np.float32)
    assert spread_out(points, 1.0).tolist() == [0, 2, 4]


def test_lanes_and_pieces_do_not_touch() -> None:
    """All at once, or one lane and one row at a time: the same distances, radii and prototypes."""
    memory = PrototypeMemory([3, 2], [16, 32])
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(120, 11, 5)).astype(np.float32)
    learns = rng.random((120, 11)) < 0.8
    together, alone = memory.initial_state(11), memory.initial_state(1)
    start, made = 0, []
    for end in (1, 2, 30, 31, 60, 120):
        made.append(memory.run(together, rows[start:end], learns[start:end]))
        start = end
    distance, radius = (np.concatenate(part) for part in zip(*made, strict=True))
    for t in range(120):
        one = memory.run(alone, rows[t : t + 1, 7:8], learns[t : t + 1, 7:8])
        assert distance[t, 7].tolist() == one[0][0, 0].tolist()
        assert radius[t, 7].tolist() == one[1][0, 0].tolist()
    assert (alone["radius"] > START).all()
    for name, values in alone.items():
        assert np.array_equal(values[0], together[name][7])
