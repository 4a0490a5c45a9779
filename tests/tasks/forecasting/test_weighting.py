"""Weights of an ensemble's networks, chosen by adding the network that helps most."""

from __future__ import annotations

import numpy as np
import pytest

from recurra.tasks.forecasting.weighting import ROUNDS, choose_weights

LEVELS = (0.1, 0.5, 0.9)
RNG = np.random.default_rng(0)
ACTUAL = RNG.standard_normal((40, 2, 5))
SCALE = np.ones((40, 2))


def off_by(error: float | np.ndarray) -> np.ndarray:
    """Quantiles around the truth, all moved by the same error."""
    return (ACTUAL + error)[..., None] + np.array([-0.1, 0.0, 0.1])


def weights(*each: np.ndarray, actual: np.ndarray = ACTUAL) -> tuple[float, ...]:
    return choose_weights(np.stack(each), actual, SCALE, LEVELS)


def test_a_network_that_is_always_right_counts_alone() -> None:
    assert weights(off_by(2.0), off_by(0.0), off_by(-1.0)) == (0.0, 1.0, 0.0)


def test_errors_that_cancel_are_mixed_in_their_proportion() -> None:
    assert weights(off_by(1.0), off_by(-1.0)) == (0.5, 0.5)
    assert weights(off_by(1.0), off_by(-3.0)) == pytest.approx((0.75, 0.25), abs=1 / ROUNDS)


def test_independent_errors_are_averaged() -> None:
    errors = RNG.standard_normal((3, *ACTUAL.shape))
    made = weights(*(off_by(one) for one in errors))
    assert sum(made) == pytest.approx(1.0)
    assert min(made) > 0.2


def test_missing_values_count_for_nothing() -> None:
    actual = ACTUAL.copy()
    actual[:20] = np.nan
    half = np.where(np.arange(40)[:, None, None] < 20, 9.0, 0.0)
    assert weights(off_by(half), off_by(1.0), actual=actual) == (1.0, 0.0)
    assert weights(off_by(0.0), off_by(1.0), actual=np.full_like(ACTUAL, np.nan)) == (0.5, 0.5)
