from __future__ import annotations

import numpy as np
import pytest

from recurra.tasks.anomaly.segment import LASTING, PART, SMOOTH, SegmentHead, scale_of


def evidence(
    distance: np.ndarray, learning: int, head: SegmentHead | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """s and y of distances (T,) of one lane."""
    head = head or SegmentHead()
    state = head.initial_state(1)
    state["learning"][:] = learning
    seen = np.arange(len(distance))[:, None]
    s, y = head._evidence(state, distance[:, None], seen, seen < learning)
    return s[:, 0], y[:, 0]


def test_evidence_is_the_distance_above_what_lasts() -> None:
    distance = np.full(6000, 0.2)
    distance[3000:] = 2.2
    s, _ = evidence(distance, 0)
    assert s[2999] == pytest.approx(0, abs=0.02)
    assert s[3000] == pytest.approx(2.0 * (1 + PART / SMOOTH), rel=0.02)
    assert s[3100] == pytest.approx(2.0 * (1 + PART) * np.exp(-100 / LASTING), rel=0.02)
    assert s[5999] < 0.2  # after three thousand rows it is the normal


def test_the_yardstick_is_the_mean_of_what_was_learned_late() -> None:
    """Early rows are new to an empty memory, and say nothing about what is usual."""
    rng = np.random.default_rng(0)
    distance = rng.exponential(1.0, 8000)
    distance[:400] += 1.0
    s, y = evidence(distance, 4000)
    assert y[4000] == pytest.approx(s[3000:4000].mean(), rel=0.1)
    assert (y[4001:] == y[4001]).all()


def test_the_surprise_of_a_series_adds_its_known_channels_up() -> None:
    head = SegmentHead()
    s = np.array([[[2.0, 1.0, np.nan]]])
    y = np.array([[[0.5, 0.25, 9.0]]])
    parts = head.together({}, s, y, np.isfinite(s))
    assert parts[0, 0, :2].tolist() == pytest.approx([2 / 0.75 / np.log(10), 1 / 0.75 / np.log(10)])
    assert head.join(parts)[0, 0] == pytest.approx(4.0 / np.log(10))
    assert np.isnan(head.join(np.full((1, 1, 3), np.nan))).all()


def test_scales_are_those_of_the_values_that_are_there() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal([5.0, -2.0], [3.0, 0.1], (2000, 2))
    values[::3, 1] = np.nan
    scale = scale_of(values)
    assert scale["rows"].tolist() == [2000, 1333]
    np.testing.assert_allclose(scale["mean"], [5.0, -2.0], rtol=0.05)
    np.testing.assert_allclose(np.sqrt(scale["moment"] / scale["rows"]), [3.0, 0.1], rtol=0.05)


def test_a_known_scale_stays_and_an_unknown_one_is_learned() -> None:
    head = SegmentHead()
    state = head.initial_state(2)
    state["scaled"][0] = True
    state["rows"][0], state["moment"][0] = 100, 100.0
    x = np.random.default_rng(0).normal(7.0, 1.0, (60, 2))
    head.run(state, x, np.zeros((60, 2, 2)))
    assert (state["mean"][0], state["rows"][0]) == (0.0, 100)
    assert state["mean"][1] == pytest.approx(7.0, abs=0.5)
    assert state["rows"][1] == 60
