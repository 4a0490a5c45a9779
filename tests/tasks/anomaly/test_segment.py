from __future__ import annotations

import numpy as np
import pytest

from recurra.tasks.anomaly.segment import MEMORY, SegmentHead, unexplained


def test_the_yardstick_is_the_most_of_training_and_fades_only_there() -> None:
    head = SegmentHead(1)
    state = head.initial_state(2)
    state["most"][:] = 1.0
    rows = int(MEMORY)
    learns = np.stack([np.ones(rows, bool), np.zeros(rows, bool)], axis=1)
    ratio = head._against_most(state, np.full((rows, 2), 0.5), learns)
    assert state["most"].tolist() == [pytest.approx(0.5, rel=1e-3), 1.0]
    assert ratio[-1].tolist() == [pytest.approx(1.0, rel=1e-3), pytest.approx(0.5)]
    head._against_most(state, np.full((50, 2), 2.0), learns[:50])
    assert state["most"].tolist() == [pytest.approx(2.0, rel=1e-3), 1.0]


def test_no_channel_hides_the_others_however_far_it_is() -> None:
    head = SegmentHead(3)
    one = head.join(np.array([[1e9, 1.0, 1.0], [1.0, 1.0, 1.0], [np.nan, 3.0, np.nan]]))
    assert one[0] < 11.5 * one[1]
    assert one[2] == 3 * one[1]
    assert np.isnan(head.join(np.array([[np.nan, np.nan, np.nan]]))[0])


def test_what_is_not_explained_is_what_the_components_leave() -> None:
    rng = np.random.default_rng(0)
    both = rng.normal(size=(4000, 1)) @ np.array([[1.0, 1.0, 0.0]])
    x = both + 0.1 * rng.normal(size=(4000, 3))
    rest = unexplained(x.T @ x / len(x))
    np.testing.assert_allclose(rest @ np.array([1.0, 1.0, 0.0]), 0.0, atol=0.02)
    np.testing.assert_allclose(rest @ np.array([1.0, -1.0, 0.0]), [1, -1, 0], atol=0.02)
