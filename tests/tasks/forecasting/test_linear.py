"""The linear baseline: exact on linear data, the solution of its equations, never ahead of time."""

from __future__ import annotations

import numpy as np
import pytest

from recurra.tasks.forecasting import linear


def ramp(rows: int = 60, channels: int = 2) -> np.ndarray:
    return np.arange(rows, dtype=float)[:, None] * np.arange(1, channels + 1)


def test_windows_are_differences_from_the_last_value() -> None:
    x, y = linear.windows(ramp()[:, 0], 3, 2, np.array([10, 57]))
    assert x.tolist() == [[-2.0, -1.0, 0.0]] * 2
    assert y.tolist() == [[1.0, 2.0]] * 2


def test_ramps_are_continued_exactly_when_nothing_is_penalised() -> None:
    values = ramp()
    (weight,) = linear.learn(values, 3, 4, np.arange(2, 56), [1e-9])
    made = linear.forecast(values[:, 1], weight, np.array([5, 50]))
    assert made == pytest.approx(values[[[6, 7, 8, 9], [51, 52, 53, 54]], 1], abs=1e-6)


def test_weights_solve_the_penalised_least_squares() -> None:
    rng = np.random.default_rng(0)
    values, rows = rng.standard_normal((5000, 2)), np.arange(4, 4990)
    penalties = (0.5, 40.0)
    pairs = [linear.windows(values[:, k], 4, 3, rows) for k in range(2)]
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    solved = linear.learn(values, 4, 3, rows, penalties)
    for penalty, weight in zip(penalties, solved, strict=True):
        wanted = np.linalg.solve(x.T @ x + penalty * np.eye(4), x.T @ y)
        assert weight == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_forecast_reads_its_window_alone() -> None:
    values = np.random.default_rng(1).standard_normal(40)
    weight = np.random.default_rng(2).standard_normal((5, 3))
    wanted = linear.forecast(values, weight, np.array([20]))
    changed = values.copy()
    changed[21:] = 9.0
    changed[:16] = -9.0
    assert np.array_equal(linear.forecast(changed, weight, np.array([20])), wanted)
    changed[16] += 1.0
    assert not np.array_equal(linear.forecast(changed, weight, np.array([20])), wanted)
