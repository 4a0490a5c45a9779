from __future__ import annotations

import numpy as np

from recurra.tasks.anomaly.memory import GROWTH, START, PrototypeMemory, spread_out


def test_distance_is_that_of_the_nearest_prototype() -> None:
    memory = PrototypeMemory([2, 1], [8, 8])
    state = memory.initial_state(1)
    for point in ([0.0, 0.0, 5.0], [3.0, 4.0, 7.0]):
        features = np.array([point], np.float32)
        memory.learn(state, features, memory.distances(state, features))
    found = memory.distances(state, np.array([[3.0, 5.0, 5.5]], np.float32))
    np.testing.assert_allclose(found, [[1.0, 0.5]], rtol=1e-6)
    assert state["count"].tolist() == [[2, 2]]


def test_an_empty_memory_is_not_surprised() -> None:
    memory = PrototypeMemory([3], [4])
    assert memory.distances(memory.initial_state(2), np.ones((2, 3), np.float32)).tolist() == [
        [0.0],
        [0.0],
    ]


def test_what_is_near_is_not_stored_again() -> None:
    memory = PrototypeMemory([1], [4])
    state = memory.initial_state(1)
    for x in (1.0, 1.0 + START / 2, 1.0 - START / 2):
        features = np.array([[x]], np.float32)
        memory.learn(state, features, memory.distances(state, features))
    assert state["count"].tolist() == [[1]]


def test_a_full_memory_grows_coarser_and_forgets_nothing() -> None:
    memory = PrototypeMemory([2], [20])
    state = memory.initial_state(1)
    points = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    for point in points:
        memory.learn(state, point[None], memory.distances(state, point[None]))
    assert state["count"][0, 0] < 20
    radius = state["radius"][0, 0]
    steps = np.log(radius / START) / np.log(GROWTH)
    assert steps > 1
    assert abs(steps - round(steps)) < 1e-9
    for point in points:
        # What was dropped lies within the radius of what stayed when it was dropped, and so on.
        assert memory.distances(state, point[None])[0, 0] <= radius / (1 - 1 / GROWTH)


def test_points_that_stay_are_apart() -> None:
    points = np.array([[0.0, 0.5, 1.2, 1.3, 3.0]], np.float32)
    assert spread_out(points, 1.0).tolist() == [0, 2, 4]


def test_lanes_do_not_touch() -> None:
    memory = PrototypeMemory([2, 3], [16, 32])
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(120, 11, 5)).astype(np.float32)
    together, alone = memory.initial_state(11), memory.initial_state(1)
    for row in rows:
        both = memory.distances(together, row)
        one = memory.distances(alone, row[7:8])
        assert both[7].tolist() == one[0].tolist()
        memory.learn(together, row, both)
        memory.learn(alone, row[7:8], one)
    for name, values in alone.items():
        assert np.array_equal(values[0], together[name][7])
