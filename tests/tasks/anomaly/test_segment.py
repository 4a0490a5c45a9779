from __future__ import annotations

import numpy as np
import pytest

from recurra.tasks.anomaly.segment import MEMORY, SegmentHead, unexplained


def test_the_yardstick_is_the_most_of_training_and_then_follows_slowly() -> None:
    """q fades to no less than what comes while learning, and later goes up to what lasts."""
    head = SegmentHead(1)
    state = head.initial_state(2)
    state["most"][:] = 1.0
    rows = int(MEMORY)
    learns = np.stack([np.arange(rows) < 10, np.zeros(rows, bool)], axis=1)
    strange = np.full((rows, 2), 2.0)
    ratio = head._against_most(state, strange, learns)
    assert state["most"][0] == pytest.approx(state["smooth"][0], rel=0.05)
    assert state["most"][1] == pytest.approx(2 - np.exp(-1), abs=0.01)
    assert ratio[100, 1] > 1.9
    assert ratio[-1, 1] == pytest.approx(2 / (2 - np.exp(-1)), abs=0.01)
    quiet = head._against_most(state, np.zeros((200, 2)), np.zeros((200, 2), bool))
    assert quiet[-1].max() < 1e-9
    assert state["most"][1] == pytest.approx(2 - np.exp(-1), abs=0.01)  # nothing is forgotten


def test_what_is_not_explained_is_what_the_components_leave() -> None:
    rng = np.random.default_rng(0)
    both = rng.normal(size=(4000, 1)) @ np.array([[1.0, 1.0, 0.0]])
    x = both + 0.1 * rng.normal(size=(4000, 3))
    rest = unexplained(x.T @ x / len(x))
    np.testing.assert_allclose(rest @ np.array([1.0, 1.0, 0.0]), 0.0, atol=0.02)
    np.testing.assert_allclose(rest @ np.array([1.0, -1.0, 0.0]), [1, -1, 0], atol=0.02)
